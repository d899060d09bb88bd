"""`run SERVICE TASK …` and `service NAME` in a session."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.errors import UsageError
from nfcli.shell.repl.completion import complete
from nfcli.shell.repl.history import mask_line
from support.shell.bench import ShellBench
from support.shell.fake_client import FakeClient

TEXT = {"type": "string"}
WORKER = "fastmcp-worker-1"
TASKS = [
    {
        "name": "greet_all",
        "description": "Greet everybody.\n\nOne after the other.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "text": TEXT | {"description": "What to say"},
                "mode": {"enum": ["slow", "fast"], "default": "fast"},
                "names": {"type": "array", "items": {"enum": ["ann", "bob"]}},
                "dry_run": {"type": "boolean", "default": False},
                "timeout": {"type": "integer"},
                "api_key": TEXT,
            },
            "required": ["text"],
        },
    },
    {"name": "wipe", "mcp": {"annotations": {"destructiveHint": True}}, "inputSchema": {"type": "object"}},
    {"name": "odd name", "inputSchema": {"type": "object"}},
    {"name": "fastmcp", "inputSchema": {"type": "object"}},
    {"name": "bearer_token_store", "inputSchema": {"type": "object"}},
]


class Secrets:
    """Secrets and answers that a test gives; `asked` are the names and questions."""

    def __init__(self, answer: bool | None = None) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def read(self, name: str) -> str:
        """Return a secret."""
        self.asked.append(name)
        return "s3cret"

    def discard(self) -> None:
        """Note that a secret was dropped."""
        self.asked.append("dropped")

    def read_text(self, name: str) -> str:
        """Return a text of several lines."""
        self.asked.append(name)
        return "one\ntwo\n"

    def confirm(self, question: str) -> bool | None:
        """Return the answer."""
        self.asked.append(question)
        return self.answer


@pytest.fixture
def bench(make_bench: Callable[..., ShellBench]) -> ShellBench:
    """Provide a worker with a few tasks."""
    bench = make_bench(WORKER)
    bench.client.answers = {
        "list_tasks": TASKS,
        "greet_all": "done",
        "wipe": True,
        "odd name": [{"a": 1}],
        "fastmcp": {"b": 2},
    }
    return bench


def sent(client: FakeClient) -> list[dict[str, Any]]:
    """Return the jobs but those that ask for tasks."""
    return [call for call in client.calls if call["task"] not in {"list_tasks", "token_users", "bearer_token_check"}]


def completed(bench: ShellBench, line: str) -> list[str]:
    """Return the line as each completion would make it."""
    found = complete(line, bench.session.navigator.location, bench.session.suggester)
    return [line[: found.start] + text for text in found.texts]


def test_a_task_runs_with_what_was_given(bench: ShellBench) -> None:
    """Converted; dashes may stand for underscores; the options of jobs are the job's."""
    line = "run fastmcp greet-all text hello names ann,bob dry-run task-timeout 3 timeout 9 workers any"
    assert bench.run(line) == (0, json.dumps({WORKER: "done"}, indent=4) + "\n", "")
    [call] = sent(bench.client)
    assert (call["service"], call["task"], call["timeout"], call["workers"]) == ("fastmcp", "greet_all", 9, "any")
    assert call["kwargs"] == {"text": "hello", "names": ["ann", "bob"], "dry_run": True, "timeout": 3}


