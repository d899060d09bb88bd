"""Line editing: the shell at a terminal, typed at key by key, and its parts."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from nfcli.shell.repl.history import HistoryFile
from nfcli.shell.repl.prompt import HiddenPrompt, Prompt, PromptHistory, TabCompleter
from support.shell.bench import ShellBench

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[2]
PROGRAM = ["-m", "support.shell.prompt_program"]
TIMEOUT_SECONDS = 15
TAB, CTRL_C, CTRL_D, UP = "\t", "\x03", "\x04", "\x1b[A"
Start = Callable[..., Any]
FASTMCP_HELP = (
    " auth        Manage auth tokens\n discover    Discover tasks of other services\n"
    " tokens      Bring the tokens of several workers together\n"
    " workers     Manage the workers that are expected\n <ENTER>     Enter fastmcp\n"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the shell in a terminal; all that a test started is gone at its end."""
    started = []

    def start_one(*arguments: str) -> Any:
        child = pexpect.spawn(
            sys.executable,
            [*PROGRAM, *arguments],
            cwd=str(tmp_path),
            timeout=TIMEOUT_SECONDS,
            dimensions=(40, 100),
            encoding="utf-8",
            env={
                "PATH": "/usr/bin:/bin",
                "TERM": "xterm",
                "HOME": str(tmp_path),
                "LC_ALL": "C.UTF-8",
                "PYTHONPATH": str(TESTS),
            },
        )
        started.append(child)
        child.expect_exact("nf#")
        return child

    yield start_one
    for child in started:
        child.close(force=True)


def leave(child: Any) -> int:
    """Press Ctrl-D; return the exit status."""
    child.send(CTRL_D)
    child.expect(pexpect.EOF)
    child.wait()
    return int(child.exitstatus)


def expect_json(child: Any, value: str) -> None:
    """Expect the result of both workers, and the next prompt."""
    child.expect(rf'\{{\r\n    "w1": {value},\r\n    "w2": {value}\r\n\}}\r\n')


def test_a_command_is_typed_run_and_left_with_ctrl_d(start: Start) -> None:
    """The intro, the prompt, a result, the prompt again, and a quiet end."""
    child = start()
    child.sendline("fastmcp auth create-token username automation token secret-token expire 3600")
    expect_json(child, "true")
    child.expect_exact("nf#")
    assert leave(child) == 0


def test_a_new_user_is_completed_on_the_next_line(start: Start) -> None:
    """User names are fetched again for each line, because the one before it may have added one."""
    child = start()
    for name in ("alice", "robert"):
        child.sendline(f"fastmcp auth create-token username {name} token t-{name}")
        expect_json(child, "true")
        child.expect_exact("nf#")
        child.sendline(f"fastmcp auth list-tokens username {name[:2]}{TAB}")
        child.expect_exact(f"t-{name}")
        child.expect_exact("nf#")


def test_subshells_have_their_prompts(start: Start) -> None:
    """A group's name alone enters it; `top` and `exit` lead out."""
    child = start()
    for line, prompt in [("fastmcp", "nf[fastmcp]#"), ("auth", "nf[fastmcp-auth]#"), ("top", "nf#")]:
        child.sendline(line)
        child.expect_exact(prompt)
    child.sendline("exit")
    child.expect(pexpect.EOF)


def test_the_help_keys_need_no_enter(start: Start) -> None:
    """`?` lists the words that may follow, a second one the details, and the line stays."""
    child = start()
    child.send("fastmcp auth list-tokens ?")
    child.expect(r"username    User name to list tokens for\s")
    child.send("?")
    child.expect_exact("User name to list tokens for (text)")
    child.sendline("")
    child.expect_exact("creation")


def test_a_question_mark_in_quotes_is_a_character(start: Start) -> None:
    """It asks for help only where a word may follow."""
    child = start()
    child.sendline("fastmcp auth create-token username 'what? me' token t1")
    expect_json(child, "true")
    child.sendline("fastmcp auth list-tokens")
    child.expect(r"w1 +what\? me +t1")


