"""Scripts on stdin, and one command from a command line."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.errors import JobInterruptedError, NoWorkersError
from nfcli.shell.repl.script import run_script, run_words
from support.shell.bench import Printed, ShellBench
from support.shell.fake_client import FakeClient
from support.tokens.token_tables import EMPTY_TABLE

Script = Callable[..., Printed]
LIST = b"fastmcp auth list-tokens"
STORE = b"fastmcp auth create-token username a token "
STORED = '{\n    "fastmcp-worker-1": true\n}\n'
PROGRAM = """
import sys
from nfcli.shell.repl.script import run_script, run_words
from nfcli.shell.repl.session import Session
from support.shell.fake_client import FakeClient
session = Session(FakeClient())
words = sys.argv[1:]
sys.exit(run_words(session, words) if words else run_script(session, sys.stdin.buffer))
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def script(bench: ShellBench) -> Script:
    """Run a script; return its exit status and what it wrote to stdout and stderr."""

    def run(text: bytes, **options: Any) -> Printed:
        return run_script(bench.session, io.BytesIO(text), **options), bench.out.getvalue(), bench.err.getvalue()

    return run


def program(*words: str, text: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a script or a command in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, *words]
    options = {"env": ENVIRONMENT, **options}
    return subprocess.run(command, input=text, capture_output=True, timeout=30, check=False, **options)


@pytest.mark.parametrize(
    "text",
    [
        LIST,
        LIST + b"\n",
        LIST + b"\r\n",
        b"\xef\xbb\xbf" + LIST + b"\n",
        b"\n  \n# note\n  # note\n! ls\n" + LIST + b"\r\n\r\n",
        b"fastmcp\nauth\nlist-tokens\n",
        b"fastmcp\n  auth list-tokens  \n",
        LIST + b"\nexit\nnonsense\n",
        LIST + b"\nfastmcp\nend\nnonsense\n",
    ],
)
def test_a_script_prints_results_and_nothing_else(script: Script, text: bytes) -> None:
    """No prompt, no intro; blanks, comments, line ends of other systems and a missing last one don't matter."""
    assert script(text) == (0, EMPTY_TABLE, "")


def test_an_empty_script_does_nothing(script: Script) -> None:
    """EOF at once is a success."""
    assert script(b"") == (0, "", "")


def test_errors_name_their_line_and_the_script_goes_on(script: Script) -> None:
    """Every error has the number of its line; the first failure decides the status."""
    text = b"# note\n\nfastmcp auth lst-tokens\n" + LIST + b"\nfastmcp auth check-token\n\xff\xfe\n"
    status, out, err = script(text)
    assert (status, out) == (2, EMPTY_TABLE)
    assert [line.split(": ", 1)[0] for line in err.splitlines()] == ["line 3", "line 5", "line 6"]
    assert err.splitlines()[1:] == [
        "line 5: check-token: token: field required",
        "line 6: byte 1 is not UTF-8: save the text as UTF-8",
    ]


def test_the_first_failure_gives_the_status(script: Script, client: FakeClient) -> None:
    """1 for a failed worker, 2 for words that are not valid, 3 for no worker: the first one counts."""
    client.failing["fastmcp-worker-1"] = "busy"
    status, _, err = script(LIST + b"\nnonsense\n")
    assert status == 1
    assert err.startswith("line 1: fastmcp-worker-1: busy\nline 2: 'nonsense' ")
    client.raising = NoWorkersError("no worker answered")
    assert script(LIST + b"\nnonsense\n")[0] == 3


def test_a_script_can_stop_at_the_first_error(script: Script, client: FakeClient) -> None:
    """With `stop_on_error` nothing behind a failure is run."""
    status, out, err = script(LIST + b"\nnonsense\n" + LIST + b"\n", stop_on_error=True)
    assert (status, out, err.count("\n"), len(client.calls)) == (2, EMPTY_TABLE, 1, 1)


def test_notes_are_not_taken_for_errors(script: Script, client: FakeClient) -> None:
    """What a worker notes beside a success carries no line number."""
    client.messages["fastmcp-worker-1"] = ["no matching token"]
    assert script(b"fastmcp auth check-token token x\n")[2] == "fastmcp-worker-1: no matching token\n"


def test_a_secret_comes_from_the_next_line(script: Script, client: FakeClient) -> None:
    """`token -` reads the entire next line, whatever it looks like; errors have the number of the command's line."""
    status, out, err = script(STORE + b"-\n#hidden\n" + STORE + b"-\r\nexit\r\n" + STORE + b"-")
    assert (status, out) == (2, STORED)
    first, second = err.splitlines()
    assert first.startswith("line 1: create-token: token: must be made of A-Z a-z 0-9")
    assert second == "line 5: token: - reads the value from the next line, but the script ends here"
    assert set(client.tokens["fastmcp-worker-1"]) == {"exit"}


def test_a_secret_after_a_wrong_line_is_neither_run_nor_printed(script: Script) -> None:
    """The line that asked for it was wrong: the secret is dropped with it."""
    status, out, err = script(b"fastmcp auth create-token usrname a token -\nhidden\n" + LIST + b"\n")
    assert (status, out, err.count("\n")) == (2, EMPTY_TABLE, 1)
    assert "hidden" not in err


