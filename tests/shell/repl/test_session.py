"""Sessions: lines to results, errors and exit statuses."""

import re
from collections.abc import Callable

import pytest

from nfcli.models.errors import AccessDeniedError, NoWorkersError, UsageError
from support.shell.bench import Printed, ShellBench
from support.shell.fake_client import FakeClient

Run = Callable[[str], Printed]
MakeBench = Callable[..., ShellBench]
WORKER_TRUE = '{\n    "fastmcp-worker-1": true\n}\n'


def test_storing_a_token_prints_the_worker_s_answer(run: Run, client: FakeClient) -> None:
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


DELETE, RENEW = "fastmcp auth delete-token", "fastmcp auth create-token username a token t"
VALID, LACKING = "the token may still be valid there", "the token may not be stored there"


@pytest.mark.parametrize(
    ("line", "consequence"),
    [
        (f"{DELETE} token t", VALID),
        (f"{DELETE} token t username a", VALID),
        (f"{DELETE} username a", "tokens of the user may still be valid there"),
        (RENEW, LACKING),
    ],
)
def test_a_change_without_a_result_says_what_that_means_and_what_to_do(
    make_bench: MakeBench, line: str, consequence: str
) -> None:
    """On the line that names the worker; where no worker has made the change, there is nothing to sync."""
    bench = make_bench("w1", "w2")
    bench.run(RENEW)
    bench.client.silent["w2"] = "no answer"
    advice = f"; {consequence}: repeat this, or run fastmcp tokens sync"
    assert bench.run(line) == (1, '{\n    "w1": true\n}\n', f"w2: no answer{advice}\n")
    bench.client.silent["w1"] = "it has gone away"
    lines = f"w1: it has gone away; {consequence}: repeat this\nw2: no answer; {consequence}: repeat this\n"
    assert bench.run(line) == (1, "", lines)
    error = NoWorkersError("neither is running")
    error.has_reached_none = True
    bench.client.raising = error
    assert bench.run(line) == (3, "", f"neither is running; {consequence}: repeat this\n")
    bench.client.raising = NoWorkersError("unknown worker 'w9': there is w1, w2")
    assert bench.run(line) == (3, "", "unknown worker 'w9': there is w1, w2\n")


def test_what_a_worker_itself_answers_and_what_a_read_lacks_says_no_more(make_bench: MakeBench) -> None:
    """A refusal says that nothing has changed; of a read nothing follows."""
    bench = make_bench("w1")
    bench.client.failing["w1"] = "disk full, nothing changed"
    assert bench.run(f"{DELETE} token t") == (1, "", "w1: disk full, nothing changed\n")
    bench.client.silent["w1"] = "no answer within 60 s"
    assert bench.run("fastmcp auth list-tokens") == (1, "", "w1: no answer within 60 s\n")


def test_a_generated_token_that_a_worker_lacks_stays_hidden(make_bench: MakeBench) -> None:
    """Where a worker failed, the user learns which one and what to do."""
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
            "create-token: timeout: must be 1 to 86400 whole seconds, got 1.5; expire: must be whole seconds, a number",
        ),
        ("fastmcp auth create-token username 'a '", "create-token: username: "),
        ("fastmcp auth list-tokens workers 'w1,,w2'", "list-tokens: workers: "),
        ("fastmcp auth list-tokens workers all,w1", "list-tokens: workers: "),
        ("show nothing", "show: 'nothing' "),
        ("h", "ambiguous command 'h', possible completions: help, history\n"),
        ("show fastmcp audit last x", "audit: last: must be a whole number, 1 to 1000, got x\n"),
        ("fastmcp auth check-token token 'x", "unclosed quote ' in column 32"),
    ],
)
def test_wrong_words_are_one_line_and_send_nothing(run: Run, client: FakeClient, line: str, message: str) -> None:
    """Status 2, one line on stderr, nothing on stdout, no job."""
    status, out, err = run(line)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(message)
    assert client.calls == []


def test_a_misspelt_word_of_the_shell_is_reported_with_the_right_one(run: Run) -> None:
    """The words of the shell itself are suggested too."""
    _, _, err = run("exti")
    assert err.startswith("'exti' ")
    assert "exit" in err.partition("(")[2]


def test_a_refused_token_is_not_repeated(run: Run) -> None:
    """An error about a secret names the rule, not the secret."""
    status, out, err = run("fastmcp auth check-token token 'päss wörd'")
    assert (status, out) == (2, "")
    assert "RFC 6750" in err
    assert "p\u00e4ss" not in err
    assert "w\u00f6rd" not in err


