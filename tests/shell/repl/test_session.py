"""Lines to results: statuses, notes, subshells, secrets."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.errors import AccessDeniedError, NoWorkersError, UsageError

Run = Callable[[str], tuple[int, str, str]]
MakeBench = Callable[..., Any]
WORKER_TRUE = '{\n    "fastmcp-worker-1": true\n}\n'
HEADER = " worker  username  token  age  creation  expires\n"


class Secrets:
    """A source of secrets that counts what was dropped."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = list(secrets)
        self.dropped = 0

    def read(self, name: str) -> str:
        """Return the next secret."""
        if not self.secrets:
            raise UsageError(f"{name}: none left")
        return self.secrets.pop(0)

    def discard(self) -> None:
        """Count."""
        self.dropped += 1


def test_storing_a_token_prints_the_worker_s_answer(run: Run, client: Any) -> None:
    """The transcript: a worker's name and true; every value went out as it was typed, seconds as a number."""
    assert run("fastmcp auth create-token username automation token secret-token expire 3600") == (0, WORKER_TRUE, "")
    assert client.calls == [
        {
            "service": "fastmcp",
            "task": "bearer_token_store",
            "kwargs": {"token": "secret-token", "username": "automation", "expire": 3600},
            "workers": "all",
            "timeout": 60,
        }
    ]


def test_a_generated_token_is_shown_once_on_stderr(make_bench: MakeBench) -> None:
    """All workers store the same 32 hex characters, and stdout has nothing of them."""
    bench = make_bench("w1", "w2")
    status, out, err = bench.run("fastmcp auth create-token username automation")
    assert (status, out) == (0, '{\n    "w1": true,\n    "w2": true\n}\n')
    shown = re.fullmatch(r"generated token for automation: ([0-9a-f]{32})\n", err)
    assert shown is not None
    assert [set(tokens) for tokens in bench.client.tokens.values()] == [{shown[1]}, {shown[1]}]


def test_a_generated_token_that_a_worker_lacks_is_not_shown(make_bench: MakeBench) -> None:
    """Where one worker failed, the user learns which and how to go on; the token stays hidden."""
    bench = make_bench("w1", "w2")
    bench.client.failing["w2"] = "token store busy, nothing changed"
    advice = (
        "w2 didn't confirm the generated token, so it is not shown: find it with list-tokens, then store it there with "
        "create-token token TOKEN workers w2, or remove it with delete-token"
    )
    assert bench.run("fastmcp auth create-token username automation") == (
        1,
        '{\n    "w1": true\n}\n',
        f"w2: token store busy, nothing changed\n{advice}\n",
    )
    bench.client.failing["w1"] = "disk full"
    nothing = "no worker confirmed the generated token, so it is not shown: run the command again"
    assert bench.run("fastmcp auth create-token username automation") == (
        1,
        "",
        f"w1: disk full\nw2: token store busy, nothing changed\n{nothing}\n",
    )


def test_no_tokens_still_print_the_header(run: Run) -> None:
    """An empty list is a table without rows."""
    assert run("fastmcp auth list-tokens") == (0, HEADER, "")


@pytest.mark.parametrize(
    "value", [True, False, None, 0, "", [], {}, ["a", None], ["a", "json", {}], [True, "nested", {"a": 1}]], ids=str
)
def test_whatever_a_worker_returns_is_data(run: Run, client: Any, value: object) -> None:
    """True ends no shell, two or three values name no outputter, and what is empty is printed all the same."""
    client.answers["get_status"] = value
    status, out, err = run("show fastmcp status")
    assert (status, json.loads(out), err) == (0, {"fastmcp-worker-1": value}, "")
    assert run("pwd")[1] == "root\n"


def test_false_is_a_result_and_no_failure(run: Run) -> None:
    """A check of an unknown token prints false, with status 0, and the session goes on."""
    assert run("fastmcp auth check-token token nothing") == (0, WORKER_TRUE.replace("true", "false"), "")
    assert run("fastmcp auth list-tokens") == (0, HEADER, "")


