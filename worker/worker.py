"""The composition root: opens and closes the parts of a worker in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime

from ..models.environment.curve_keys import ensure_audit_key, ensure_key_pair
from ..models.environment.file_lock import FileLock
from ..models.environment.paths import Environment
from ..models.environment.worker_lease import wait_until_unused
from ..models.environment.worker_lock import WorkerLock
from ..models.errors import EXIT_FAILED, EXIT_OK, NfcliError
from ..models.inventory.schema import WorkerInventory
from ..models.protocol.broker_connection import BrokerAddress
from .audit.trail import AuditTrail
from .http.server import HttpServer, check_exposure
from .jobs.context import WorkerContext
from .jobs.plugins import add_plugins
from .jobs.task import TaskRegistry
from .mcp.app import build_app
from .other_services import OtherServices
from .serving import open_server
from .tasks import audit, auth, backup, health, introspection, token_import, tools
from .tokens.store import TokenStore

log = logging.getLogger(__name__)

TASK_MODULES = (audit, auth, backup, health, introspection, token_import, tools)
STOP_DEADLINE_SECONDS = 4.5
SWEEP_SECONDS = 1.0
SWEEP_AGAIN_SECONDS = 10.0


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
        self._unneeded: FileLock | None = None

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
        trail = self._opened.enter_context(AuditTrail.open(self.environment.audit_file(self.name), key))
        store = self._opened.enter_context(TokenStore.open(self.environment.tokens_folder(self.name)))
        worker = WorkerContext(
            name=self.name,
            service=inventory.service,
            environment=self.environment,
            inventory=inventory,
            registry=registry,
            store=store,
            audit=trail,
            broker=self.broker,
        )
        self.worker = worker
        backup.remove_transfers(worker)
        self._opened.callback(backup.remove_transfers, worker)
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

    def wait_until_unused(self) -> None:
        """Wait until the shell that started this worker has gone, and all others that need it; keep new ones away."""
        _wait_for_end_of_stdin()
        try:
            self._unneeded = wait_until_unused(self.environment.lock_file(self.name))
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
            self.worker.transfers.expire()
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
