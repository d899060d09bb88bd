"""Scripts on stdin and single commands, as pipes, schedulers and other programs use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import read_owner
from support.programs import InTime, ProgramStarter
from support.workers import EnvironmentFactory, NfcliRunner, without_stop_notice

TRUE = '{\n    "fastmcp-worker-1": true\n}\n'
FALSE = TRUE.replace("true", "false")
HEADER = " worker  username  token  age  creation  expires\n"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_tokens")]
Done = subprocess.CompletedProcess[str]


def documents(text: str) -> list[Any]:
    """Return the JSON documents that a text consists of."""
    found = []
    decoder = json.JSONDecoder()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].lstrip()
    return found


def error_lines(done: Done) -> list[str]:
    """Return the lines of stderr."""
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("printf 'fastmcp auth list-tokens\\n' | {nfcli}", HEADER),
        ("{nfcli} < {file}", TRUE + FALSE),
        ("cat {file} | {nfcli} -c", TRUE + FALSE),
        ("{nfcli} fastmcp auth check-token token x", FALSE),
        ("{nfcli} fastmcp auth check-token token x < /dev/null", FALSE),
        ("{nfcli} fastmcp auth list-tokens '|' json", "[]\n"),
        ("{nfcli} < /dev/null", ""),
        (": | {nfcli}", ""),
        ("{nfcli} <&-", ""),
        ("{nfcli} fastmcp auth check-token token x >&-", ""),
        ("{nfcli} fastmcp auth check-token token x 2>&-", FALSE),
    ],
)
def test_a_systems_shell_can_drive_it(environment: Environment, tmp_path: Path, command: str, expected: str) -> None:
    """A pipe, a file, one command, and nothing at all: results on stdout, no error on stderr, status 0."""
    file = tmp_path / "a script"
    file.write_text("fastmcp auth create-token username a token t1\nfastmcp auth check-token token t2\n")
    line = command.format(nfcli='nfcli -i "$INVENTORY"', file='"$SCRIPT"')
    programs = str(Path(sys.executable).parent)
    environ = {**os.environ, "INVENTORY": str(environment.inventory_file), "SCRIPT": str(file)}
    environ["PATH"] = f"{programs}:{environ['PATH']}"
    done = subprocess.run(["/bin/sh", "-c", line], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, without_stop_notice(done.stderr)) == (0, expected, "")


@pytest.mark.parametrize(
    "script",
    [
        "fastmcp auth check-token token a\nfastmcp auth check-token token b",
        "fastmcp auth check-token token a\r\nfastmcp auth check-token token b\r\n",
        "\ufefffastmcp auth check-token token a\n\n \t\nfastmcp auth check-token token b\n\n",
        "# fastmcp auth check-token token c\n  # x\n!ls\nfastmcp auth check-token token a\n#\n"  # noqa: ISC004  one text
        "  fastmcp  auth\tcheck-token   token b  ",
        "fastmcp\nauth\ncheck-token token a\ntop\nfastmcp auth check-token token b\nexit\nnonsense\n",
    ],
    ids=["no final newline", "CRLF", "byte order mark and blank lines", "comments", "subshells, and an end before EOF"],
)
def test_lines_are_read_as_people_and_editors_write_them(
    nfcli: NfcliRunner, environment: Environment, script: str
) -> None:
    """Two commands run, and nothing else is said."""
    done = nfcli(stdin=script, environment=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, FALSE * 2, "")


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("man tree fastmcp", 0, ""),
        ("fastmcp auth check-token token never-stored", 0, ""),
        ("fastmcp auth delete-token", 1, "fastmcp-worker-1: "),
        ("fastmcp auth create-token username other token taken", 1, "fastmcp-worker-1: "),
        ("nonsense", 2, "line 2: 'nonsense' "),
        ("fastmcp auth create-token", 2, "create-token: username: field required"),
        ("fastmcp auth create-token username a expire 0", 2, "create-token: expire: must be 1 to "),
        ("fastmcp auth create-token username a token 'x", 2, "unclosed quote ' "),
        ("fastmcp auth list-tokens | nonsense", 2, "'nonsense'"),
        ("fastmcp auth list-tokens workers nobody", 3, "unknown worker 'nobody': there is fastmcp-worker-1"),
    ],
)
def test_the_exit_status_and_one_line_tell_what_happened(
    nfcli: NfcliRunner, environment: Environment, line: str, status: int, reason: str
) -> None:
    """Whatever comes behind it runs all the same; the line's number is in front of its error."""
    script = f"fastmcp auth create-token username a token taken\n{line}\nfastmcp auth check-token token taken\n"
    done = nfcli(stdin=script, environment=environment)
    assert done.returncode == status
    assert done.stdout.startswith(TRUE)
    assert done.stdout.endswith(TRUE)
    if status == 0:
        assert done.stderr == ""
    else:
        (error,) = error_lines(done)
        assert error.startswith("line 2: ")
        assert reason in error