def test_tokens_are_listed_by_worker_with_every_column(make_bench: MakeBench) -> None:
    """The table of the transcripts."""
    bench = make_bench("w2", "w1")
    bench.run("fastmcp auth create-token username automation token secret-token expire 3600")
    assert bench.run("fastmcp auth list-tokens username automation")[1] == (
        " worker  username    token         age      creation                    expires\n"
        " w1      automation  secret-token  0:00:01  2026-05-31 12:08:51.914919  3600\n"
        " w2      automation  secret-token  0:00:01  2026-05-31 12:08:51.914919  3600\n"
    )


def test_messages_of_workers_that_succeeded_go_to_stderr(make_bench: MakeBench) -> None:
    """`no matching token` is a note beside the result."""
    bench = make_bench("w1")
    bench.client.messages["w1"] = ["no matching token"]
    assert bench.run("fastmcp auth delete-token token x") == (0, '{\n    "w1": false\n}\n', "w1: no matching token\n")


def test_a_failing_worker_is_named_and_the_others_are_printed(make_bench: MakeBench) -> None:
    """One line for the failure, of a traceback its last line; status 1."""
    bench = make_bench("w1", "w2", "w3")
    bench.client.failing = {"w1": "Traceback:\n  File x\nKeyError: 'a\x1b'\n", "w3": ""}
    assert bench.run("fastmcp auth check-token token x") == (
        1,
        '{\n    "w2": false\n}\n',
        "w1: KeyError: 'a\\x1b'\nw3: failed without a reason, status error\n",
    )
    bench.client.failing.clear()
    assert bench.run("fastmcp auth check-token token x workers w1") == (0, '{\n    "w1": false\n}\n', "")


@pytest.mark.parametrize(
    ("typed", "sent"),
    [("all", "all"), ("any", "any"), ("w1", ["w1"]), ("w2,w1,w2", ["w2", "w1"]), ("'w1, w2'", ["w1", "w2"])],
)
def test_workers_are_all_any_or_names(make_bench: MakeBench, typed: str, sent: object) -> None:
    """`workers` takes one name or several, separated by commas."""
    bench = make_bench("w1", "w2")
    assert bench.run(f"fastmcp auth list-tokens workers {typed} timeout 5")[0] == 0
    assert (bench.client.calls[0]["workers"], bench.client.calls[0]["timeout"]) == (sent, 5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fastmcp auth create-token", "create-token: username: field required"),
        ("fastmcp auth check-token", "check-token: token: field required"),
        ("fastmcp auth create-token token x", "create-token: username: field required"),
        (
            "fastmcp auth create-token username a expire 0",
            "create-token: expire: must be 1 to 3155760000 whole seconds, got 0",
        ),
        (
            "fastmcp auth create-token username a expire abc timeout 1.5",
            "create-token: timeout: must be 1 to 86400 whole seconds, got 1.5; expire: must be 1 to 3155760000 whole",
        ),
        ("fastmcp auth create-token username 'a '", "create-token: username: must not begin or end with a blank"),
        ("fastmcp auth list-tokens workers 'w1,,w2'", "list-tokens: workers: must be all, any, or names separated by"),
        ("fastmcp auth list-tokens workers all,w1", "list-tokens: workers: all and any cannot be combined with names"),
        ("show nothing", "show: 'nothing' is not valid here: expected fastmcp, norfab"),
        ("fastmcp auth check-token token 'x", "unclosed quote ' in column 32"),
    ],
)
def test_wrong_words_are_one_line_and_send_nothing(run: Run, client: Any, line: str, message: str) -> None:
    """Status 2, one line on stderr, nothing on stdout, no job."""
    status, out, err = run(line)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(message)
    assert client.calls == []


def test_a_refused_token_is_not_repeated(run: Run) -> None:
    """An error about a secret names the rule, not the secret."""
    status, out, err = run("fastmcp auth check-token token 'päss wörd'")
    assert (status, out) == (2, "")
    assert "RFC 6750" in err
    assert "p\u00e4ss" not in err
    assert "w\u00f6rd" not in err


