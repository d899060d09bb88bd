"""Worker processes of the tests, and the types of the fixtures that run them and the installed program."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment

READY_SECONDS = 60.0
STOP_SECONDS = 10.0


class EnvironmentFactory(Protocol):
    """The type of the fixture `environment_factory`."""

    def __call__(self, *names: str, **settings: Any) -> Environment:
        """Make an environment in a new folder: workers of the given names, or one with the default name.

        They listen on free ports with authentication on; `settings` are further worker keys, or replace those.
        """


@dataclass(frozen=True)
class RunningWorker:
    """A worker process that said *ready*: its name, MCP `url`, ZeroMQ `endpoint`, and the process."""

    name: str
    url: str
    endpoint: str
    process: subprocess.Popen[bytes]


class WorkerRunner(Protocol):
    """The type of the fixture `running_worker`."""

    def __call__(
        self, environment: Environment, name: str = DEFAULT_WORKER
    ) -> contextlib.AbstractContextManager[RunningWorker]:
        """Run a worker of an environment for the length of a `with` block; fail if it isn't ready in time."""


_STOP_NOTICE = re.compile(r"^nfcli: workers? .* stopped with this nfcli, which had started .*\n", re.MULTILINE)


def without_stop_notice(errors: str) -> str:
    """Return what nfcli wrote to stderr without the line about workers that ended with it."""
    return _STOP_NOTICE.sub("", errors)


class NfcliRunner(Protocol):
    """The type of the fixture `nfcli`."""

    def __call__(
        self,
        *words: str,
        stdin: str = "",
        environment: Environment | None = None,
        timeout: float = 60.0,
        has_stop_notice: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run the installed `nfcli` program to its end, by `timeout` seconds at the latest.

        `environment` puts `-i FILE` before the words; without it the program works with the test's empty home, in a
        folder that holds no inventory. Texts are UTF-8 and keep their line ends. The line on stderr about workers that
        ended with the program is left out unless `has_stop_notice`.
        """


@contextlib.contextmanager
def run_worker(environment: Environment, name: str) -> Iterator[RunningWorker]:
    """Run a worker process for the length of a `with` block; fail the test if it isn't ready in time."""
    command = [sys.executable, "-m", "nfcli.worker", "--environment", str(environment.folder), "--name", name]
    with tempfile.TemporaryFile() as errors:
        # stdin is a pipe that the worker watches: it ends even if this process is killed.
        process = subprocess.Popen(
            [*command, "--until-stdin-ends"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        try:
            said = _first_line(process, errors)
            yield RunningWorker(said["name"], said["url"], said["endpoint"], process)
        finally:
            _stop(process)


def _first_line(process: subprocess.Popen[bytes], errors: Any) -> Mapping[str, str]:
    """Return the worker's *ready* line within its time."""
    assert process.stdout is not None
    deadline = time.monotonic() + READY_SECONDS
    text = b""
    while not text.endswith(b"\n"):
        waited, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(process.stdout.fileno(), 65_536) if waited else b""
        if not part:
            break
        text += part
    said: dict[str, str] = json.loads(text) if text.endswith(b"\n") else {}
    if said.get("event") != "ready":
        errors.seek(0)
        pytest.fail(f"no ready line within {READY_SECONDS:.0f} s: stdout {text!r}, stderr {errors.read()!r}")
    return said


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process, all its threads, for the length of a `with` block, without ending it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        while any(") T " not in task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")):
            pass
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
