"""The supervisor of `nfcli -w`: runs workers in the foreground and restarts those that end."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from ...models.environment.paths import Environment
from ...models.environment.worker_lock import read_owner
from ...models.errors import EXIT_OK, NfcliError, WorkerStartError
from ...models.inventory.loader import load_inventory
from .launcher import Launcher
from .service_manager import ServiceManager
from .supervision import Supervision
from .worker_process import READY_SECONDS, Notice, WorkerHandle, describe_end

FIRST_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 60.0
HEALTHY_SECONDS = 60.0
"""A worker that ran for longer is restarted after the first backoff again."""
QUESTION_SECONDS = 5.0
"""Pause between two questions whether a worker is alive."""
_PIPE_BYTES = 65_536
HANG_SECONDS = 20.0
"""A worker that has left a question unanswered for this long is killed and restarted."""


class _Stopped(BaseException):
    """SIGTERM or SIGINT was received."""


def _raise_stopped(*_: object) -> NoReturn:
    raise _Stopped


class Supervisor:
    """Runs workers in the foreground for a service manager: reports what happens, restarts workers that end.

    After SIGHUP it and its workers read the inventory again; a mistake in it changes nothing.

    Each worker is watched by itself: a slow start or a worker that hangs delays no other one. `notice` is called with
    each line to report. The first restart of a worker comes after `first_backoff` seconds, each further one after twice
    the time. Every `question_seconds` each worker is asked whether it is alive. `manager` gets reports of all that.
    """

    def __init__(
        self,
        environment: Environment,
        names: Sequence[str],
        *,
        log_level: str,
        notice: Notice,
        first_backoff: float = FIRST_BACKOFF_SECONDS,
        question_seconds: float = QUESTION_SECONDS,
        hang_seconds: float = HANG_SECONDS,
        manager: ServiceManager | None = None,
    ) -> None:
        self._environment = environment
        self._manager = manager or ServiceManager({})
        self._report_line = notice
        self._first_backoff = first_backoff
        self._question_seconds = question_seconds
        self._hang_seconds = hang_seconds
        self._selector = selectors.DefaultSelector()  # one for all: a new one would need a descriptor at a bad time
        self._launcher = Launcher(environment, names, log_level=log_level, is_shared=False, notice=self._notice)
        self._supervision = Supervision(environment)
        self._wakeups = os.pipe()
        os.set_blocking(self._wakeups[1], False)
        self._terminal = next((number for number in range(3) if os.isatty(number)), None)
        self._backoffs: dict[str, float] = {}
        self._restart_times: dict[str, float] = {}
        self._start_deadlines: dict[str, float] = {}
        self._unanswered: dict[str, float] = {}
        self._outdated: set[str] = set()
        self._next_question = time.monotonic()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or SIGHUP because its terminal was closed; return the exit status.

        Raises:
            WorkerStartError: another process runs one of the workers, none can start the first time, or none is to.
        """
        before = {number: signal.signal(number, _raise_stopped) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._wake)
        self._selector.register(self._wakeups[0], selectors.EVENT_READ, None)
        try:
            self._supervision.begin()
            started = self._start_all()
            self._supervision.end_start()
            self._manager.report_ready(f"workers are ready: {', '.join(started)}")
            self._watch()
        except _Stopped:
            pass
        finally:
            for number in before:
                signal.signal(number, signal.SIG_IGN)
            self._manager.report_stopping()
            self._launcher.stop()
            self._supervision.end()
            for number, handler in before.items():
                signal.signal(number, handler)
        self._notice("stopped")
        return EXIT_OK

    def _wake(self, *_: object) -> None:
        with contextlib.suppress(BlockingIOError):  # full of earlier ones
            os.write(self._wakeups[1], b"!")

    def _notice(self, text: str) -> None:
        self._report_line(text)
        self._manager.report_status(text)

    def _start_all(self) -> list[str]:
        """Start the workers; return the names of those that are ready. Starts that fail are repeated later."""
        self._assert_not_run_elsewhere(self._launcher.missing())
        failures: dict[str, WorkerStartError] = {}
        started = self._launcher.start(failures)
        self._assert_not_run_elsewhere([*started, *failures])  # another process may have been faster
        if failures and not started:
            raise next(iter(failures.values()))
        if not started:
            raise WorkerStartError("no worker of nfcli's is to run on this machine: name one in topology.workers")
        for name in started:
            handle = self._launcher.handles[name]
            self._selector.register(handle.stdout_descriptor(), selectors.EVENT_READ, handle)
            self._report_ready(handle)
        for name, error in failures.items():
            self._schedule(name, f"could not be started ({error})")
        return started

    def _assert_not_run_elsewhere(self, names: Collection[str]) -> None:
        """Raise if another process runs a worker: one that isn't among `names`."""
        for name in self._launcher.names:
            if name not in names:
                owner = read_owner(self._environment.lock_file(name))
                running = f"worker {name} is already running (pid {(owner and owner.pid) or '?'})"
                raise WorkerStartError(f"{running}: stop the nfcli -w or the shell that runs it")

    def _report_ready(self, handle: WorkerHandle) -> None:
        self._notice(f"worker {handle.name} is ready (pid {handle.process.pid}): MCP at {handle.url}")

    def _watch(self) -> NoReturn:
        """Handle what workers report, their ends, and what is due: restarts, ends of starts, questions."""
        while True:
            due = (self._next_question, self._manager.next_ping)
            times = [*self._restart_times.values(), *self._start_deadlines.values(), *due]
            events = self._selector.select(max(0.0, min(times) - time.monotonic()))
            for key, _ in events:
                if key.data is None:
                    self._reload()
                elif key.fd in self._selector.get_map():  # the reload has not stopped it
                    self._handle_output(key.data)
            self._manager.ping()
            now = time.monotonic()
            for name in _due(self._restart_times, now):
                self._restart(name)
            for name in _due(self._start_deadlines, now):
                self._fail_start(name, self._launcher.handles[name].not_ready())
            if now >= self._next_question:
                self._next_question = now + self._question_seconds
                self._ask_all(now)

    def _handle_output(self, handle: WorkerHandle) -> None:
        if handle.name in self._start_deadlines:
            self._handle_start(handle)
        elif (reports := handle.read_reports()) is None:
            self._forget(handle.name)
            self._schedule_restart(handle, describe_end(handle.process.returncode))
        else:
            self._unanswered.pop(handle.name, None)
            for report in reports:
                if report.get("event") == "reloaded":
                    self._report_reload(handle.name, report)

    def _report_reload(self, name: str, report: Mapping[str, Any]) -> None:
        if "error" in report:
            self._notice(f"worker {name} changed nothing: {report['error']}")
        else:
            self._notice(f"worker {name} has read its inventory again: {report.get('done')}")

    def _reload(self) -> None:
        """Read the inventory again: start and stop workers as it says, and have the others read it too."""
        os.read(self._wakeups[0], _PIPE_BYTES)
        if self._terminal is not None and not os.isatty(self._terminal):
            raise _Stopped  # the terminal that this runs at was closed
        self._manager.report_reloading()
        try:
            names = load_inventory(self._environment).topology.workers
        except NfcliError as error:
            self._notice(f"nothing was changed: {error}")
            return
        finally:
            self._manager.report_ready("running")
        known = [*self._launcher.handles, *self._restart_times]
        self._launcher.names = list(names)
        for name in known:
            if name not in names:
                self._restart_times.pop(name, None)
                if name in self._launcher.handles:
                    self._forget(name)
                self._notice(f"worker {name} was stopped: the inventory no longer runs it on this machine")
            elif name in self._start_deadlines:
                self._outdated.add(name)  # it may have read the inventory as it was before
            elif name in self._launcher.handles:
                self._launcher.handles[name].process.send_signal(signal.SIGHUP)
        self._restart_times |= dict.fromkeys([name for name in names if name not in known], time.monotonic())

    def _handle_start(self, handle: WorkerHandle) -> None:
        """Read what a worker that is starting reports."""
        try:
            if not handle.take_start_report():
                return
        except WorkerStartError as error:
            self._fail_start(handle.name, error)
            return
        if handle.foreign_service is None:
            del self._start_deadlines[handle.name]
            self._launcher.report_warnings(handle)
            self._report_ready(handle)
            if handle.name in self._outdated:
                self._outdated.discard(handle.name)
                handle.process.send_signal(signal.SIGHUP)
        else:
            self._forget(handle.name)
            self._launcher.exclude(handle.name, handle.foreign_service)

    def _ask_all(self, now: float) -> None:
        """Ask the workers that are ready whether they are alive; kill those that have not answered for too long."""
        for name, handle in list(self._launcher.handles.items()):
            if name in self._start_deadlines:
                continue
            if now - self._unanswered.setdefault(name, now) >= self._hang_seconds:
                handle.kill()
                self._forget(name)
                self._schedule_restart(handle, f"has not answered for {self._hang_seconds:g} s and was killed")
            else:
                handle.ask()

    def _forget(self, name: str) -> None:
        """Stop a worker, unless it has ended, and no longer watch it."""
        handle = self._launcher.handles[name]
        for descriptor in [fd for fd, key in self._selector.get_map().items() if key.data is handle]:
            self._selector.unregister(descriptor)
        self._launcher.discard(name)
        self._start_deadlines.pop(name, None)
        self._outdated.discard(name)
        self._unanswered.pop(name, None)

    def _fail_start(self, name: str, error: WorkerStartError) -> None:
        self._forget(name)
        self._schedule(name, f"could not be restarted ({error})")

    def _schedule_restart(self, handle: WorkerHandle, reason: str) -> None:
        if time.monotonic() - handle.started > HEALTHY_SECONDS:
            self._backoffs.pop(handle.name, None)
        self._schedule(handle.name, reason)

    def _schedule(self, name: str, reason: str) -> None:
        backoff = min(MAX_BACKOFF_SECONDS, self._backoffs.get(name, 0.0) * 2 or self._first_backoff)
        self._backoffs[name] = backoff
        self._restart_times[name] = time.monotonic() + backoff
        self._notice(f"worker {name} {reason}: restart in {backoff:g} s")

    def _restart(self, name: str) -> None:
        """Start a worker's process again; its report comes later."""
        try:
            handle = self._launcher.spawn(name)
        except NfcliError as error:
            self._schedule(name, f"could not be restarted ({error})")
            return
        self._launcher.handles[name] = handle
        self._selector.register(handle.stdout_descriptor(), selectors.EVENT_READ, handle)
        self._start_deadlines[name] = time.monotonic() + READY_SECONDS


def _due(times: dict[str, float], now: float) -> list[str]:
    """Remove and return the names whose time has come."""
    due = [name for name, moment in times.items() if moment <= now]
    for name in due:
        del times[name]
    return due