@pytest.mark.parametrize(
    ("error", "status"),
    [(NoWorkersError("no worker answered"), 3), (AccessDeniedError("key not let in"), 3), (UsageError("bad"), 2)],
)
def test_unreachable_workers_have_their_own_status(run: Run, client: Any, error: Exception, status: int) -> None:
    """Errors of the client are one line, with the status that belongs to them."""
    client.raising = error
    told = run("show fastmcp version")
    assert (told[0], told[1], told[2].endswith(f"{error}\n"), told[2].count("\n")) == (status, "", True, 1)


def test_a_fault_is_one_line_and_kept_without_values(make_bench: MakeBench, tmp_path: Path) -> None:
    """An unexpected exception shows its kind, place and the log; neither has its text, which may hold a secret."""
    bench = make_bench(log_file=tmp_path / "shell.jsonl")
    bench.client.raising = KeyError("secret-token")
    status, out, err = bench.run("show fastmcp version")
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"internal error: KeyError at fake_client\.py:\d+; details in {tmp_path}/shell\.jsonl\n", err)
    record = json.loads((tmp_path / "shell.jsonl").read_text())
    assert record["event"].startswith("KeyError at fake_client.py:")
    assert any("in run_job" in frame for frame in record["stack"])
    assert "secret-token" not in err + json.dumps(record)
    assert bench.run("pwd") == (0, "root\n", "")


def test_a_log_that_can_not_be_written_costs_only_the_details(make_bench: MakeBench, tmp_path: Path) -> None:
    """The fault is told all the same; without a log file nothing is said of one."""
    for options in ({"log_file": tmp_path / "missing" / "x"}, {}):
        bench = make_bench(**options)
        bench.client.raising = KeyError("x")
        status, _, err = bench.run("show fastmcp version")
        assert (status, err.count("\n")) == (1, 1)
        assert err.startswith("internal error: KeyError at fake_client.py:")


def test_an_answer_that_is_no_list_of_records_is_named(run: Run, client: Any) -> None:
    """A worker of other make may answer anything."""
    client.answers["bearer_token_list"] = {"no": "list"}
    message = "fastmcp-worker-1: the result of bearer_token_list is not a list of records\n"
    assert run("fastmcp auth list-tokens") == (1, "", message)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_interruptions_are_for_the_caller(run: Run, client: Any, ending: type[BaseException]) -> None:
    """Neither Ctrl-C nor the end of the program is an error of the command; picle would swallow the latter."""
    client.raising = ending()
    with pytest.raises(ending):
        run("show fastmcp version")


@pytest.mark.parametrize("line", ["", "   ", "# note", "! rm -rf /", "!ls"])
def test_comments_do_nothing(run: Run, client: Any, line: str) -> None:
    """No line reaches the operating system."""
    assert run(line) == (0, "", "")
    assert client.calls == []


def test_one_command_line_needs_a_command(bench: Any) -> None:
    """There is no next line that could follow into a group."""
    assert bench.run_words("fastmcp", "auth") == (
        2,
        "",
        "incomplete command, possible completions: create-token, list-tokens, delete-token, check-token\n",
    )
    assert bench.run_words() == (0, "", "")


def test_secrets_are_asked_for(make_bench: MakeBench) -> None:
    """`token -` takes the value from the source of secrets; in quotes the dash is the value."""
    bench = make_bench(secrets=Secrets("hidden"))
    assert bench.run("fastmcp auth create-token username a token -")[0] == 0
    assert bench.run("fastmcp auth create-token username b token '-'")[0] == 0
    assert set(bench.client.tokens["fastmcp-worker-1"]) == {"hidden", "-"}
    assert bench.run("fastmcp auth check-token token -") == (2, "", "token: none left\n")


def test_without_a_source_of_secrets_the_dash_is_refused(run: Run) -> None:
    """Nobody is there to be asked."""
    assert run("fastmcp auth check-token token -") == (
        2,
        "",
        "check-token: token: - asks for the value, but this session cannot ask\n",
    )


