"""Help at any place of a line."""

from collections.abc import Callable

import pytest

from nfcli.models.commands.base import entries
from nfcli.models.commands.root import Root
from nfcli.shell.repl.shell_words import SHELL_WORDS
from support.shell.bench import Printed
from support.shell.fake_client import FakeClient
from support.tokens.token_tables import EMPTY_TABLE

Run = Callable[[str], Printed]
FASTMCP_HELP = (
    " auth        Manage auth tokens\n discover    Discover tasks of other services\n"
    " tokens      Bring the tokens of several workers together\n"
    " workers     Manage the workers that are expected\n <ENTER>     Enter fastmcp\n"
)


def test_help_lists_the_words_that_may_follow(run: Run) -> None:
    """`?` at the end, or `help` in front, lists names with descriptions; required ones have a star."""
    text = (
        " timeout    Job timeout\n"
        " workers    Filter worker to target\n"
        " *token     Bearer token string to check\n"
        " |          Send the result through a pipe function\n"
    )
    assert run("fastmcp auth check-token ?") == (0, text, "")
    assert run("help fastmcp auth check-token") == (0, text, "")


@pytest.mark.parametrize("line", ["fastmcp auth check-token", "fastmcp auth create-token username", "show", ""])
def test_the_option_of_other_programs_is_a_request_for_help(run: Run, line: str) -> None:
    """Also where a value is expected: it would be stored as a name."""
    assert run(f"{line} --help") == run(f"{line} ?")
    assert run(f"{line} --help")[0] == 0


def test_more_help_has_types_and_defaults(run: Run) -> None:
    """`??` adds the type and the default of a value."""
    assert run("fastmcp auth delete-token username x ??")[1] == (
        " timeout           Job timeout (whole number 1 to 86400)\n"
        " workers           Filter worker to target (text, default 'all')\n"
        " token             Bearer token string to delete (text)\n"
        " nowait            Print the job's uuid instead of waiting for the results: show jobs has them later\n"
        " answer            Answer to the questions of the task: yes or no\n"
        " verbose-result    Print whole results: status, times, messages and errors too\n"
        " progress          Print all events of the job at once, also those of its start and end\n"
        " quiet             Print no events of the job\n"
        " |                 Send the result through a pipe function\n"
        " <ENTER>           Run the command\n"
    )


def test_options_of_every_job_are_explained_where_they_are_asked_for(run: Run) -> None:
    """`?` alone lists the command's own fields; `??`, or the first letters of an option, list the options too."""
    assert "quiet" not in run("fastmcp auth delete-token ?")[1]
    assert run("fastmcp auth delete-token qu?")[1] == " quiet    Print no events of the job\n"


def test_help_of_the_shell_names_its_own_words_too(run: Run) -> None:
    """At the start of a line the shell's own words are valid as well."""
    assert [line.split()[0] for line in run("help")[1].splitlines()] == [*entries(Root), *SHELL_WORDS]
    assert run("?") == run("help")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("fast?", " fastmcp    FastMCP service\n"),
        ("help fas", " fastmcp    FastMCP service\n fastapi    FastAPI service of NorFab\n"),
        ("fastmcp ?", FASTMCP_HELP),
        ("fastmcp x?", " no word that begins with x is valid here\n"),
        ("man tree | save ?", " <file>    Print, and write to a file that only you can read\n"),
        ("man tree | include ?", " <text>    Keep the lines that contain a text\n"),
        ("help exit", " exit    Leave this subshell, or at the top the shell\n"),
        (
            "fastmcp auth check-token token ?",
            " <token>    Bearer token string to check\n -          Ask for the value",
        ),
        (
            "fastmcp auth list-tokens workers ?",
            " <workers>    Filter worker to target\n              all, any, fastmcp-w",
        ),
        ("man tree ?", " all        Draw the options of every job command too\n <path>     Words of a command joined"),
        ("fastmcp auth list-tokens | json ??", " indent          Indentation level for JSON output (whole number, def"),
    ],
)
def test_help_fits_the_place(run: Run, line: str, text: str) -> None:
    """Beginnings of words, values and pipe options each have their help."""
    status, out, err = run(line)
    assert (status, err) == (0, "")
    assert out.startswith(text)


def test_help_behind_a_wrong_word_is_an_error(run: Run) -> None:
    """No word may follow one that is not valid."""
    assert run("nonsense ?")[0] == 2
    assert run("help nonsense there")[0] == 2


def test_a_question_mark_in_a_value_is_part_of_it(run: Run, client: FakeClient) -> None:
    """`username what?` names a user and does not ask for help."""
    assert run("fastmcp auth list-tokens username what?") == (0, EMPTY_TABLE, "")
    assert client.calls[0]["kwargs"] == {"username": "what?"}


@pytest.mark.parametrize("line", ["fastmcp auth list-tokens username ?", "help fastmcp auth list-tokens username"])
def test_help_in_a_script_lists_users_as_they_are_now(run: Run, line: str) -> None:
    """A command between two requests for help may have added one."""
    for name in ("alice", "robert"):
        run(f"fastmcp auth create-token username {name} token t-{name}")
        assert name in run(line)[1]
