"""The shell at a terminal, with the workers that it starts itself."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import time

import pexpect
import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import read_owner
from support.programs import InTime, Terminal, TerminalStarter, Watch
from support.workers import EnvironmentFactory, RunningWorker, WorkerRunner

pytestmark = pytest.mark.slow

TAB, CTRL_C, UP = "\t", "\x03", "\x1b[A"
READS_A_LINE, HAS_A_LINE = "\x1b[?2004h", "\x1b[?2004l"
TRUE = '{\n    "fastmcp-worker-1": true\n}\n'
FALSE = TRUE.replace("true", "false")


@pytest.fixture
def terminal(open_terminal: TerminalStarter, environment: Environment, worker: RunningWorker) -> Terminal:
    """Start a shell beside the module's worker, and wait for its prompt."""
    assert worker.process.poll() is None
    terminal = open_terminal(environment=environment)
    terminal.wait_for_prompt()
    return terminal


@pytest.fixture
def own(open_terminal: TerminalStarter, environment_factory: EnvironmentFactory) -> tuple[Terminal, Environment]:
    """Start a shell that starts its own worker, and wait for its prompt; return its environment too."""
    environment = environment_factory()
    terminal = open_terminal(environment=environment)
    terminal.wait_for_prompt()
    return terminal, environment


def test_the_shell_runs_its_worker_as_long_as_it_runs(
    open_terminal: TerminalStarter, environment_factory: EnvironmentFactory, watch: Watch
) -> None:
    """A greeting, a prompt with a worker behind it, the first command at once, Ctrl-D, and nothing is left."""
    environment = environment_factory()
    terminal = open_terminal(environment=environment)
    terminal.child.expect_exact("Ctrl-D")
    terminal.wait_for_prompt()
    worker = watch(environment)
    started = time.monotonic()
    assert terminal.run("fastmcp auth create-token username automation token secret-token expire 3600") == TRUE
    assert time.monotonic() - started < 10
    assert terminal.leave() == 0
    assert worker.is_gone_within(0)
    assert read_owner(environment.lock_file(DEFAULT_WORKER)) is None


def test_a_worker_that_runs_already_is_used_and_left_alone(
    open_terminal: TerminalStarter, own: tuple[Terminal, Environment], watch: Watch
) -> None:
    """A second shell ends without taking the first one's worker along."""
    terminal, environment = own
    worker = watch(environment)
    second = open_terminal(environment=environment)
    second.wait_for_prompt()
    assert second.run("fastmcp auth create-token username shared token t-shared") == TRUE
    assert second.leave() == 0
    assert not worker.is_gone_within(0)
    assert terminal.run("fastmcp auth check-token token t-shared") == TRUE


def test_subshells_have_their_prompts_and_commands(terminal: Terminal) -> None:
    """A group's name enters it, its commands run there, `exit`, `top` and `end` lead out."""
    assert terminal.run("fastmcp", prompt="nf[fastmcp]#") == ""
    assert terminal.run("auth check-token token x", prompt="nf[fastmcp]#") == FALSE
    assert terminal.run("auth", prompt="nf[fastmcp-auth]#") == ""
    assert terminal.run("check-token token x", prompt="nf[fastmcp-auth]#") == FALSE
    assert terminal.run("exit", prompt="nf[fastmcp]#") == ""
    assert terminal.run("pwd", prompt="nf[fastmcp]#") == "root.fastmcp\n"
    assert terminal.run("top") == ""
    assert terminal.run("fastmcp auth", prompt="nf[fastmcp-auth]#") == ""
    terminal.child.sendline("end")
    assert terminal.end() == 0


def test_help_comes_without_enter_and_keeps_the_line(terminal: Terminal) -> None:
    """`?` lists the words that can stand there, a second one describes them, and the line can then be run."""
    terminal.child.send("fastmcp auth ?")
    for word in ("create-token", "list-tokens", "delete-token", "check-token"):
        terminal.child.expect_exact(word)
    terminal.child.send("check-token ?")
    terminal.child.expect(r"token +Bearer token string to check")
    terminal.child.send("?")
    terminal.child.expect_exact("required")
    terminal.child.expect_exact("nf#fastmcp auth check-token")
    assert terminal.run("token x") == FALSE