@pytest.mark.parametrize(
    "line",
    [
        "fastmcp auth create-token usernam a token -",
        "fastmcp auth create-token token - username",
        'fastmcp auth create-token username "a token -',
        "fastmcp auth create-token token -| nonsense",
    ],
)
def test_a_wrong_line_drops_the_secret_that_it_asked_for(make_bench: MakeBench, line: str) -> None:
    """A script's next line is the secret: it must not be run, and so shown, as a command."""
    secrets = Secrets("hidden")
    status, _, err = make_bench(secrets=secrets).run(line)
    assert (status, secrets.dropped) == (2, 1)
    assert "hidden" not in err


def test_a_wrong_line_that_asks_for_nothing_drops_nothing(make_bench: MakeBench) -> None:
    """Only a dash behind a secret field asks."""
    secrets = Secrets()
    make_bench(secrets=secrets).run("fastmcp auth create-token usernam - token x")
    assert secrets.dropped == 0


def test_local_commands_need_no_worker(run: Run, client: Any) -> None:
    """The tree, pages, schemas, the client and its inventory are printed from here."""
    assert run("man tree show.norfab.client")[1].startswith("root\n└── show:")
    assert json.loads(run("man json-schema fastmcp.auth.check-token")[1])["required"] == ["token"]
    assert json.loads(run("show norfab client")[1]) == client.describe()
    assert json.loads(run("show norfab inventory")[1]) == client.inventory.redacted()
    assert (
        run("show norfab workers")[1].split("\n")[0] == " name              service  status  endpoint  alive (s)  note"
    )
    assert run("man tree nothing")[0] == 2
    assert run("man page nothing")[0] == 2
    assert run("man page")[0] == 0
    assert client.calls == []


def test_tasks_are_described_by_a_worker(run: Run, client: Any) -> None:
    """`man tasks` asks any worker for `list_tasks`; one that fails is named."""
    client.answers["list_tasks"] = [{"name": "echo", "description": "Give it back"}]
    assert run("man tasks") == (0, "echo  Give it back\n", "")
    assert client.calls == [{"service": "fastmcp", "task": "list_tasks", "workers": "any"}]
    assert run("man tasks nothing")[0] == 2
    client.failing["fastmcp-worker-1"] = "busy"
    assert run("man tasks") == (1, "", "fastmcp-worker-1: busy\n")


BRIEF_TOOLS = '{\n    "fastmcp-worker-1": [\n        "a"\n    ]\n}\n'
TOOLS = " worker            name  description\n fastmcp-worker-1  a     b\n"


def test_a_switch_needs_no_value(run: Run, client: Any) -> None:
    """A field that is true or false is switched on by its name, and may be told."""
    client.answers["get_tools"] = ["a"]
    for words in ("brief", "brief true", "brief name x"):
        assert run(f"show fastmcp tools {words} workers any") == (0, BRIEF_TOOLS, "")
    client.answers["get_tools"] = [{"name": "a", "description": "b"}]
    assert run("show fastmcp tools brief false workers any") == (0, TOOLS, "")
    assert [call["kwargs"].get("brief") for call in client.calls] == [True, True, True, False]


def test_prompts_and_rules_are_tables_too(run: Run, client: Any) -> None:
    """What a rule doesn't say stays empty; `brief` gives names."""
    client.answers["get_prompts"] = [{"name": "a", "description": "b", "arguments": []}]
    assert run("show fastmcp prompts service net name x* workers any") == (0, TOOLS, "")
    client.answers["get_guardrails"] = [{"tool": "a", "kind": "guardrail", "field": "f", "limit": 5}]
    shown = run("show fastmcp guardrails workers any")
    assert shown[0] == 0
    assert [line.split() for line in shown[1].splitlines()] == [
        ["worker", "tool", "kind", "field", "type", "match", "message"],
        ["fastmcp-worker-1", "a", "guardrail", "f"],
    ]
    client.answers["get_guardrails"] = ["a"]
    assert run("show fastmcp guardrails brief workers any") == (0, BRIEF_TOOLS, "")
    assert [call["kwargs"] for call in client.calls] == [
        {"brief": False, "service": "net", "name": "x*"},
        {"brief": False, "service": "all", "name": "*"},
        {"brief": True, "service": "all", "name": "*"},
    ]