@pytest.mark.parametrize(
    ("error", "status"),
    [(NoWorkersError("no worker answered"), 3), (AccessDeniedError("key refused"), 3), (UsageError("bad"), 2)],
)
def test_unreachable_workers_have_their_own_status(run: Run, client: FakeClient, error: Exception, status: int) -> None:
    """Errors of the client are one line, with the status that belongs to them."""
    client.raising = error
    printed = run("show fastmcp version")
    assert (printed[0], printed[1], printed[2].endswith(f"{error}\n"), printed[2].count("\n")) == (status, "", True, 1)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_interruptions_are_for_the_caller(run: Run, client: FakeClient, ending: type[BaseException]) -> None:
    """Neither Ctrl-C nor the end of the program is an error of the command."""
    client.raising = ending()
    with pytest.raises(ending):
        run("show fastmcp version")


@pytest.mark.parametrize("line", ["", "   ", "# note", "! rm -rf /", "!ls"])
def test_comments_do_nothing(run: Run, client: FakeClient, line: str) -> None:
    """No line reaches the operating system."""
    assert run(line) == (0, "", "")
    assert client.calls == []


def test_words_of_a_command_line_need_a_command(bench: ShellBench) -> None:
    """No next line follows that could name a command of the group."""
    assert bench.run_words("fastmcp", "auth") == (
        2,
        "",
        "incomplete command, possible completions: create-token, list-tokens, delete-token, check-token\n",
    )
    assert bench.run_words() == (0, "", "")


BRIEF_TOOLS = '{\n    "fastmcp-worker-1": [\n        "a"\n    ]\n}\n'
TOOLS = " worker            name  description\n fastmcp-worker-1  a     b\n"


def test_a_switch_needs_no_value(run: Run, client: FakeClient) -> None:
    """The name of a field that is true or false sets it, and a value may follow."""
    client.answers["get_tools"] = ["a"]
    for words in ("brief", "brief true", "brief name x"):
        assert run(f"show fastmcp tools {words} workers any") == (0, BRIEF_TOOLS, "")
    client.answers["get_tools"] = [{"name": "a", "description": "b"}]
    assert run("show fastmcp tools brief false workers any") == (0, TOOLS, "")
    assert [call["kwargs"].get("brief") for call in client.calls] == [True, True, True, False]


def test_prompts_and_rules_are_tables_too(run: Run, client: FakeClient) -> None:
    """Cells without a value are empty; `brief` gives names."""
    client.answers["get_prompts"] = [{"name": "a", "description": "b", "arguments": []}]
    assert run("show fastmcp prompts service net name x* workers any") == (0, TOOLS, "")
    rules = {"guardrails": [{"field": "f", "limit": 5}], "result_guardrails": [{"type": "limit"}]}
    client.answers["get_tools"] = {"b": {"name": "b"}, "a": {"name": "a", **rules}}
    shown = run("show fastmcp guardrails workers any")
    assert shown[0] == 0
    assert [line.split() for line in shown[1].splitlines()] == [
        ["worker", "tool", "kind", "field", "type", "match", "message"],
        ["fastmcp-worker-1", "a", "guardrail", "f"],
        ["fastmcp-worker-1", "a", "result_guardrail", "limit"],
    ]
    assert run("show fastmcp guardrails brief workers any") == (0, BRIEF_TOOLS, "")
    assert [call["kwargs"] for call in client.calls] == [
        {"brief": False, "service": "net", "name": "x*"},
        {"brief": False, "service": "all", "name": "*"},
        {"brief": False, "service": "all", "name": "*"},
    ]


@pytest.mark.parametrize(("line", "same"), [("pw", "pwd"), ("he fastm au", "help fastmcp auth"), ("to", "top")])
def test_words_of_the_shell_may_be_abbreviated(run: Run, line: str, same: str) -> None:
    """As names of commands may."""
    assert run(line) == run(same)


def test_abbreviation_of_two_words_of_the_shell_is_neither(run: Run) -> None:
    """It says what it could be, and leaves nothing."""
    assert run("ex") == (0, "", "")
    assert run("e") == (2, "", "ambiguous command 'e', possible completions: exit, end\n")


def test_a_command_in_one_argument_is_named(bench: ShellBench) -> None:
    """A quoted command is a single word, which is no command."""
    status, _, err = bench.run_words("fastmcp auth list-tokens")
    assert (status, "each word of a command is an argument of its own" in err) == (2, True)


def test_all_fetched_files_are_deleted_with_consent_only(run: Run, client: FakeClient) -> None:
    """A script says yes; files that were named need none."""
    client.answers["delete_fetched_files"] = {"deleted": [], "errors": []}
    status, _, err = run("filesharing delete-fetched-files")
    assert (status, "add yes" in err, client.calls) == (2, True, [])
    assert run("filesharing delete-fetched-files yes")[0] == 0
    assert run("filesharing delete-fetched-files filepath 'a/*'")[0] == 0
    assert [call["kwargs"] for call in client.calls] == [{"filepath": "*"}, {"filepath": "a/*"}]