def test_tab_completes_commands_fields_workers_and_users(start: Start) -> None:
    """Each word can be finished with a key press, names with blanks in quotes."""
    child = start()
    child.send(f"fastm{TAB}au{TAB}cr{TAB}user{TAB}'two words' to{TAB}t1 wo{TAB}w2\r")
    child.expect(r'\{\r\n    "w2": true\r\n\}')
    child.send(f"fastmcp auth list-tokens username t{TAB}wor{TAB}al{TAB}\r")
    child.expect(r"w2 +two words +t1")


def test_a_hidden_secret_is_neither_shown_nor_kept(start: Start, tmp_path: Path) -> None:
    """`token -` asks, shows nothing of what is typed, and stores it."""
    child = start(str(tmp_path / "history"))
    child.sendline("fastmcp auth create-token username a token -")
    child.expect_exact("token:")
    child.sendline("hidden-token")
    expect_json(child, "true")
    assert "hidden-token" not in child.before
    child.sendline("fastmcp auth check-token token -")
    child.expect_exact("token:")
    child.send(CTRL_D)
    child.expect_exact("token: no value was entered")
    child.send("\r")
    child.sendline("fastmcp auth check-token token -")
    child.expect_exact("token:")
    child.send(CTRL_C)
    child.expect_exact("cancelled")
    assert leave(child) == 0
    assert "hidden-token" not in (tmp_path / "history").read_text()


def test_history_comes_back_in_the_next_run_without_secrets(start: Start, tmp_path: Path) -> None:
    """The arrow key brings the last line of the last run, masked."""
    history = tmp_path / "history"
    first = start(str(history))
    first.sendline("fastmcp auth check-token token S3cret")
    expect_json(first, "false")
    assert leave(first) == 0
    assert history.read_text() == "fastmcp auth check-token token ***\n"
    second = start(str(history))
    second.send(UP)
    second.expect_exact("fastmcp auth check-token token ***")
    second.send(CTRL_C)
    second.sendline("history")
    second.expect_exact(" fastmcp auth check-token token ***")
    assert leave(second) == 0


def test_line_with_a_typing_error_comes_back_as_it_was_typed(start: Start, tmp_path: Path) -> None:
    """Within the session; the file has the value masked, and the mask is not a value in the next one."""
    history = tmp_path / "history"
    first = start(str(history))
    first.sendline("fastmcp auth create-tokn username ann")
    first.expect_exact("did you mean create-token?")
    first.send(UP)
    first.expect_exact("fastmcp auth create-tokn username ann")
    first.send(CTRL_C)
    assert leave(first) == 0
    assert history.read_text() == "fastmcp auth create-tokn username ***\n"
    second = start(str(history))
    second.sendline("fastmcp auth create-token username ***")
    second.expect_exact("stands for a value that was masked")
    assert leave(second) == 0


def test_ctrl_c_cancels_the_line_and_the_command_and_not_the_shell(start: Start) -> None:
    """A waiting command is cancelled, a line that is being typed is dropped."""
    child = start()
    child.sendline("show fastmcp status")
    child.expect_exact("waiting")
    child.send(CTRL_C)
    child.expect_exact("cancelled")
    child.expect_exact("nf#")
    child.send("nonsense")
    child.expect_exact("nonsense")
    child.send(CTRL_C)
    child.expect_exact("nf#")
    child.sendline("pwd")
    child.expect(r"root\r\n")
    assert "'nonsense'" not in child.before
    assert leave(child) == 0


def test_pasted_lines_run_one_by_one(start: Start) -> None:
    """A block pasted into the prompt is as many commands as it has lines."""
    child = start()
    child.send("\x1b[200~fastmcp auth check-token token a\npwd\x1b[201~\r")
    expect_json(child, "false")
    child.expect(r"root\r\n")


