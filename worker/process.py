"""The worker process in three phases: `start` opens everything in order, `serve` waits, `stop` closes it again.

On stdout comes one JSON line: `{"event": "ready", …}` with the bound addresses, `{"event": "failed", …}` with the
reason and the exit status, or `{"event": "skipped", …}` with the service of a worker that, as the broker says, isn't
one of ours. Everything else goes to the log.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ..models.broker_link import BrokerAddress
from ..models.environment import Environment, find_environment
from ..models.errors import EXIT_FAILED, EXIT_OK, NfcliError
from ..models.inventory import WorkerInventory
from ..models.keys import ensure_audit_key, ensure_key_pair
from ..models.lock import WorkerLock
from ..models.need import wait_until_unneeded
from . import (
    audit_tasks,
    auth_tasks,
    backup_tasks,
    check,
    discovery_tasks,
    import_tasks,
    service_tasks,
    tool_tasks,
)
from .audit import AuditTrail
from .configuration import find_configuration
from .context import WorkerContext
from .http import HttpServer, check_exposure, new_event_loop
from .logs import configure_logging
from .mcp_server import build_app
from .other_services import OtherServices
from .plugins import add_plugins
from .serving import open_server
from .tasks import TaskRegistry
from .token_store import TokenStore

log = logging.getLogger(__name__)

TASK_MODULES = (
    *(auth_tasks, service_tasks, audit_tasks, backup_tasks, import_tasks, check, tool_tasks),
    discovery_tasks,
)
STOP_DEADLINE_SECONDS = 4.5
SWEEP_SECONDS = 1.0
SWEEP_AGAIN_SECONDS = 10.0

_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES = -3, 128 * 1024  # malloc.h of glibc; bytes: its own first value


class WorkerProcess:
    """One worker: the token database, the MCP server and the ZeroMQ server, and the order they open and close in.

    With a `broker` jobs come from there; without, clients reach the worker directly.
    """

    def __init__(
        self, environment: Environment, name: str, inventory: WorkerInventory, broker: BrokerAddress | None = None
    ) -> None:
        self.environment = environment
        self.name = name
        self.inventory = inventory
        self.broker = broker
        self._opened = ExitStack()
        self._stop_asked = asyncio.Event()
        self._exit_status = EXIT_OK
        self._unneeded: IO[bytes] | None = None

    def start(self) -> dict[str, object]:
        """Open configuration, lock, plugins, token store, HTTP socket, ZeroMQ socket; return what *ready* announces.

        Raises:
            NfcliError: one of them can't be had; what was open is closed again.
        """
        try:
            return self._open()
        except BaseException:
            self._opened.close()
            raise

    def _open(self) -> dict[str, object]:
        inventory = self.inventory
        check_exposure(inventory)
        lock = WorkerLock.acquire(self.environment.lock_file(self.name))
        self._opened.callback(lock.release)
        registry = TaskRegistry(*TASK_MODULES)
        add_plugins(registry, inventory.plugins, self.environment.folder)
        key = ensure_audit_key(self.environment.audit_key_file(self.name))
        audit = self._opened.enter_context(AuditTrail.open(self.environment.audit_file(self.name), key))
        store = self._opened.enter_context(TokenStore.open(self.environment.tokens_folder(self.name)))
        worker = WorkerContext(
            name=self.name,
            service=inventory.service,
            environment=self.environment,
            inventory=inventory,
            registry=registry,
            store=store,
            audit=audit,
            broker=self.broker,
        )
        self.worker = worker
        backup_tasks.remove_transfers(worker)
        self._opened.callback(backup_tasks.remove_transfers, worker)
        others = self._others(worker)
        app = build_app(worker)
        self.http = HttpServer(app, inventory, on_stop=app.end_streams)
        worker.url = self.http.bind()
        self._opened.callback(self.http.close)
        self.executor, self.server = open_server(worker)
        self._opened.callback(self.server.stop)
        self.executor.start()
        self.server.start()  # from here on jobs come
        if others is not None:
            others.start()
        lock.publish(
            ready=True,
            endpoint=worker.endpoint,
            url=worker.url,
            started=datetime.fromtimestamp(worker.started, UTC).isoformat(),
        )
        return {"event": "ready", "name": self.name, "url": worker.url, "endpoint": worker.endpoint, "pid": os.getpid()}

    def _others(self, worker: WorkerContext) -> OtherServices | None:
        """Return the way to the other services of the fabric, if there is one."""
        if worker.broker is None:
            return None
        keys = ensure_key_pair(self.environment.keys_folder, self.name)
        others = OtherServices(worker, worker.broker, keys)
        self._opened.callback(others.stop)
        return others

    async def serve(self) -> int:
        """Serve until a signal, the end of the parent, or the death of a part; return the exit status."""
        http = asyncio.create_task(self.http.serve())
        http.add_done_callback(self._http_ended)
        sweep = asyncio.create_task(self._sweep())
        _call_after(self.server.wait, self._server_ended)
        await self._stop_asked.wait()
        sweep.cancel()
        await self._stop(http)
        return self._exit_status

    async def _stop(self, http: asyncio.Task[None]) -> None:
        _exit_anyway_after(STOP_DEADLINE_SECONDS, self._exit_status)
        log.info("stopping")
        http.remove_done_callback(self._http_ended)
        await asyncio.gather(asyncio.to_thread(self.executor.stop), self.http.stop(), return_exceptions=True)
        http.cancel()
        await asyncio.gather(http, return_exceptions=True)

    def close(self) -> None:
        """Close sockets, store and lock, in the opposite order of opening."""
        self._opened.close()
        log.info("stopped")

    def wait_until_unneeded(self) -> None:
        """Wait until the shell that started this worker has gone, and all others that need it; keep new ones away."""
        _wait_for_end_of_stdin()
        try:
            self._unneeded = wait_until_unneeded(self.environment.lock_file(self.name))
        except (OSError, NfcliError) as error:
            log.warning("who needs this worker can't be told: %s", error)

    def ask_to_stop(self) -> None:
        """End `serve`; from the loop's thread."""
        self._stop_asked.set()

    def _fail(self, reason: str) -> None:
        log.critical("%s: the worker ends", reason)
        self._exit_status = EXIT_FAILED
        self.ask_to_stop()

    def _http_ended(self, _task: asyncio.Task[None]) -> None:
        if not self._stop_asked.is_set():
            self._fail("the HTTP server ended by itself")

    def _server_ended(self) -> None:
        if not self._stop_asked.is_set():
            self._fail("the ZeroMQ thread ended by itself")

    async def _sweep(self) -> None:
        """Remove expired tokens from disk soon: a clock set back and a crash must not bring them back."""
        seconds = SWEEP_SECONDS
        while True:
            await asyncio.sleep(seconds)
            seconds = SWEEP_SECONDS
            self.worker.transfers.drop_left()
            if not self.worker.store.has_expired():
                continue
            try:
                await asyncio.to_thread(self.worker.store.sweep)
            except NfcliError as error:
                log.warning("expired tokens were not swept: %s", error)
                seconds = SWEEP_AGAIN_SECONDS


