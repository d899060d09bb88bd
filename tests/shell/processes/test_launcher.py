"""The launcher and workers that turn out not to be nfcli's: the broker's inventory gives them another service."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import EXIT_OK, WorkerStartError
from nfcli.shell.processes.launcher import Launcher
from nfcli.shell.processes.supervisor import Supervisor

NOT_OURS = "worker r1 is not started: nfcli has no service nornir"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment whose workers' processes all say that they are not nfcli's, and count themselves in `starts`."""
    program = tmp_path / "python"
    said = '{"event": "skipped", "name": "r1", "service": "nornir"}'
    program.write_text(f"#!/bin/sh\necho x >> {tmp_path}/starts\necho '{said}'\nexit ${{STATUS:-0}}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    environment = Environment(tmp_path, None)
    environment.prepare()
    return environment


def starts(environment: Environment) -> int:
    """Return how many processes were started."""
    return len((environment.folder / "starts").read_text().split())


def test_a_worker_that_is_not_ours_is_told_once_and_left_out(environment: Environment) -> None:
    """That is no failure, and no later start tries it again."""
    told: list[tuple[str, str]] = []
    launcher = Launcher(environment, ["r1"], not_ours=lambda name, service: told.append((name, service)))
    assert [launcher.start(), launcher.start(), launcher.missing()] == [[], [], []]
    assert (told, starts(environment), launcher.own, launcher.handles) == ([("r1", "nornir")], 1, set(), {})
    launcher.stop()


def test_a_worker_that_fails_after_saying_so_can_not_start(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only status 0 means that all is well."""
    monkeypatch.setenv("STATUS", "4")
    with pytest.raises(WorkerStartError, match="worker r1 can't start: it ended with status 4"):
        Launcher(environment, ["r1"]).start()


def test_a_foreground_runs_on_without_the_workers_that_are_not_ours(environment: Environment) -> None:
    """Nobody else is taken for their owner."""
    notices: list[str] = []

    def notice(text: str) -> None:
        notices.append(text)
        if text == NOT_OURS:
            signal.raise_signal(signal.SIGTERM)

    assert Supervisor(environment, ["r1"], log_level="INFO", notice=notice).run() == EXIT_OK
    assert notices == [NOT_OURS, "stopped"]


def test_a_worker_that_is_not_ours_any_more_is_not_restarted_again(environment: Environment) -> None:
    """The broker's inventory was changed while it ran."""
    notices: list[str] = []
    supervisor = Supervisor(environment, ["r1"], log_level="INFO", notice=notices.append)
    supervisor._plan_restart("r1", "ended with status 1")
    supervisor._restarts["r1"] = 0.0
    supervisor._restart_due()
    assert notices == ["worker r1 ended with status 1: restart in 1 s", NOT_OURS]
    assert (supervisor._launcher.handles, supervisor._restarts) == ({}, {})
    assert os.path.lexists(environment.folder / "starts")