def test_results_are_never_cut_to_the_width(start: Start) -> None:
    """A token longer than a line isn't cut, and nothing is put into it."""
    child = start()
    token = "T" * 1000
    child.sendline(f"fastmcp auth create-token username a token {token}")
    expect_json(child, "true")
    child.sendline("fastmcp auth list-tokens | json | include token | last 1")
    child.expect(r'"token": "(T+)",')
    assert child.match[1] == token


def test_results_can_be_redirected(tmp_path: Path) -> None:
    """With stdout in a file the prompt stays on the terminal, and the file has results only."""
    out = tmp_path / "out"
    child = pexpect.spawn(
        "/bin/sh",
        ["-c", f"PYTHONPATH='{TESTS}' '{sys.executable}' {' '.join(PROGRAM)} > '{out}'"],
        cwd=str(tmp_path),
        timeout=TIMEOUT_SECONDS,
        encoding="utf-8",
    )
    try:
        child.expect_exact("nf#")
        child.sendline("pwd")
        child.expect_exact("nf#")
        child.send(CTRL_D)
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert re.fullmatch(r"root\n", out.read_text())


def test_arrow_keys_bring_back_lines_as_they_were_typed_and_the_file_masks_them(
    bench: ShellBench, tmp_path: Path
) -> None:
    """A line with a typing error would otherwise run with the mask as a value; each pasted line is one of its own."""
    bench.run("fastmcp")
    history = PromptHistory(HistoryFile(tmp_path / "history"), bench.session)
    typed = ["auth check-token token S3cret", "auth create-tokn username ann", "auth list-tokens"]
    history.append_string("\n".join([*typed[:2], "# comment", f" {typed[2]}"]))
    expected = ["auth check-token token ***", "auth create-tokn username ***", "auth list-tokens"]
    assert history.get_strings() == typed
    history.save()
    assert list(history.load_history_strings()) == expected[::-1]
    assert (tmp_path / "history").read_text().splitlines() == expected


@pytest.mark.parametrize(
    ("text", "is_value"),
    [
        ("", False),
        ("fast", False),
        ("fastmcp auth list-tokens username ", False),
        ("fastmcp auth list-tokens username wh", True),
        ("fastmcp auth list-tokens username 'a ", True),
        ("nonsense x", False),
    ],
)
def test_a_question_mark_is_typed_into_values_only(bench: ShellBench, text: str, is_value: bool) -> None:
    """Within a value it is a character, elsewhere it asks for help."""
    prompt = Prompt(bench.session, HistoryFile(None))
    assert prompt.is_in_value(text) is is_value


def test_completions_replace_the_last_word(bench: ShellBench) -> None:
    """prompt_toolkit gets the text to insert and where it begins."""
    completer = TabCompleter(bench.session)
    document = Document("fastmcp auth list-tokens u")
    found = [(each.text, each.start_position) for each in completer.get_completions(document, CompleteEvent())]
    assert found == [("username ", -1)]


def test_nothing_is_read_to_drop_a_secret_at_a_prompt() -> None:
    """The user sees the error before typing on."""
    HiddenPrompt().discard()


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("fastm?", " fastmcp    FastMCP service\n"),
        ("fastmcp ?", FASTMCP_HELP),
        ("exit ?", " exit    Leave this subshell, or at the top the shell\n"),
    ],
)
def test_the_help_key_prints_what_is_valid_there(bench: ShellBench, line: str, out: str) -> None:
    """Help without Enter is the help of the session."""
    Prompt(bench.session, HistoryFile(None)).print_help(line)
    assert (bench.out.getvalue(), bench.err.getvalue()) == (out, "")


def test_the_help_key_after_an_unknown_word_prints_the_error(bench: ShellBench) -> None:
    """The error names the word, in one line."""
    Prompt(bench.session, HistoryFile(None)).print_help("nonsense ??")
    assert bench.out.getvalue() == ""
    assert bench.err.getvalue().startswith("'nonsense' ")
    assert bench.err.getvalue().count("\n") == 1
