"""The supervisor of `nfcli -w`: runs workers in the foreground and restarts those that end."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Collection, Sequence
from typing import NoReturn

from ...models.environment.paths import Environment
from ...models.environment.worker_lock import read_owner
from ...models.errors import EXIT_OK, WorkerStartError
from .launcher import Launcher
from .worker_process import READY_SECONDS, Notice, WorkerHandle

FIRST_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 60.0
HEALTHY_SECONDS = 60.0
"""A worker that ran for longer is restarted after the first backoff again."""


class _Stopped(BaseException):
    """SIGTERM or SIGINT was received."""


def _raise_stopped(*_: object) -> NoReturn:
    raise _Stopped


class Supervisor:
    """Runs workers in the foreground for a service manager: reports what happens, restarts workers that end.

    `notice` is called with each line to report. The first restart of a worker comes after `first_backoff` seconds, each
    further one after twice the time.
    """

    def __init__(
        self,
        environment: Environment,
        names: Sequence[str],
        *,
        log_level: str,
        notice: Notice,
        first_backoff: float = FIRST_BACKOFF_SECONDS,
    ) -> None:
        self._environment = environment
        self._notice = notice
        self._first_backoff = first_backoff
        self._launcher = Launcher(environment, names, log_level=log_level, is_shared=False, notice=notice)
        self._backoffs: dict[str, float] = {}
        self._restart_times: dict[str, float] = {}

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit status.

        Raises:
            WorkerStartError: another process runs one of the workers, or one can't start the first time.
        """
        before = {number: signal.signal(number, _raise_stopped) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._start_all()
            self._watch()
        except _Stopped:
            pass
        finally:
            for number in before:
                signal.signal(number, signal.SIG_IGN)
            self._launcher.stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        self._notice("stopped")
        return EXIT_OK

    def _start_all(self) -> None:
        self._assert_not_run_elsewhere(self._launcher.missing())
        started = self._launcher.start()
        self._assert_not_run_elsewhere(started)  # another process may have been faster
        for name in started:
            self._report_ready(name)

    def _assert_not_run_elsewhere(self, names: Collection[str]) -> None:
        """Raise if another process runs a worker: one that isn't among `names`."""
        for name in self._launcher.names:
            if name not in names:
                owner = read_owner(self._environment.lock_file(name))
                running = f"worker {name} is already running (pid {(owner and owner.pid) or '?'})"
                raise WorkerStartError(f"{running}: stop the nfcli -w or the shell that runs it")

    def _report_ready(self, name: str) -> None:
        owner = read_owner(self._environment.lock_file(name))
        if owner is not None:
            self._notice(f"worker {name} is ready (pid {owner.pid}): MCP at {owner.url}")

    def _watch(self) -> NoReturn:
        """Wait for workers to end and for restarts to become due."""
        while True:
            due = min(self._restart_times.values(), default=None)
            with selectors.DefaultSelector() as selector:
                for handle in self._launcher.handles.values():
                    selector.register(handle.stdout_descriptor(), selectors.EVENT_READ, handle)
                events = selector.select(None if due is None else max(0.0, due - time.monotonic()))
            for key, _ in events:
                self._handle_output(key.data)
            self._restart_due_workers()

    def _handle_output(self, handle: WorkerHandle) -> None:
        if os.read(handle.stdout_descriptor(), 65_536):
            return
        self._launcher.discard(handle.name)
        was_healthy = time.monotonic() - handle.started > HEALTHY_SECONDS
        self._schedule_restart(handle.name, f"ended with status {handle.process.returncode}", reset=was_healthy)

    def _schedule_restart(self, name: str, reason: str, *, reset: bool = False) -> None:
        last = 0.0 if reset else self._backoffs.get(name, 0.0)
        backoff = min(MAX_BACKOFF_SECONDS, last * 2 or self._first_backoff)
        self._backoffs[name] = backoff
        self._restart_times[name] = time.monotonic() + backoff
        self._notice(f"worker {name} {reason}: restart in {backoff:g} s")

    def _restart_due_workers(self) -> None:
        due = [name for name, moment in self._restart_times.items() if moment <= time.monotonic()]
        for name in due:
            del self._restart_times[name]
            handle = self._launcher.handles[name] = self._launcher.spawn(name)
            try:
                handle.wait_ready(time.monotonic() + READY_SECONDS)
            except WorkerStartError as error:
                self._launcher.discard(name)
                self._schedule_restart(name, f"could not be restarted ({error})")
                continue
            if handle.foreign_service is None:
                self._report_ready(name)
            else:
                self._launcher.discard(name)
                self._launcher.exclude(name, handle.foreign_service)
