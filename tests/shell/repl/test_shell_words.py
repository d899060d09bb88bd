"""The shell's own words, and the place in the command tree that they change."""

from collections.abc import Callable

from support.shell.bench import Printed, ShellBench
from support.tokens.token_tables import EMPTY_TABLE

Run = Callable[[str], Printed]
MakeBench = Callable[..., ShellBench]


def test_groups_are_subshells(run: Run, bench: ShellBench) -> None:
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
    assert bench.session.navigator.has_left


def test_commands_run_inside_a_subshell(run: Run) -> None:
    """Words are looked up in the open group."""
    assert run("fastmcp") == (0, "", "")
    assert run("auth list-tokens") == (0, EMPTY_TABLE, "")
    assert run("pwd") == (0, "root.fastmcp\n", "")


def test_exit_at_the_top_leaves_the_shell(run: Run, bench: ShellBench) -> None:
    """No group is above the top."""
    assert run("exit") == (0, "", "")
    assert bench.session.navigator.has_left


def test_words_of_the_shell_take_no_arguments(run: Run, bench: ShellBench) -> None:
    """`exit now` is an error and does not leave; `exit ?` describes the word."""
    assert run("exit now") == (2, "", "exit: takes no arguments, got 'now'\n")
    assert run("exit ?") == (0, " exit    Leave this subshell, or at the top the shell\n", "")
    assert not bench.session.navigator.has_left


def test_history_shows_previous_lines(make_bench: MakeBench) -> None:
    """Control characters in a tampered history file are escaped; without lines nothing is printed."""
    assert make_bench(history=lambda: ["show norfab client", "a\x1b[2J"]).run("history")[1] == (
        " show norfab client\n a\\x1b[2J\n"
    )
    assert make_bench().run("history") == (0, "", "")


def test_clearing_the_screen_writes_nothing_without_a_terminal(run: Run) -> None:
    """`cls` writes escape codes to terminals only."""
    assert run("cls") == (0, "", "")
