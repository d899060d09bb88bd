"""The launcher: starts the workers of an environment, waits until they are ready, and stops them."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

from ...models.environment.file_lock import FileLock
from ...models.environment.paths import Environment
from ...models.environment.worker_lease import acquire_lease
from ...models.environment.worker_lock import read_owner
from ...models.errors import WorkerStartError
from .fork_client import ForkClient
from .supervision import is_supervised
from .worker_process import READY_SECONDS, Notice, NotReadyError, WorkerHandle, foreign_worker_message

_POLL_SECONDS = 0.05
STARTS_PER_CORE = 2


class Launcher:
    """Starts the workers of an environment that aren't running, and stops those that it started.

    With `is_shared`, workers that other shells have a lease of are left running (`models/environment/worker_lease.py`),
    and where `nfcli -w` runs the workers, starting them is left to it.
    `started_here` has the names of workers started here, whether or not they still run. `notice` is called with
    a line for each worker that has another service by the broker's inventory; `names` then lacks it; and for each
    warning of a worker about its configuration.
    """

    def __init__(
        self,
        environment: Environment,
        names: Sequence[str],
        *,
        log_level: str = "INFO",
        is_shared: bool = True,
        notice: Notice = lambda _: None,
    ) -> None:
        self._environment = environment
        self._notice = notice
        self.names = list(names)
        self._log_level = log_level
        self._is_shared = is_shared
        self._leases: dict[str, FileLock] = {}
        self.started_here: set[str] = set()
        self.handles: dict[str, WorkerHandle] = {}
        self._process = os.getpid()
        self._forks: ForkClient | None = None

    def missing(self) -> list[str]:
        """Return the names of the workers that no process runs."""
        return [name for name in self.names if not self._is_running(name)]

    def _is_running(self, name: str) -> bool:
        return read_owner(self._environment.lock_file(name)) is not None

    def urls(self) -> dict[str, str]:
        """Return where the workers that are ready serve MCP, by their names."""
        owners = {name: read_owner(self._environment.lock_file(name)) for name in self.names}
        return {name: owner.url for name, owner in owners.items() if owner is not None and owner.ready and owner.url}

    def start(self, failures: dict[str, WorkerStartError] | None = None) -> list[str]:
        """Start the workers that aren't running and wait until all are ready; return the names of those started.

        With `failures` those that can't start are added to it, by their names, and the others go on.

        Raises:
            WorkerStartError: one of them couldn't start; the others that this call started are stopped again, unless it
                was not ready in time (`NotReadyError`).
        """
        return self._start(self.names, failures)

    def restart(self, name: str) -> bool:
        """Start a worker again that was started here and isn't running; return whether it was started.

        Other workers are left to the processes that started them: a service manager would find the name in use.

        Raises:
            WorkerStartError: it can't be started; the call may be repeated.
        """
        return name in self.started_here and bool(self._start([name]))

    def _start(self, names: Sequence[str], failures: dict[str, WorkerStartError] | None = None) -> list[str]:
        started: list[str] = []
        leases = self._acquire_leases(time.monotonic() + READY_SECONDS)
        try:
            missing = [name for name in names if not self._is_running(name)]
            if missing and self._is_shared and is_supervised(self._environment, time.monotonic() + READY_SECONDS):
                missing = []
            if len(missing) > 1:
                self._open_forks()
            self._start_in_turn(missing, started, failures)
            for name in [name for name in names if name in self.names]:
                self._wait_until_ready_elsewhere(name, time.monotonic() + READY_SECONDS)
            self.started_here.update(started)
        except NotReadyError:  # a slow start of one is no reason to stop the others
            self.started_here.update(started)
            raise
        except BaseException:
            for name in started:
                self.discard(name)
            for name in leases:
                self._leases.pop(name).close()
            if not self.handles:
                self._close_forks()
            raise
        return started

    def _start_in_turn(
        self, names: Sequence[str], started: list[str], failures: dict[str, WorkerStartError] | None
    ) -> None:
        """Start workers, a few at a time; add the names of those that this process started to `started`."""
        waiting, starting = deque(names), deque[str]()
        try:
            while waiting or starting:
                while waiting and len(starting) < STARTS_PER_CORE * (os.cpu_count() or 1):
                    name = waiting.popleft()
                    self.discard(name)
                    with _collecting(failures, name):
                        self.handles[name] = self.spawn(name)
                        starting.append(name)
                if not starting:
                    continue
                name, is_started = starting[0], False
                with _collecting(failures, name):
                    is_started = self._wait_ready(self.handles[name], self.handles[name].started + READY_SECONDS)
                if is_started:
                    started.append(name)
                else:
                    self.discard(name)
                starting.popleft()
        except BaseException:
            for name in starting:
                self.discard(name)
            raise

    def _open_forks(self) -> None:
        """Have further workers forked from a process that loads their modules once."""
        if self._forks is None:
            with contextlib.suppress(OSError):  # each one is started by itself then
                self._forks = ForkClient(has_stderr=not self._is_shared)

    def spawn(self, name: str) -> WorkerHandle:
        """Start a worker's process, without waiting for it."""
        start = partial(WorkerHandle, self._environment, name, log_level=self._log_level, is_shared=self._is_shared)
        if self._forks is not None:
            try:
                return start(forks=self._forks)
            except WorkerStartError:  # the process that forks has ended
                self._close_forks()
        return start()

    def _close_forks(self) -> None:
        if self._forks is not None:
            self._forks.close()
            self._forks = None

    def _acquire_leases(self, deadline: float) -> list[str]:
        """Acquire the leases that keep workers of other processes running; return the names of those acquired now."""
        names = [name for name in self.names if self._is_shared and name not in self._leases]
        for name in names:
            self._leases[name] = acquire_lease(self._environment.lock_file(name), deadline)
        return names

    def _wait_ready(self, handle: WorkerHandle, deadline: float) -> bool:
        """Wait until a worker is ready; false if another process started it first, or it isn't nfcli's."""
        try:
            handle.wait_ready(deadline)
        except WorkerStartError:
            owner = read_owner(self._environment.lock_file(handle.name))
            if owner is None or owner.pid == handle.process.pid:
                raise
            return False
        if handle.foreign_service is None:
            self.report_warnings(handle)
            return True
        self.exclude(handle.name, handle.foreign_service)
        return False

    def report_warnings(self, handle: WorkerHandle) -> None:
        """Report what a worker that is ready says about its configuration."""
        for warning in handle.warnings:
            self._notice(f"worker {handle.name}: warning: {warning}")

    def exclude(self, name: str, service: str) -> None:
        """Remove a worker of another service from `names`."""
        self.names = [each for each in self.names if each != name]
        self._notice(foreign_worker_message(name, service))

    def discard(self, name: str) -> None:
        """Stop a worker, unless it has ended, and forget its handle."""
        if name in self.handles:
            self.handles.pop(name).stop()

    def _wait_until_ready_elsewhere(self, name: str, deadline: float) -> None:
        """Wait until a worker that another process is starting is ready."""
        lock_file = self._environment.lock_file(name)
        while (owner := read_owner(lock_file)) is not None and not owner.ready:
            if time.monotonic() > deadline:
                raise WorkerStartError(
                    f"worker {name} (pid {owner.pid or '?'}) was not ready within {READY_SECONDS:g} s: see its log"
                )
            time.sleep(_POLL_SECONDS)

    def stop(self) -> list[str]:
        """Stop the workers that were started here, all at once, except those that other shells have a lease of.

        The names of those that were stopped are returned, in the order of their starts.

        A process that was forked from the one that started them leaves them running.
        """
        if os.getpid() != self._process:
            return []
        handles, self.handles = self.handles, {}
        leases, self._leases = self._leases, {}
        unused = {name for name in handles if name not in leases or leases[name].try_acquire()}
        for name in unused:
            handles[name].request_stop()
        for name, handle in handles.items():
            if name in unused:
                handle.stop()
            else:
                handle.detach()
        for lease in leases.values():
            lease.close()
        self._close_forks()
        return [name for name in handles if name in unused]


@contextlib.contextmanager
def _collecting(failures: dict[str, WorkerStartError] | None, name: str) -> Iterator[None]:
    """Add the error of a worker that can't start to `failures`; raise it without them."""
    try:
        yield
    except WorkerStartError as error:
        if failures is None:
            raise
        failures[name] = error
