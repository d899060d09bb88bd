"""Start workers, wait until they are ready, stop them, and restart those that die."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Self

from ...models.environment.paths import Environment
from ...models.environment.worker_lease import WorkerLease
from ...models.environment.worker_lock import read_owner
from ...models.errors import WorkerStartError
from .worker_process import READY_SECONDS, WorkerHandle


class Launcher:
    """Starts the workers of an environment that aren't running, and stops those that it started.

    `is_shared`: leave those that other shells still need running (`models/environment/worker_lease.py`). `own` are the
    names of those started here, whether or not they still run. `not_ours` is called once for each worker that the
    broker's inventory gives another service, with its name and that service; `names` then lacks it.
    """

    def __init__(
        self,
        environment: Environment,
        names: Sequence[str],
        *,
        log_level: str = "INFO",
        is_shared: bool = True,
        not_ours: Callable[[str, str], None] = lambda _name, _service: None,
    ) -> None:
        self._environment = environment
        self._not_ours = not_ours
        self.names = list(names)
        self._log_level = log_level
        self._is_shared = is_shared
        self._needs: dict[str, WorkerLease] = {}
        self.own: set[str] = set()
        self.handles: dict[str, WorkerHandle] = {}

    def missing(self) -> list[str]:
        """Return the names of the workers that nobody runs."""
        return [name for name in self.names if not self._is_run(name)]

    def _is_run(self, name: str) -> bool:
        return read_owner(self._environment.lock_file(name)) is not None

    def start(self) -> list[str]:
        """Start what isn't running, side by side, and wait until all are ready; return the names that were started.

        Raises:
            WorkerStartError: one of them couldn't start; those that this call started are stopped again.
        """
        return self._start(self.names)

    def restart(self, name: str) -> bool:
        """Start a worker again that was started here and isn't running; return whether that was done.

        Those of others are theirs to start again: a service manager's would find its name taken.

        Raises:
            WorkerStartError: it can't be started any more; another try may follow.
        """
        return name in self.own and bool(self._start([name]))

    def _start(self, names: Sequence[str]) -> list[str]:
        deadline = time.monotonic() + READY_SECONDS
        started: list[str] = []
        needs = self._begin_needs(deadline)
        try:
            for name in [name for name in names if not self._is_run(name)]:
                self._discard(name)
                self.handles[name] = self.start_one(name)
                started.append(name)
            for name in list(started):
                if not self._is_ours(self.handles[name], deadline):
                    self._discard(name)
                    started.remove(name)
            for name in [name for name in names if name in self.names]:
                self._await_other(name, deadline)
            self.own.update(started)
        except BaseException:
            for name in started:
                self._discard(name)
            for name in needs:
                self._needs.pop(name).release()
            raise
        return started

    def start_one(self, name: str) -> WorkerHandle:
        """Start a worker; doesn't wait for it."""
        return WorkerHandle(self._environment, name, log_level=self._log_level, is_shared=self._is_shared)

    def _begin_needs(self, deadline: float) -> list[str]:
        """Keep workers that others started from ending under us; return the names of those that it is new for."""
        names = [name for name in self.names if self._is_shared and name not in self._needs]
        for name in names:
            self._needs[name] = WorkerLease(self._environment.lock_file(name), deadline)
        return names

    def _is_ours(self, handle: WorkerHandle, deadline: float) -> bool:
        """Wait until a worker is ready; false when another shell was a moment quicker, or it isn't nfcli's at all."""
        try:
            handle.wait_ready(deadline)
        except WorkerStartError:
            owner = read_owner(self._environment.lock_file(handle.name))
            if owner is None or owner.pid == handle.process.pid:
                raise
            return False
        if handle.foreign_service is None:
            return True
        self.leave_out(handle.name, handle.foreign_service)
        return False

    def leave_out(self, name: str, service: str) -> None:
        """Start a worker no more, as it isn't nfcli's."""
        self.names = [each for each in self.names if each != name]
        self._not_ours(name, service)

    def _discard(self, name: str) -> None:
        """Let go of a worker that has ended, or end it."""
        if name in self.handles:
            self.handles.pop(name).stop()

    def _await_other(self, name: str, deadline: float) -> None:
        """Wait until a worker that somebody else is starting is ready."""
        lock_file = self._environment.lock_file(name)
        while (owner := read_owner(lock_file)) is not None and not owner.ready:
            if time.monotonic() > deadline:
                raise WorkerStartError(
                    f"worker {name} (pid {owner.pid or '?'}) was not ready within {READY_SECONDS:g} s"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the workers that were started here and that nobody else needs, all at once."""
        handles, self.handles = self.handles, {}
        needs, self._needs = self._needs, {}
        unneeded = {name for name in handles if name not in needs or needs[name].make_exclusive()}
        for name in unneeded:
            handles[name].ask_to_stop()
        for name, handle in handles.items():
            if name in unneeded:
                handle.stop()
            else:
                handle.leave()
        for need in needs.values():
            need.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