def test_no_worker_is_status_3_within_its_time(
    environment_factory: EnvironmentFactory, nfcli: NfcliRunner, in_time: InTime
) -> None:
    """A script that must not start workers says what to do, for each of its lines, and how to go on."""
    environment = environment_factory()
    script = "fastmcp auth list-tokens\nshow fastmcp version\n"
    done = in_time(3, lambda: nfcli("-c", stdin=script, environment=environment))
    assert (done.returncode, done.stdout) == (3, "")
    single = nfcli("-c", "fastmcp", "auth", "list-tokens", environment=environment)
    (reason,) = error_lines(single)
    assert (single.returncode, single.stdout) == (3, "")
    assert "worker fastmcp-worker-1 " in reason
    assert "nfcli -w" in reason
    assert error_lines(done) == [f"line 1: {reason}", f"line 2: {reason}"]


def test_the_first_failure_gives_the_status(nfcli: NfcliRunner, environment: Environment) -> None:
    """Later failures of other kinds, and successes, don't change it."""
    lines = ["fastmcp auth delete-token", "nonsense", "fastmcp auth check-token token x"]
    assert nfcli(stdin="\n".join(lines), environment=environment).returncode == 1
    assert nfcli(stdin="\n".join(reversed(lines)), environment=environment).returncode == 2


def test_stop_on_error_stops_at_the_first_failure(nfcli: NfcliRunner, environment: Environment) -> None:
    """What came before has happened, what comes behind has not."""
    script = "fastmcp auth create-token username a token t1\nfastmcp auth delete-token\n"
    script += "fastmcp auth delete-token token t1\nnonsense\n"
    done = nfcli("--stop-on-error", stdin=script, environment=environment)
    assert (done.returncode, done.stdout) == (1, TRUE)
    assert [line.split(":")[0] for line in error_lines(done)] == ["line 2"]
    assert nfcli(stdin="fastmcp auth check-token token t1", environment=environment).stdout == TRUE


def test_a_long_token_stays_whole_in_table_and_json(nfcli: NfcliRunner, environment: Environment) -> None:
    """Output to a pipe has no width: nothing is cut, wrapped or coloured."""
    token = "T0ken-" * 166 + "last"
    script = f"fastmcp auth create-token username 'Zoë 王' token {token}\nfastmcp auth list-tokens\n"
    script += "fastmcp auth list-tokens | json\n"
    done = nfcli(stdin=script, environment=environment)
    assert (done.returncode, done.stderr, len(token)) == (0, "", 1000)
    stored, _header, row, listing = done.stdout.replace(TRUE, "true\n").split("\n", 3)
    assert stored == "true"
    assert f"  {token}  " in row
    ((entry,),) = documents(listing)
    assert (entry["worker"], entry["username"], entry["token"]) == (DEFAULT_WORKER, "Zoë 王", token)
    assert done.stdout.isprintable() or set(done.stdout) - {"\n"} == {
        each for each in done.stdout if each.isprintable()
    }