def test_tab_completes_commands_fields_workers_and_users(terminal: Terminal) -> None:
    """Words are finished by what the tree, the inventory and the worker's database hold."""
    typed = f"fastm{TAB}au{TAB}cr{TAB}user{TAB}'Zoë Beau' tok{TAB}t-zoe wor{TAB}fastmcp-w{TAB}"
    assert terminal.run(typed) == TRUE
    (row,) = json.loads(terminal.run(f"fastmcp auth list-tokens username Zo{TAB}| json"))
    assert (row["username"], row["token"]) == ("Zoë Beau", "t-zoe")


def test_tab_never_offers_a_token(terminal: Terminal) -> None:
    """Not the first letters of one, nor with nothing typed yet."""
    secret = "s3cretive-token"
    assert terminal.run(f"fastmcp auth create-token username shy token {secret}") == TRUE
    assert terminal.run(f"fastmcp auth check-token token s3c{TAB}{TAB}") == FALSE
    assert "s3c" in terminal.typing
    assert secret not in terminal.typing
    terminal.run(f"fastmcp auth delete-token token {TAB}{TAB}never-stored")
    assert "never-stored" in terminal.typing
    assert secret not in terminal.typing
    assert terminal.run(f"fastmcp auth check-token token {secret}") == TRUE


def test_history_is_kept_across_runs_without_secrets(
    open_terminal: TerminalStarter, own: tuple[Terminal, Environment]
) -> None:
    """The arrow key brings a line of the last run back, its secret masked, as does the file, which is private."""
    terminal, environment = own
    terminal.run("fastmcp auth create-token username historian token S3cret-of-history")
    terminal.run("fastmcp auth chek-token token S3cret-of-history")
    terminal.run("fastmcp auth check-token token S3cret-of-history tokn S3cret-of-history")
    assert terminal.leave() == 0
    first, second, third = environment.history_file.read_text().splitlines()
    assert first == "fastmcp auth create-token username historian token ***"
    assert second == "fastmcp auth chek-token token ***"
    assert third.startswith("fastmcp auth check-token token *** ")
    assert "S3cret" not in third
    assert stat.S_IMODE(environment.history_file.stat().st_mode) == 0o600
    again = open_terminal(environment=environment)
    again.wait_for_prompt()
    again.child.send(UP * 3)
    again.child.expect_exact("create-token username historian token ***")
    again.child.send(CTRL_C)
    again.wait_for_prompt()
    assert "S3cret" not in again.run("history")


def test_ctrl_c_gives_a_command_up_and_not_the_shell(own: tuple[Terminal, Environment], watch: Watch) -> None:
    """While a worker hangs the prompt comes back at once; when the worker goes on, so does the work."""
    terminal, environment = own
    assert terminal.run("fastmcp auth check-token token x") == FALSE
    worker = watch(environment)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        terminal.child.sendline("fastmcp auth create-token username patient token t-patient")
        terminal.child.expect_exact(HAS_A_LINE)
        press_ctrl_c_until_the_prompt_is_back(terminal)
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    assert terminal.run("fastmcp auth check-token token x") == FALSE
    terminal.child.send("nonsense that is never run")
    terminal.child.expect_exact("never run")
    terminal.child.send(CTRL_C)
    terminal.wait_for_prompt()
    assert terminal.run("pwd") == "root\n"
    assert not worker.is_gone_within(0)
    assert terminal.leave() == 0


