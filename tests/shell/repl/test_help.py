"""Help at any place, and moving about in the tree."""

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[[str], tuple[int, str, str]]
MakeBench = Callable[..., Any]
FASTMCP_HELP = (
    " auth        Manage auth tokens\n discover    Discover tasks of other services\n <ENTER>     Enter fastmcp\n"
)
HEADER = " worker  username  token  age  creation  expires\n"


def test_help_lists_what_can_stand_at_a_place(run: Run) -> None:
    """`?` at the end, or `help` in front, list names with descriptions; required ones carry a star."""
    text = (
        " timeout      Job timeout\n"
        " workers      Filter worker to target\n"
        " token        Token string to store, autogenerate if not given\n"
        " *username    User name to store the token for\n"
        " expire       Token expiration time in seconds\n"
        " |            Send the result through a pipe function\n"
    )
    assert run("fastmcp auth create-token ?") == (0, text, "")
    assert run("help fastmcp auth create-token") == (0, text, "")


def test_more_help_has_types_and_defaults(run: Run) -> None:
    """`??` says what a value may be."""
    assert run("fastmcp auth create-token username x ??")[1] == (
        " timeout    Job timeout (whole number 1 to 86400)\n"
        " workers    Filter worker to target (text, default 'all')\n"
        " token      Token string to store, autogenerate if not given (text)\n"
        " expire     Token expiration time in seconds (whole number 1 to 3155760000)\n"
        " |          Send the result through a pipe function\n"
        " <ENTER>    Run the command\n"
    )


def test_help_of_the_shell_names_its_own_words_too(run: Run) -> None:
    """At the start of a line the shell's words can stand as well."""
    assert [line.split()[0] for line in run("help")[1].splitlines()] == [
        "fastmcp", "show", "man", "help", "exit", "top", "end", "pwd", "history", "cls",
    ]  # fmt: skip
    assert run("?") == run("help")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("fast?", " fastmcp    FastMCP service\n"),
        ("help sho", " show    Show workers, client and inventory\n"),
        ("fastmcp ?", FASTMCP_HELP),
        ("fastmcp x?", " nothing that is valid here begins with x\n"),
        (
            "fastmcp auth check-token token ?",
            " <token>    Bearer token string to check\n -          Ask for the value",
        ),
        (
            "fastmcp auth list-tokens workers ?",
            " <workers>    Filter worker to target\n              all, any, fastmcp-w",
        ),
        ("man tree ?", " <path>     Words of a command joined by dots"),
        ("fastmcp auth list-tokens | json ??", " indent          Indentation level for JSON output (whole number, def"),
    ],
)
def test_help_fits_the_place(run: Run, line: str, text: str) -> None:
    """Beginnings of words, values and pipe options each have their help."""
    status, out, err = run(line)
    assert (status, err) == (0, "")
    assert out.startswith(text)


def test_help_behind_a_wrong_word_is_an_error(run: Run) -> None:
    """There is nothing to list at a place that doesn't exist."""
    assert run("nonsense ?")[0] == 2
    assert run("help nonsense there")[0] == 2


def test_a_question_mark_in_a_value_is_part_of_it(run: Run, client: Any) -> None:
    """`username what?` is a user, not a question."""
    assert run("fastmcp auth list-tokens username what?") == (0, HEADER, "")
    assert client.calls[0]["kwargs"] == {"username": "what?"}


def test_groups_are_subshells(run: Run, bench: Any) -> None:
    """A group's name enters it; `exit`, `top` and `end` leave one level, all, and the shell."""
    prompts = []
    for line in ("fastmcp", "auth", "pwd", "exit", "top", "show norfab", "top", "man", "exit", "fastmcp auth", "end"):
        assert run(line)[0] == 0
        prompts.append(bench.session.navigator.prompt)
    assert prompts == [
        "nf[fastmcp]#",
        "nf[fastmcp-auth]#",
        "nf[fastmcp-auth]#",
        "nf[fastmcp]#",
        "nf#",
        "nf[show-norfab]#",
        "nf#",
        "nf[man]#",
        "nf#",
        "nf[fastmcp-auth]#",
        "nf[fastmcp-auth]#",
    ]
    assert bench.session.has_ended


def test_commands_run_inside_a_subshell(run: Run) -> None:
    """Words are counted from where the user is."""
    assert run("fastmcp") == (0, "", "")
    assert run("auth list-tokens") == (0, HEADER, "")
    assert run("pwd") == (0, "root.fastmcp\n", "")


def test_exit_at_the_top_leaves_the_shell(run: Run, bench: Any) -> None:
    """There is nothing above the top."""
    assert run("exit") == (0, "", "")
    assert bench.session.has_ended


def test_words_of_the_shell_take_no_others(run: Run, bench: Any) -> None:
    """`exit now` is a mistake, not an exit; `exit ?` tells what it does."""
    assert run("exit now") == (2, "", "exit: takes no arguments, got 'now'\n")
    assert run("exit ?") == (0, " exit    Leave this subshell, or at the top the shell\n", "")
    assert not bench.session.has_ended


def test_history_shows_what_the_shell_keeps(make_bench: MakeBench) -> None:
    """Lines of a history that somebody tampered with can't command the terminal; none prints nothing."""
    assert make_bench(history=lambda: ["show norfab client", "a\x1b[2J"]).run("history")[1] == (
        " show norfab client\n a\\x1b[2J\n"
    )
    assert make_bench().run("history") == (0, "", "")


def test_clearing_the_screen_writes_nothing_where_there_is_none(run: Run) -> None:
    """`cls` is escape codes for a terminal, and only there."""
    assert run("cls") == (0, "", "")