def test_stdout_is_results_only(nfcli: NfcliRunner, environment: Environment) -> None:
    """A generated token, notes and errors are on stderr; what is left is JSON from end to end."""
    script = "fastmcp auth create-token username a\nnonsense\nfastmcp auth delete-token token none\n"
    done = nfcli(stdin=script + "fastmcp auth list-tokens | json\n", environment=environment)
    stored, deleted, ((row),) = documents(done.stdout)
    assert (stored, deleted) == ({DEFAULT_WORKER: True}, {DEFAULT_WORKER: False})
    generated, error, note = error_lines(done)
    assert generated == f"generated token for a: {row['token']}"
    assert error.startswith("line 2: 'nonsense'")
    assert note == f"{DEFAULT_WORKER}: no matching token"


def test_three_hundred_commands_end_correctly(nfcli: NfcliRunner, environment: Environment) -> None:
    """One result for each, in order; at the end all is as it was."""
    commands = [f"create-token username user{n % 7} token token-{n} expire {n + 1}00" for n in range(100)]
    commands += [f"check-token token token-{n}" for n in range(100)]
    commands += [f"delete-token username user{n % 7} token token-{n}" for n in range(100)]
    done = nfcli(stdin="".join(f"fastmcp auth {each}\n" for each in commands), environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert documents(done.stdout) == [{DEFAULT_WORKER: True}] * 300
    assert nfcli("fastmcp", "auth", "list-tokens", "|", "json", environment=environment).stdout == "[]\n"


def test_each_result_comes_before_the_next_line_is_needed(
    start_program: ProgramStarter, environment: Environment
) -> None:
    """A program can hold a conversation: the answer is there while stdin is still open."""
    script = start_program(environment=environment)
    for token in ("first", "second"):
        script.write(f"fastmcp auth create-token username a token {token}\n")
        script.wait_for(r"\{[^}]*true\s*\}\n", stream="out")
    assert (script.end(), script.out, script.err) == (0, "", "")


def test_a_secret_can_stand_on_the_next_line(nfcli: NfcliRunner, environment: Environment) -> None:
    """`token -` takes it from there, or from stdin of a single command: it is in no list of processes."""
    script = "fastmcp auth create-token username a token -\nhidden-token\nfastmcp auth check-token token hidden-token\n"
    for text in (script, script.replace("\n", "\r\n")):
        done = nfcli(stdin=text, environment=environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, TRUE * 2, "")
    words = ["fastmcp", "auth", "check-token", "token", "-"]
    assert nfcli(*words, stdin="hidden-token\n", environment=environment).stdout == TRUE
    lacking = nfcli(*words, environment=environment)
    assert (lacking.returncode, lacking.stdout, len(error_lines(lacking))) == (2, "", 1)


def test_a_reader_that_leaves_early_is_no_error(environment: Environment, start_program: ProgramStarter) -> None:
    """As with `head`: no traceback, no message, no failure."""
    script = start_program(environment=environment)
    assert script.process.stdout is not None
    script.write("fastmcp auth check-token token x\n")
    script.wait_for("false", stream="out")
    script.close_stdout()
    script.write("fastmcp auth check-token token x\n" * 3)
    assert (script.end(), script.err) == (0, "")


def test_a_script_that_needs_no_worker_starts_none(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter
) -> None:
    """The manual is there at once; the first job starts the worker, the end of the script stops it."""
    environment = environment_factory()
    lock = environment.lock_file(DEFAULT_WORKER)
    script = start_program(environment=environment)
    script.write("man tree fastmcp.auth\n")
    script.wait_for("check-token", stream="out")
    assert read_owner(lock) is None
    script.write("fastmcp auth check-token token x\n")
    script.wait_for("false", stream="out")
    assert read_owner(lock) is not None
    assert script.end() == 0
    assert read_owner(lock) is None
