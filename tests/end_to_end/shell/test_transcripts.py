"""The owner's transcripts, typed at a terminal and run as a script, against a real worker."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from nfcli.man.tree import tree_lines
from nfcli.models.commands.root import Root
from nfcli.models.environment.paths import Environment
from support.programs import PROGRAM, Program, Terminal, TerminalStarter
from support.tokens.token_tables import EMPTY_TABLE, table_rows
from support.workers import NfcliRunner, RunningWorker

TRUE = '{\n    "fastmcp-worker-1": true\n}\n'
FALSE = TRUE.replace("true", "false")
Say = Callable[[str], str]


@pytest.fixture(scope="module", params=["typed", "script"])
def shell(request: pytest.FixtureRequest, environment: Environment, token_watch: Any) -> Iterator[Terminal | Program]:
    """Run the program at a terminal or with lines from stdin, for all tests: none depends on the lines before."""
    command = [str(PROGRAM), "-i", str(environment.inventory_file), "-c"]
    if request.param == "script":
        program = Program(command)
        program.note = token_watch.note_given
        yield program
        program.kill()
        return
    terminal = Terminal(command, {}, None)
    terminal.note = token_watch.note_given
    terminal.wait_for_prompt()
    yield terminal
    terminal.child.close(force=True)


@pytest.fixture
def say(shell: Terminal | Program, no_tokens: None) -> Say:  # noqa: ARG001
    """Run lines at a prompt or from stdin, with no token stored before the first; return all that one prints."""
    return shell.run if isinstance(shell, Terminal) else shell.run_line


def test_an_explicit_token_is_stored(say: Say) -> None:
    """The command of the documents gives the answer of the documents."""
    assert say("fastmcp auth create-token username automation token secret-token expire 3600") == TRUE
    assert say("fastmcp auth check-token token secret-token") == TRUE


def test_a_generated_token_is_shown_once_beside_the_result(say: Say) -> None:
    """The result is the same as for an explicit token; the token is 32 hex characters and the one that is stored."""
    printed = say("fastmcp auth create-token username automation")
    found = re.search(r"^generated token for automation: ([0-9a-f]{32})\n", printed, re.MULTILINE)
    assert found
    assert printed.replace(found.group(), "") == TRUE
    assert [row["token"] for row in table_rows(say("fastmcp auth list-tokens"))] == [found[1]]


def test_the_tokens_of_a_user_are_a_table(say: Say) -> None:
    """Each column has the documented form; the instants are local time and fit together."""
    before = datetime.now()  # noqa: DTZ005  the table shows local time
    say("fastmcp auth create-token username automation token secret-token expire 3600")
    say("fastmcp auth create-token username vscode token another")
    header, line = say("fastmcp auth list-tokens username automation").splitlines()
    assert re.split(r" {2,}", header) == [" worker", "username", "token", "age", "creation", "expires"]
    worker, username, token, age, creation, expires = re.split(r" {2,}", line)
    assert [worker, username, token] == [" fastmcp-worker-1", "automation", "secret-token"]
    created, ends = (datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f") for text in (creation, expires))  # noqa: DTZ007
    assert ends - created == timedelta(seconds=3600)
    assert before <= created <= datetime.now()  # noqa: DTZ005
    assert re.fullmatch(r"0:00:\d\d(\.\d{6})?", age)


def test_the_tokens_of_all_users_are_sorted_by_user_and_creation(say: Say) -> None:
    """A token without expiry says None."""
    for user, token in [("vscode", "888945f96b824bf1b4358de790c452b6"), ("automation", "z"), ("automation", "a")]:
        say(f"fastmcp auth create-token username {user} token {token}")
    listed = table_rows(say("fastmcp auth list-tokens"))
    assert [(row["username"], row["token"], row["expires"]) for row in listed] == [
        ("automation", "z", "None"),
        ("automation", "a", "None"),
        ("vscode", "888945f96b824bf1b4358de790c452b6", "None"),
    ]


def test_no_tokens_are_a_header(say: Say) -> None:
    """An empty list is still a table."""
    assert say("fastmcp auth list-tokens") == EMPTY_TABLE


def test_one_token_or_all_of_a_user_are_deleted(say: Say) -> None:
    """Each deletion says true; a check of what is gone or never was says false."""
    for token in ("t1", "t2", "t3"):
        say(f"fastmcp auth create-token username automation token {token}")
    assert say("fastmcp auth delete-token token t1") == TRUE
    assert [row["token"] for row in table_rows(say("fastmcp auth list-tokens"))] == ["t2", "t3"]
    assert say("fastmcp auth delete-token username automation") == TRUE
    assert say("fastmcp auth list-tokens") == EMPTY_TABLE
    assert [say(f"fastmcp auth check-token token {token}") for token in ("t1", "t2", "nobodys")] == [FALSE] * 3


def test_an_expired_token_is_false(say: Say) -> None:
    """It counts for its second and no longer."""
    assert say("fastmcp auth create-token username automation token brief expire 1") == TRUE
    deadline = time.monotonic() + 10
    while (answer := say("fastmcp auth check-token token brief")) == TRUE and time.monotonic() < deadline:
        pass
    assert answer == FALSE
    assert say("fastmcp auth list-tokens") == EMPTY_TABLE


def test_the_auth_branch_of_the_tree_is_the_documented_one(say: Say, nfcli: NfcliRunner) -> None:
    """Byte for byte, from the installed program."""
    expected = "\n".join(tree_lines(Root, "fastmcp.auth")) + "\n"
    assert say("man tree fastmcp.auth") == expected
    assert nfcli("man", "tree", "fastmcp.auth").stdout == expected


def test_the_tree_is_drawn_whole_or_by_branch(say: Say) -> None:
    """Every line of a branch is a line of the entire tree; an unknown path lists the valid ones."""
    whole = say("man tree").splitlines()
    branch = say("man tree show.fastmcp").splitlines()
    assert [line.strip("│├└─ ").split(":")[0] for line in branch[:3]] == ["root", "show", "fastmcp"]
    assert {line.strip("│├└─ ") for line in branch} < {line.strip("│├└─ ") for line in whole}
    (error,) = say("man tree show.nonsense").splitlines()
    assert "nonsense" in error
    assert "fastmcp" in error
    assert "norfab" in error


def test_results_carry_no_escape_codes(
    open_terminal: TerminalStarter, environment: Environment, worker: RunningWorker
) -> None:
    """What is printed at a terminal can be copied as it stands."""
    terminal = open_terminal("-c", environment=environment)
    terminal.wait_for_prompt()
    assert worker.process.poll() is None
    assert [terminal.run("fastmcp auth check-token token x"), terminal.leave()] == [FALSE, 0]
