"""Processes: how they end, who outlives whom, and who is started again (failed starts: test_failed_starts.py)."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import read_owner
from support.programs import ProgramStarter, TerminalStarter, Watch
from support.workers import EnvironmentFactory, RunningWorker, WorkerRunner, without_stop_notice

pytestmark = pytest.mark.slow

STOP_SECONDS = 5.0
CHECK = "fastmcp auth check-token token x\n"
ANSWERED = r"\{[^}]*\}\n"


def test_a_worker_ends_in_time_whatever_is_in_flight(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner
) -> None:
    """Jobs that run and wait, requests that are half sent, connections that say nothing: five seconds, status 0."""
    environment = environment_factory()
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(running_worker(environment))
        norfab = NorFab(environment.inventory_file)
        stack.callback(norfab.destroy)
        store = {"kwargs": {"username": "a", "token": "t1"}}
        assert norfab.make_client().run_job("fastmcp", "bearer_token_store", **store)[DEFAULT_WORKER]["result"] is True
        pool = stack.enter_context(ThreadPoolExecutor(4))
        clients = [norfab.make_client() for _ in range(4)]
        echo = {"kwargs": {"sleep": 60}, "timeout": 60}
        jobs = [pool.submit(client.run_job, "fastmcp", "echo", **echo) for client in clients]
        for half in half_sent(worker):
            stack.enter_context(half)
        wait_for_jobs(norfab.make_client(), len(jobs))
        worker.process.terminate()
        assert worker.process.wait(STOP_SECONDS) == 0
        results = [job.result(20)[DEFAULT_WORKER] for job in jobs]
    assert all(result["failed"] is False or len(result["errors"]) == 1 for result in results)
    last = environment.log_file(DEFAULT_WORKER).read_text().splitlines()[-1]
    assert json.loads(last)["message"] == "stopped"  # by itself, not by its last resort
    assert read_owner(environment.lock_file(DEFAULT_WORKER)) is None
    with running_worker(environment):
        checked = norfab.make_client().run_job("fastmcp", "bearer_token_check", kwargs={"token": "t1"})
        norfab.destroy()
    assert checked[DEFAULT_WORKER]["result"] is True


def half_sent(worker: RunningWorker) -> Iterator[socket.socket]:
    """Connect to a worker and say less than it waits for: nothing, half a head, half a body, half a greeting."""
    address = urlsplit(worker.url)
    head = f"POST /mcp HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer t1\r\n"
    full = f"{head}Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
    body = '{"jsonrpc": "2.0", "id": 1, "method": "pi'
    for text in ("", "POST /mc", head, f"{full}Content-Length: 100\r\n\r\n{body}", "GET /health HTTP/1.1\r\nHo"):
        connection = socket.create_connection((address.hostname, address.port), timeout=10)
        connection.sendall(text.encode())
        yield connection
    for start in (b"", b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(worker.endpoint.removeprefix("ipc://"))
        connection.sendall(start)
        yield connection


def wait_for_jobs(client: Client, count: int) -> None:
    """Wait until so many jobs are in flight beside the one that asks."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        (stats,) = client.run_job("fastmcp", "get_stats", timeout=10).values()
        if stats["result"]["jobs"]["jobs_by_status"]["PENDING"] > count:
            return
    raise AssertionError(f"{count} jobs are not in flight")


def wait_for_owner(environment: Environment) -> None:
    """Wait until somebody runs the worker, ready or not."""
    deadline = time.monotonic() + 20
    while read_owner(environment.lock_file(DEFAULT_WORKER)) is None:
        assert time.monotonic() < deadline


ENDS = [
    *("end of input", signal.SIGTERM, signal.SIGKILL),
    *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGHUP)),
]


@pytest.mark.parametrize("how", ENDS, ids=str)
def test_a_script_takes_the_workers_that_it_started_along(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch, how: Any
) -> None:
    """However it ends; the name is free again."""
    environment = environment_factory()
    script = start_program(environment=environment)
    script.write(CHECK)
    script.wait_for(ANSWERED, stream="out")
    worker = watch(environment)
    if how == "end of input":
        assert script.end() == 0
        assert worker.is_gone_within(0)
    else:
        script.process.send_signal(how)
        assert worker.is_gone_within(STOP_SECONDS)
    assert read_owner(environment.lock_file(DEFAULT_WORKER)) is None
    assert "Traceback" not in script.err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, "the terminal is closed"], ids=str)