def press_ctrl_c_until_the_prompt_is_back(terminal: Terminal) -> None:
    """Press again where the first one came before the command had begun: the prompt's reader swallows that."""
    for _ in range(20):
        terminal.child.send(CTRL_C)
        if terminal.child.expect_exact([READS_A_LINE, pexpect.TIMEOUT], timeout=0.5) == 0:
            break
    else:
        raise AssertionError("Ctrl-C does nothing")
    terminal.child.sendline("pwd")
    terminal.child.expect_exact("root\r\n")
    terminal.wait_for_prompt()


def test_results_go_through_pipes(terminal: Terminal) -> None:
    """Picle's functions work on real results."""
    for token in ("piped-1", "piped-2"):
        assert terminal.run(f"fastmcp auth create-token username piper token {token}") == TRUE
    for pipes, expected in [
        ("| include piped-2", r" fastmcp-worker-1  piper +piped-2 .*\n"),
        ("| exclude piped-2 | exclude worker-1", r" worker  .*\n"),
        ("| last 1", r" fastmcp-worker-1  piper +piped-2 .*\n"),
        ("| json | include '\"token\"'", r' +"token": "piped-1",\n +"token": "piped-2",\n'),
        ("| yaml", r"(?s)- .*  username: piper\n.*"),
        ("| kv", r"(?s).*piped-1.*piped-2.*"),
    ]:
        assert re.fullmatch(expected, terminal.run(f"fastmcp auth list-tokens username piper {pipes}"))


def test_an_error_is_one_line_and_the_prompt_comes_back(terminal: Terminal) -> None:
    """Whether the words are wrong, a value is, or the worker says no."""
    for line in ("nonsense", "fastmcp auth create-token username a expire 0", "fastmcp auth delete-token"):
        printed = terminal.run(line)
        assert re.fullmatch(r"[^\n]+\n", printed)
        assert "Traceback" not in printed


def test_a_worker_that_dies_is_reported_within_three_seconds(
    open_terminal: TerminalStarter,
    environment_factory: EnvironmentFactory,
    running_worker: WorkerRunner,
    in_time: InTime,
) -> None:
    """A shell that doesn't run it itself says which and what to do, and stays."""
    environment = environment_factory()
    with running_worker(environment) as worker:
        terminal = open_terminal(environment=environment)
        terminal.wait_for_prompt()
        assert terminal.run("fastmcp auth check-token token x") == FALSE
        worker.process.kill()
        worker.process.wait(10)
    printed = in_time(3, lambda: terminal.run("fastmcp auth check-token token x"))
    assert re.fullmatch(rf"[^\n]*{DEFAULT_WORKER}[^\n]*start it \(nfcli -w, or a new shell without -c\)\n", printed)
    assert terminal.leave() == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_shell_leaves_at_once_when_its_worker_is_dead(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner, open_terminal: TerminalStarter, how: int
) -> None:
    """Neither an open connection nor a job that couldn't be sent holds up its end; the quicker of two shells counts."""
    environment = environment_factory()
    with running_worker(environment) as worker:
        terminals = [open_terminal("-c", environment=environment) for _ in range(2)]
        for terminal in terminals:
            terminal.wait_for_prompt()
            if how == signal.SIGKILL:
                assert terminal.run("fastmcp auth check-token token x") == FALSE
        worker.process.send_signal(how)
        seconds = []
        for terminal in terminals:
            assert terminal.run("fastmcp auth check-token token x timeout 1").count("\n") == 1
            started = time.monotonic()
            assert terminal.leave() == 0
            seconds.append(time.monotonic() - started)
        worker.process.send_signal(signal.SIGCONT)
    assert min(seconds) < 1.0


def test_a_shell_without_workers_to_start_says_why_it_ends(
    open_terminal: TerminalStarter, environment_factory: EnvironmentFactory
) -> None:
    """A configuration that can't run is one line and no prompt."""
    terminal = open_terminal(environment=environment_factory(host="192.0.2.1"))
    terminal.child.expect_exact("host 192.0.2.1 is not an address of this machine")
    terminal.child.expect(pexpect.EOF)
    assert "nf#" not in terminal.child.before
    assert terminal.end() == 1
