"""Run workers in the foreground and restart those that end."""

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
from .worker_process import READY_SECONDS, Notice, WorkerHandle, not_ours_notice

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
HEALTHY_SECONDS = 60.0


class _Stopped(BaseException):
    """SIGTERM or SIGINT has come."""


def _stop(*_: object) -> NoReturn:
    raise _Stopped


class Supervisor:
    """Runs workers in the foreground, as a service manager wants it: says what happens, restarts what dies."""

    def __init__(self, environment: Environment, names: Sequence[str], *, log_level: str, notice: Notice) -> None:
        self._environment = environment
        self._notice = notice
        self._launcher = Launcher(
            environment, names, log_level=log_level, is_shared=False, not_ours=self._tell_not_ours
        )
        self._pauses: dict[str, float] = {}
        self._restarts: dict[str, float] = {}

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, whatever is under way then; return the exit status.

        Raises:
            WorkerStartError: a worker is run by somebody else, or can't start the first time.
        """
        before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
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

    def _tell_not_ours(self, name: str, service: str) -> None:
        self._notice(not_ours_notice(name, service))

    def _start_all(self) -> None:
        self._assert_ours(self._launcher.missing())
        started = self._launcher.start()
        self._assert_ours(started)  # somebody may have been quicker
        for name in started:
            self._say_ready(name)

    def _assert_ours(self, names: Collection[str]) -> None:
        """Raise if another process runs one of the workers: one that isn't among `names`."""
        for name in self._launcher.names:
            if name not in names:
                owner = read_owner(self._environment.lock_file(name))
                raise WorkerStartError(
                    f"worker {name} is already run by pid {(owner and owner.pid) or '?'}: stop that one first"
                )

    def _say_ready(self, name: str) -> None:
        owner = read_owner(self._environment.lock_file(name))
        if owner is not None:
            self._notice(f"worker {name} is ready (pid {owner.pid}): MCP at {owner.url}")

    def _watch(self) -> NoReturn:
        """Wait for ends of workers and for times to restart."""
        while True:
            with selectors.DefaultSelector() as selector:
                for handle in self._launcher.handles.values():
                    selector.register(handle.stdout_number(), selectors.EVENT_READ, handle)
                events = selector.select(self._seconds_to_restart())
            for key, _ in events:
                self._ended(key.data)
            self._restart_due()

    def _seconds_to_restart(self) -> float | None:
        if not self._restarts:
            return None
        return max(0.0, min(self._restarts.values()) - time.monotonic())

    def _ended(self, handle: WorkerHandle) -> None:
        if os.read(handle.stdout_number(), 65_536):
            return
        handle.stop()
        del self._launcher.handles[handle.name]
        was_healthy = time.monotonic() - handle.started > HEALTHY_SECONDS
        self._plan_restart(handle.name, f"ended with status {handle.process.returncode}", reset=was_healthy)

    def _plan_restart(self, name: str, reason: str, *, reset: bool = False) -> None:
        last = 0.0 if reset else self._pauses.get(name, 0.0)
        pause = min(LONGEST_PAUSE_SECONDS, last * 2 or FIRST_PAUSE_SECONDS)
        self._pauses[name] = pause
        self._restarts[name] = time.monotonic() + pause
        self._notice(f"worker {name} {reason}: restart in {pause:g} s")

    def _restart_due(self) -> None:
        due = [name for name, moment in self._restarts.items() if moment <= time.monotonic()]
        for name in due:
            del self._restarts[name]
            handle = self._launcher.handles[name] = self._launcher.start_one(name)
            try:
                handle.wait_ready(time.monotonic() + READY_SECONDS)
            except WorkerStartError as error:
                handle.stop()
                del self._launcher.handles[name]
                self._plan_restart(name, f"did not come back ({error})")
            else:
                self._has_come(handle)

    def _has_come(self, handle: WorkerHandle) -> None:
        if handle.foreign_service is None:
            self._say_ready(handle.name)
            return
        handle.stop()
        del self._launcher.handles[handle.name]
        self._launcher.leave_out(handle.name, handle.foreign_service)