def test_a_prompt_takes_the_workers_that_it_started_along(
    environment_factory: EnvironmentFactory, open_terminal: TerminalStarter, watch: Watch, how: Any
) -> None:
    """Also when no process was left to stop it."""
    environment = environment_factory()
    terminal = open_terminal(environment=environment)
    terminal.wait_for_prompt()
    worker = watch(environment)
    if isinstance(how, signal.Signals):
        terminal.child.kill(how)
    else:
        terminal.hang_up()
    assert worker.is_gone_within(STOP_SECONDS)


def test_a_program_that_is_killed_takes_its_workers_along(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """Of the Python API the same holds as of the shell."""
    environment = environment_factory()
    code = "import nfcli, sys; nfcli.NorFab(sys.argv[1]).start(); print('started', flush=True); input()"
    program = start_program(command=[sys.executable, "-c", code, str(environment.inventory_file)])
    program.wait_for("started", stream="out")
    worker = watch(environment)
    program.process.kill()
    assert worker.is_gone_within(STOP_SECONDS)


def test_a_worker_whose_shell_is_killed_while_it_starts_ends(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """The shell is gone by the time the worker is ready."""
    environment = environment_factory()
    shell = start_program(*CHECK.split(), environment=environment)
    wait_for_owner(environment)
    worker = watch(environment)
    shell.process.kill()
    assert worker.is_gone_within(20)
    assert read_owner(environment.lock_file(DEFAULT_WORKER)) is None


def test_ctrl_c_while_workers_start_ends_the_shell(
    environment_factory: EnvironmentFactory, open_terminal: TerminalStarter
) -> None:
    """No traceback, no prompt, no worker left."""
    environment = environment_factory()
    terminal = open_terminal(environment=environment)
    terminal.child.expect_exact("starting workers")
    terminal.child.sendintr()
    assert terminal.end() == 130
    assert "Traceback" not in terminal.child.before
    assert read_owner(environment.lock_file(DEFAULT_WORKER)) is None


def test_shells_that_start_and_end_at_the_same_moments_all_work(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """They share one worker, whichever of them started it; it ends with the last of them."""
    environment = environment_factory()
    for turn in range(2):
        words = ["fastmcp", "auth", "create-token", "username", "a", "token"]
        shells = [start_program(*words, f"t{turn}-{number}", environment=environment) for number in range(3)]
        assert [(shell.end(30), shell.err) for shell in shells] == [(0, "")] * 3
    with NorFab(environment.inventory_file) as norfab:
        worker = watch(environment)
        (listed,) = norfab.make_client().run_job("fastmcp", "bearer_token_list").values()
    assert {row["token"] for row in listed["result"]} == {f"t{turn}-{n}" for turn in range(2) for n in range(3)}
    assert worker.is_gone_within(STOP_SECONDS)


@pytest.mark.parametrize("how", ["end of input", signal.SIGKILL], ids=str)
def test_a_worker_goes_on_for_a_shell_that_needs_it_when_its_own_ends(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch, how: Any
) -> None:
    """It ends with the last one, which didn't start it; a shell that comes then gets a new worker."""
    environment = environment_factory()
    first, second, third = (start_program(environment=environment) for _ in range(3))
    for shell in (first, second):
        shell.write(CHECK)
        shell.wait_for(ANSWERED, stream="out")
    worker = watch(environment)
    if how == "end of input":
        assert first.end() == 0
    else:
        first.process.send_signal(how)
        first.process.wait(STOP_SECONDS)
    for _ in range(3):
        second.write(CHECK)
        second.wait_for(ANSWERED, stream="out")
    assert not worker.is_gone_within(0)
    assert (second.end(), second.err) == (0, "")
    third.write(CHECK)
    third.wait_for(ANSWERED, stream="out")
    assert (third.end(), without_stop_notice(third.err)) == (0, "")
    assert worker.is_gone_within(STOP_SECONDS)


def test_a_program_leaves_its_worker_to_those_that_need_it(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """`destroy` and the end of a `with` block take nothing away from a shell."""
    environment = environment_factory()
    shell = start_program(environment=environment)
    with NorFab(environment.inventory_file):
        worker = watch(environment)
        shell.write(CHECK)
        shell.wait_for(ANSWERED, stream="out")
    shell.write(CHECK)
    shell.wait_for(ANSWERED, stream="out")
    assert (shell.end(), shell.err) == (0, "")
    assert worker.is_gone_within(STOP_SECONDS)


def test_processes_that_hold_secrets_dump_no_core(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """Neither a worker nor a shell, whatever the limit of what started them."""
    environment = environment_factory()
    shell = start_program(environment=environment)
    shell.write(CHECK)
    shell.wait_for(ANSWERED, stream="out")
    for pid in (shell.process.pid, watch(environment).pid):
        assert resource.prlimit(pid, resource.RLIMIT_CORE)[0] == 0
    assert shell.end() == 0