def test_records_are_a_table_and_go_through_pipes(bench: ShellBench) -> None:
    """Also of a task whose name has to be quoted."""
    assert bench.run("run fastmcp 'odd name'")[1] == f" worker{' ' * (len(WORKER) - 6)}  a\n {WORKER}  1\n"
    assert json.loads(bench.run("run fastmcp 'odd name' | json")[1]) == [{"worker": WORKER, "a": 1}]
    assert json.loads(bench.run("run fastmcp fastmcp")[1]) == {WORKER: {"b": 2}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run fastmcp greet_all", "greet_all: text: field required"),
        ("run fastmcp greet_all text a mode slo", "greet_all: mode: must be 'slow' or 'fast', got 'slo'"),
        ("run fastmcp greet_all text", "greet_all: text: value missing"),
        ("run fastmcp greet_all txt a", "greet_all: 'txt' is not valid here: expected timeout, workers, "),
        ("run fastmcp great_all", "fastmcp: 'great_all' is not valid here: expected "),
        ("run fastmpc", "run: 'fastmpc' is not valid here: expected fastmcp (did you mean fastmcp?)"),
        ("service fastmpc", "service: 'fastmpc' is not valid here: expected fastmcp (did you mean fastmcp?)"),
        ("run fastmcp greet_all text a api_key ***", "greet_all: api_key: *** stands for a value that was masked"),
        ("run fastmcp greet_all text @/nowhere/at/all", "text: cannot read '/nowhere/at/all': No such file"),
        ("run fastmcp wipe", "wipe: this task may destroy something: add yes to run it where nobody can be asked"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_sent(bench: ShellBench, line: str, message: str) -> None:
    """One line that names the word and the rule, with near matches; exit status 2."""
    bench.session.secrets = Secrets()
    status, out, err = bench.run(line)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(message)
    assert sent(bench.client) == []


def test_a_service_is_a_subshell(bench: ShellBench) -> None:
    """Its tasks are typed alone; exit leads to where one came from."""
    assert bench.run("service fastmcp") == (0, "", "")
    assert bench.session.navigator.prompt == "nf[fastmcp]#"
    assert bench.run("greet_all text x")[0] == 0
    assert completed(bench, "gr") == ["greet_all "]
    assert "\n greet_all " in bench.run("?")[1]
    bench.run("exit")
    assert bench.session.navigator.prompt == "nf#"
    bench.run("run")
    assert (bench.session.navigator.prompt, bench.run("pwd")[1]) == ("nf[run]#", "root.run\n")
    bench.run("fastmcp")
    bench.run("exit")
    assert bench.session.navigator.prompt == "nf[run]#"


def test_one_command_needs_a_task(bench: ShellBench) -> None:
    """As no next line follows."""
    status, _, err = bench.run_words("run", "fastmcp")
    assert (status, err.split(":")[0]) == (2, "incomplete command, possible completions")


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("run f", ["run fastmcp "]),
        ("run fastmcp gr", ["run fastmcp greet_all "]),
        ("run fastmcp greet-", ["run fastmcp greet_all "]),
        ("run fastmcp 'odd", []),
        ("run fastmcp greet_all te", ["run fastmcp greet_all text "]),
        ("run fastmcp greet_all mode ", ["run fastmcp greet_all mode slow ", "run fastmcp greet_all mode fast "]),
        ("run fastmcp greet_all names ann,", ["run fastmcp greet_all names ann,bob "]),
        ("run fastmcp greet_all api_key ", []),
        ("run fastmcp greet_all workers f", [f"run fastmcp greet_all workers {WORKER} "]),
        ("man tree run.fastmcp.gr", ["man tree run.fastmcp.greet_all "]),
    ],
)
def test_tab_knows_tasks_and_their_arguments(bench: ShellBench, line: str, lines: list[str]) -> None:
    """And listed values, also behind a comma; never a secret."""
    assert completed(bench, line) == lines


def test_help_and_tree_explain_a_task(bench: ShellBench) -> None:
    """With types, defaults, and what is required."""
    shown = bench.run("run fastmcp greet_all ??")[1]
    assert "*text" in shown
    assert "('slow' or 'fast', default 'fast')" in shown
    tree = bench.run("man tree run.fastmcp.greet-all")[1]
    assert "└── greet_all:    Greet everybody.\n" in tree
    assert "├── *text:    What to say\n" in tree
    whole = bench.run("man tree")[1]
    assert "run:    Run a task of any service\n" in whole
    assert "greet_all" not in whole
    assert json.loads(bench.run("man json-schema run.fastmcp.greet_all")[1])["required"] == ["text"]