def test_a_secret_that_is_not_utf8_is_one_line(script: Script) -> None:
    """The same message as for a command."""
    assert script(STORE + b"-\n\xff\n") == (2, "", "line 1: byte 1 is not UTF-8: save the text as UTF-8\n")


def test_each_result_is_written_before_the_next_line_is_read(bench: ShellBench) -> None:
    """A program that sends commands one by one sees each result."""
    seen = []

    class Feed(io.BytesIO):
        def readline(self, size: int | None = -1) -> bytes:
            seen.append(bench.out.getvalue())
            return super().readline(size)

    assert run_script(bench.session, Feed(LIST + b"\n" + LIST + b"\n")) == 0
    assert seen == ["", EMPTY_TABLE, EMPTY_TABLE * 2]


def test_three_hundred_commands_are_all_run(script: Script, client: FakeClient) -> None:
    """Every command's result comes out, in order."""
    text = b"".join(b"%s%d | json\n" % (STORE, number) for number in range(300))
    status, out, err = script(text)
    assert (status, err) == (0, "")
    assert out == STORED * 300
    assert list(client.tokens["fastmcp-worker-1"]) == [str(number) for number in range(300)]


def test_ctrl_c_ends_a_script(script: Script, client: FakeClient) -> None:
    """An interrupted script runs nothing more."""
    client.raising = KeyboardInterrupt()
    assert script(LIST + b"\n" + LIST + b"\n") == (130, "", "line 1: interrupted\n")


def test_ctrl_c_during_a_change_says_where_its_outcome_is_unknown(script: Script, client: FakeClient) -> None:
    """The client knows which workers have not answered."""
    client.raising = JobInterruptedError("the outcome is unknown on w1")
    assert script(STORE + b"t\n") == (130, "", "line 1: interrupted: the outcome is unknown on w1\n")


def test_one_command_runs_with_the_words_of_a_command_line(bench: ShellBench, client: FakeClient) -> None:
    """Words arrive as they are: blanks, quotes and bars in values need no second quoting."""
    words = ["fastmcp", "auth", "create-token", "username", "it's | me", "token", "|x"]
    assert run_words(bench.session, [*words[:-1], "abc", "|", "json"]) == 0
    assert bench.out.getvalue() == STORED
    assert client.calls[0]["kwargs"] == {"username": "it's | me", "token": "abc"}
    assert run_words(bench.session, words) == 2
    assert run_words(bench.session, ["help"]) == 0


def test_ctrl_c_ends_a_single_command(bench: ShellBench, client: FakeClient) -> None:
    """The status is that of an interrupted program."""
    client.raising = KeyboardInterrupt()
    assert run_words(bench.session, ["show", "fastmcp", "version"]) == 130


def test_a_single_command_reads_its_secret_from_stdin() -> None:
    """`token -` with a pipe on stdin takes its first line; an empty pipe is an error."""
    words = ["fastmcp", "auth", "create-token", "username", "a", "token", "-", "|", "json"]
    done = program(*words, text=b"hidden\r\nrest\n")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, STORED, b"")
    done = program(*words)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (
        2,
        b"",
        "token: - reads the value from stdin, which is empty\n",
    )


def test_a_script_in_a_process_of_its_own_ends_with_its_input() -> None:
    """EOF ends it; results are on stdout, errors on stderr; JSON never cuts a long token."""
    token = "T" * 1000
    lines = [STORE + token.encode(), LIST + b" | json", b"nonsense"]
    environment = {**ENVIRONMENT, "COLUMNS": "40"}
    done = program(text=b"\n".join(lines), env=environment)
    assert done.returncode == 2
    assert json.loads(done.stdout.decode().removeprefix(STORED))[0]["token"] == token
    assert done.stderr.startswith(b"line 3: 'nonsense' ")
    assert b"\x1b" not in done.stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """`| head -1` ends a script quietly, whatever was still to come."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-c", PROGRAM]
    try:
        for words, text in (([], LIST + b"\n" + LIST + b"\n"), (["fastmcp", "auth", "list-tokens"], b"")):
            done = subprocess.run(
                [*command, *words],
                input=text,
                stdout=write_end,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                timeout=30,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, b"")
    finally:
        os.close(write_end)


def test_letters_that_an_output_can_not_write_become_escapes() -> None:
    """A terminal without Unicode gets escapes, not an error."""
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = program(text=b"fastmcp auth create-token username \xd0\xb6 token x\n" + LIST + b"\n", env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u0436" in done.stdout


def test_no_terminal_library_is_loaded_for_a_script() -> None:
    """One command or a script without pipes starts without picle, prompt_toolkit and Rich: 0.2 s."""
    loaded = "{'picle', 'prompt_toolkit', 'rich', 'mcp'} & set(sys.modules)"
    code = f"import sys, nfcli.shell.repl.script; print(sorted({loaded}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True)
    assert done.stdout == b"[]\n"
