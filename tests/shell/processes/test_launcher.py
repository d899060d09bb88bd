"""The launcher and the supervisor with workers that the broker's inventory gives another service."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.environment.worker_lock import WorkerLock
from nfcli.models.errors import EXIT_OK, WorkerStartError
from nfcli.shell.processes.launcher import Launcher
from nfcli.shell.processes.supervision import Supervision
from nfcli.shell.processes.supervisor import Supervisor
from nfcli.shell.processes.worker_process import describe_end

READY = '{"event": "ready", "url": "http://127.0.0.1:1/mcp"}'
SKIPPED = '{"event": "skipped", "name": "r1", "service": "nornir"}'
FOREIGN = "worker r1 is not started: its service nornir is not nfcli's"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Return an environment whose workers' processes report another service, and count themselves in `starts`.

    Those that a file `first` counts report that they are ready instead, and end with status 1.
    """
    program = tmp_path / "python"
    program.write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/starts\n"
        f"if [ -e {tmp_path}/first ]; then rm {tmp_path}/first; echo '{READY}'; exit 1; fi\n"
        f"echo '{SKIPPED}'\nexit ${{STATUS:-0}}\n"
    )
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    environment = Environment(tmp_path, None)
    environment.prepare()
    return environment


def starts(environment: Environment) -> int:
    """Return how many processes were started."""
    return len((environment.folder / "starts").read_text().split())


def supervise(environment: Environment) -> list[str]:
    """Run the supervisor of worker `r1` until it reports the foreign service; return all that it reports."""
    notices: list[str] = []

    def notice(text: str) -> None:
        notices.append(text)
        if text == FOREIGN:
            signal.raise_signal(signal.SIGTERM)

    supervisor = Supervisor(environment, ["r1"], log_level="INFO", notice=notice, first_backoff=0.01)
    assert supervisor.run() == EXIT_OK
    return notices


def test_a_foreign_worker_is_reported_once_and_excluded(environment: Environment) -> None:
    """That is no failure, and later starts don't try it again."""
    reported: list[str] = []
    launcher = Launcher(environment, ["r1"], notice=reported.append)
    assert [launcher.start(), launcher.start(), launcher.missing()] == [[], [], []]
    assert (reported, starts(environment)) == ([FOREIGN], 1)
    assert (launcher.started_here, launcher.handles) == (set(), {})
    launcher.stop()


def test_a_foreign_worker_that_fails_can_not_start(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its report is believed only with exit status 0."""
    monkeypatch.setenv("STATUS", "4")
    with pytest.raises(WorkerStartError, match="worker r1 can't start: it ended with status 4"):
        Launcher(environment, ["r1"]).start()


@pytest.mark.parametrize("names", [["r1"], []])
def test_the_supervisor_ends_if_nothing_is_to_run(environment: Environment, names: list[str]) -> None:
    """A foreign worker isn't taken for one that another process runs."""
    notices: list[str] = []
    supervisor = Supervisor(environment, names, log_level="INFO", notice=notices.append)
    with pytest.raises(WorkerStartError, match=r"no worker of nfcli's is to run on this machine: name one in topology"):
        supervisor.run()
    assert notices == [FOREIGN] * len(names)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (3, "ended with status 3"),
        (-9, "was killed by SIGKILL"),
        (-11, "was killed by SIGSEGV"),
        (-40, "was killed by signal 40"),
        (None, "ended with status None"),
    ],
)
def test_a_signal_that_killed_a_process_is_named(status: int | None, words: str) -> None:
    """Exit statuses below 0 mean nothing to users."""
    assert describe_end(status) == words


def test_a_worker_that_became_foreign_is_not_restarted_again(environment: Environment) -> None:
    """As when the broker's inventory was changed while the worker ran."""
    (environment.folder / "first").touch()
    ready, *others = supervise(environment)
    assert re.fullmatch(r"worker r1 is ready \(pid \d+\): MCP at http://127\.0\.0\.1:1/mcp", ready)
    assert others == [
        "worker r1 ended with status 1: restart in 0.01 s",
        FOREIGN,
        "stopped",
    ]
    assert starts(environment) == 2


def test_the_pause_before_a_restart_grows_to_a_minute(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It isn't longer, however often a worker ends; the clock jumps here, so that none is waited for."""
    monkeypatch.setenv("STATUS", "4")
    (environment.folder / "first").touch()
    real, shift, pauses = time.monotonic, 0.0, list[str]()

    def notice(text: str) -> None:
        nonlocal shift
        if found := re.search(r"restart in (\S+) s$", text):
            pauses.append(found[1])
            shift += 61.0
            if len(pauses) == 4:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(time, "monotonic", lambda: real() + shift)
    assert Supervisor(environment, ["r1"], log_level="INFO", notice=notice, first_backoff=25).run() == EXIT_OK
    assert pauses == ["25", "50", "60", "60"]


def test_a_supervisor_refuses_a_worker_that_another_process_runs(environment: Environment) -> None:
    """The remedy names what runs it: the worker alone would be restarted."""
    supervisor = Supervisor(environment, ["r1"], log_level="INFO", notice=[].append)
    running = rf"worker r1 is already running \(pid {os.getpid()}\)"
    lock = WorkerLock.acquire(environment.lock_file("r1"))
    lock.publish(pid=os.getpid(), ready=True)
    try:
        with pytest.raises(WorkerStartError, match=f"^{running}: stop the nfcli -w or the shell that runs it$"):
            supervisor.run()
    finally:
        lock.release()


def test_shell_leaves_workers_to_the_foreground_and_waits_for_its_start(environment: Environment) -> None:
    """It starts none itself, and goes on once the foreground has tried each; without one it starts them."""
    supervision = Supervision(environment)
    supervision.begin()
    launcher, started = Launcher(environment, ["r1"], notice=lambda _: None), list[str]()
    shell = threading.Thread(target=lambda: started.extend(launcher.start()))
    shell.start()
    shell.join(0.2)
    assert shell.is_alive()
    supervision.end_start()
    shell.join()
    assert (started, launcher.names, (environment.folder / "starts").exists()) == ([], ["r1"], False)
    supervision.end()
    launcher.start()
    assert starts(environment) == 1
    launcher.stop()


def test_second_foreground_has_no_locks(environment: Environment) -> None:
    """Those of the first one stay until it ends."""
    first, second = Supervision(environment), Supervision(environment)
    first.begin()
    second.begin()
    second.end()
    launcher = Launcher(environment, ["r1"])
    first.end_start()
    assert launcher.start() == []
    assert not (environment.folder / "starts").exists()
    first.end()
    launcher.stop()