def _exit_anyway_after(seconds: float, status: int) -> None:
    """Bound the stop, whatever hangs: a stuck disk must not keep a service manager waiting."""
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()


def _call_after(wait: Callable[[], None], then: Callable[[], None]) -> None:
    """Run `wait` in a thread of its own, which never delays the end, and `then` on this loop."""
    loop = asyncio.get_running_loop()

    def run() -> None:
        wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: everything has ended
            loop.call_soon_threadsafe(then)

    threading.Thread(target=run, name="watch", daemon=True).start()


def _wait_for_end_of_stdin() -> None:
    """Wait until whoever holds the other end has gone, even if it was killed."""
    while os.read(0, 4096):
        pass


def _end_to_wait_for(process: WorkerProcess, arguments: argparse.Namespace) -> Callable[[], None] | None:
    if arguments.while_needed:
        return process.wait_until_unneeded
    return _wait_for_end_of_stdin if arguments.until_stdin_ends else None


async def _main(
    process: WorkerProcess, ready: dict[str, object], stdout: IO[str], until: Callable[[], None] | None
) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.ask_to_stop)
    _say(stdout, **ready)
    log.info("ready at %s and %s", process.worker.url, process.worker.endpoint)
    if until is not None:
        _call_after(until, process.ask_to_stop)
    return await process.serve()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nfcli.worker", description="Run one nfcli worker.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--environment", type=Path, help="folder of the environment")
    where.add_argument("--inventory", type=Path, help="inventory file, where it isn't named inventory.yaml")
    parser.add_argument("--name", required=True, help="name of the worker in the inventory")
    parser.add_argument("--log-level", default="INFO", help="level of the log")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--until-stdin-ends", action="store_true", help="stop when stdin is closed")
    until.add_argument(
        "--while-needed", action="store_true", help="stop when stdin is closed and no shell needs the worker any more"
    )
    return parser.parse_args(argv)


def _environment(arguments: argparse.Namespace) -> Environment:
    if arguments.environment is None:
        return find_environment(arguments.inventory)
    folder = arguments.environment.resolve()
    file = folder / "inventory.yaml"
    return Environment(folder, file if file.exists() else None)


def _say(stdout: IO[str], **line: object) -> None:
    stdout.write(json.dumps(line) + "\n")
    stdout.flush()


def _keep_stdout() -> IO[str]:
    """Return stdout for our own line; what plugins print, and programs that they start, goes where errors go.

    Whoever started us reads that one line, and after it only looks for the end of it all.
    """
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to stop; return the exit status."""
    arguments = _arguments(argv)
    stdout: IO[str] = sys.stdout
    os.umask(0o077)
    _give_memory_back()
    # Until the log is open, logging would print what is said there on stderr, beside the one line that we print.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        environment = _environment(arguments)
        found = find_configuration(environment, arguments.name)
        if isinstance(found, str):
            _say(stdout, event="skipped", name=arguments.name, service=found)
            return EXIT_OK
        environment.prepare()
        configure_logging(environment.log_file(arguments.name), arguments.log_level, console=False)
        if found.inventory.plugins:
            stdout = _keep_stdout()
        process = WorkerProcess(environment, arguments.name, found.inventory, found.broker)
        ready = process.start()
        # What is there now stays: looking through it again and again takes a tenth of the time of MCP requests.
        gc.collect()
        gc.freeze()
    except NfcliError as error:
        return _start_failed(stdout, arguments.name, str(error), error.exit_status)
    except Exception as error:
        log.exception("the start failed")
        return _start_failed(stdout, arguments.name, f"internal error at start: {type(error).__name__}", EXIT_FAILED)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_main(process, ready, stdout, _end_to_wait_for(process, arguments)))
    finally:
        process.close()


def _give_memory_back() -> None:
    """Let large blocks go back to the system as soon as they are free.

    glibc raises its threshold for that with each such block: some listings of 100,000 tokens would leave 130 MB behind.
    """
    with contextlib.suppress(AttributeError, OSError):  # other libraries have no such call, and no such habit
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def _start_failed(stdout: IO[str], name: str, reason: str, status: int) -> int:
    log.critical("not started: %s", reason)
    _say(stdout, event="failed", name=name, error=reason, exit_status=status)
    sys.stderr.write(f"{name}: {reason}\n")
    return status