def test_a_text_may_come_from_a_file_or_the_terminal(bench: ShellBench, tmp_path: Path) -> None:
    """Unless it is quoted or has a second @; a secret without the end of its line."""
    secrets = Secrets()
    bench.session.secrets = secrets
    (tmp_path / "text").write_text("long\ntext\n")
    for typed, expected in (
        (f"@{tmp_path}/text", "long\ntext\n"),
        ("load-terminal", "one\ntwo\n"),
        ("'load-terminal'", "load-terminal"),
        ("'@all'", "@all"),
        ("@@all", "@all"),
    ):
        assert bench.run(f"run fastmcp greet_all text {typed}")[0] == 0
        assert sent(bench.client)[-1]["kwargs"] == {"text": expected}
    assert bench.run(f"run fastmcp greet_all text a api_key @{tmp_path}/text")[0] == 0
    assert sent(bench.client)[-1]["kwargs"]["api_key"] == "long\ntext"
    assert completed(bench, f"run fastmcp greet_all text @{tmp_path}/te") == [
        f"run fastmcp greet_all text @{tmp_path}/text "
    ]


def test_a_secret_is_asked_for(bench: ShellBench) -> None:
    """By the argument's name, and dropped where the line is wrong."""
    secrets = Secrets()
    bench.session.secrets = secrets
    assert bench.run("run fastmcp greet_all text a api_key -")[0] == 0
    assert (secrets.asked, sent(bench.client)[-1]["kwargs"]["api_key"]) == (["api_key"], "s3cret")
    assert bench.run("run fastmcp greet_all txet a api_key -")[0] == 2
    assert secrets.asked[1:] == ["dropped"]


@pytest.mark.parametrize(("answer", "status", "count"), [(True, 0, 1), (False, 1, 0), (None, 2, 0)])
def test_a_destructive_task_needs_a_yes(bench: ShellBench, answer: bool | None, status: int, count: int) -> None:
    """Of somebody, or the word; without it nothing is sent."""
    secrets = Secrets(answer)
    bench.session.secrets = secrets
    assert bench.run("run fastmcp wipe")[0] == status
    assert (len(sent(bench.client)), len(secrets.asked)) == (count, 1)
    assert bench.run("run fastmcp wipe yes")[0] == 0
    assert (len(sent(bench.client)), len(secrets.asked)) == (count + 1, 1)


def test_token_tasks_are_the_commands(bench: ShellBench) -> None:
    """A token is generated and shown once, and lifetimes have units."""
    status, _, err = bench.run("run fastmcp bearer_token_store username bob expire 1d")
    assert (status, err[:24]) == (0, "generated token for bob:")
    [call] = sent(bench.client)
    assert (call["task"], call["kwargs"]["expire"]) == ("bearer_token_store", 86_400)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("run fastmcp greet_all text a api_key hunter2", "run fastmcp greet_all text a api_key ***"),
        ("run fastmcp greet_all text a api_key -", "run fastmcp greet_all text a api_key -"),
        ("run fastmcp greet_all text '{\"password\": \"hunter2\"}'", "run fastmcp greet_all text ***"),
        ("run fastmcp bearer_token_store username bob token hunter2",
         "run fastmcp bearer_token_store username bob token ***"),
        ("run fastmcp gret_all text a api_key hunter2", "run fastmcp gret_all *** *** *** ***"),
    ],
)  # fmt: skip
def test_the_history_has_no_secrets(bench: ShellBench, line: str, kept: str) -> None:
    """Of valid lines those of secret arguments and in JSON, of others all that may be one."""
    assert mask_line(line, bench.session.navigator.location) == kept


def test_words_of_other_services_are_not_shown_to_the_workers_with_tokens(bench: ShellBench) -> None:
    """Only for tasks of theirs it is looked up whether a word is a token."""
    asked: list[object] = []

    class Tokens:
        def __contains__(self, word: object) -> bool:
            asked.append(word)
            return False

    rows = [{"name": "d1", "service": "demo", "status": "alive", "alive (s)": "1"}]
    bench.client.show_workers = lambda: rows  # type: ignore[method-assign]
    mask_line("run demo greet_all text private", bench.session.navigator.location, Tokens())
    assert asked == []


def test_a_script_cannot_type_a_text(bench: ShellBench) -> None:
    """The error says to name a file."""
    status, _, err = bench.run("run fastmcp greet_all text load-terminal")
    assert (status, err) == (2, "text: load-terminal works at the prompt only: name a file with @FILE\n")
    assert UsageError.exit_status == 2
