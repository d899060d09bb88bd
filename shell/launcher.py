"""Start workers, wait until they are ready, stop them, and restart those that die."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn, Self

from ..models.environment import Environment
from ..models.errors import EXIT_OK, WorkerStartError
from ..models.lock import read_owner
from ..models.need import WorkerNeed

READY_SECONDS = 30.0
STOP_SECONDS = 6.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
HEALTHY_SECONDS = 60.0

Notice = Callable[[str], None]


def not_ours_notice(name: str, service: str) -> str:
    """Return what users are told of a worker that is another service's."""
    return f"worker {name} is not started: nfcli has no service {service}"


class WorkerHandle:
    """A worker process that this process started; it ends when its stdin is closed, so it can't outlive us.

    `is_shared`: it outlives us as long as other shells need it. `foreign_service`: what the broker's inventory says
    that the worker serves, where that is nothing of nfcli's and the process has ended for it.
    """

    def __init__(self, environment: Environment, name: str, *, log_level: str, is_shared: bool) -> None:
        self.name = name
        self.foreign_service: str | None = None
        self.started = time.monotonic()
        command = [sys.executable, "-P", "-m", "nfcli.worker", "--name", name, "--log-level", log_level]
        self.process = subprocess.Popen(  # noqa: S603  our own interpreter, no shell
            [*command, *environment.arguments, "--while-needed" if is_shared else "--until-stdin-ends"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C at the prompt goes to the shell's process group: the worker isn't in it.
            start_new_session=True,
        )

    def wait_ready(self, deadline: float) -> None:
        """Wait until the worker says that it is ready, or none of nfcli's; `deadline` in monotonic seconds.

        Raises:
            WorkerStartError: the worker couldn't start, with its own reason, or said nothing in time.
        """
        line = self._read_line(deadline)
        if line is None:
            self.stop()
            raise WorkerStartError(f"worker {self.name} was not ready within {READY_SECONDS:g} s: see its log")
        said: dict[str, Any] = json.loads(line) if line else {}
        if said.get("event") == "ready":
            return
        status = self.process.wait()
        if said.get("event") == "skipped" and status == EXIT_OK:
            self.foreign_service = str(said.get("service"))
            return
        raise WorkerStartError(
            f"worker {self.name} can't start: {said.get('error') or f'it ended with status {status}: see its log'}"
        )

    def _read_line(self, deadline: float) -> bytes | None:
        """Return the first line of stdout; what there is of it at its end; None when time is up."""
        stdout = self.stdout_number()
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                chunk = os.read(stdout, 65_536)
                if not chunk:
                    break
                line += chunk
        return line

    def stdout_number(self) -> int:
        """Return the file descriptor of the worker's stdout, which ends when the worker does."""
        if self.process.stdout is None:
            raise WorkerStartError(f"worker {self.name} has no stdout")
        return self.process.stdout.fileno()

    def ask_to_stop(self) -> None:
        """Ask the worker to end; doesn't wait."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """End the worker: ask, wait, kill."""
        self.ask_to_stop()
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close_pipes()

    def leave(self) -> None:
        """Let a shared worker run for the others that need it; it ends by itself when they have gone."""
        self._close_pipes()
        threading.Thread(target=self.process.wait, name=f"leave-{self.name}", daemon=True).start()  # no zombie

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Launcher:
    """Starts the workers of an environment that aren't running, and stops those that it started.

    `is_shared`: those that other shells need by then are left to them (`models/need.py`). `own` are the names of those
    that were started here, whether they still run or not. `not_ours` is told once of a worker that the broker's
    inventory gives another service, with its name and that; `names` lacks it then.
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
        self._needs: dict[str, WorkerNeed] = {}
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
                self._needs.pop(name).end()
            raise
        return started

    def start_one(self, name: str) -> WorkerHandle:
        """Start a worker; doesn't wait for it."""
        return WorkerHandle(self._environment, name, log_level=self._log_level, is_shared=self._is_shared)

    def _begin_needs(self, deadline: float) -> list[str]:
        """Keep workers that others started from ending under us; return the names of those that it is new for."""
        names = [name for name in self.names if self._is_shared and name not in self._needs]
        for name in names:
            self._needs[name] = WorkerNeed(self._environment.lock_file(name), deadline)
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
        unneeded = {name for name in handles if name not in needs or needs[name].is_last()}
        for name in unneeded:
            handles[name].ask_to_stop()
        for name, handle in handles.items():
            if name in unneeded:
                handle.stop()
            else:
                handle.leave()
        for need in needs.values():
            need.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


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
