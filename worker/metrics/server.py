"""The metrics of a worker, and the server of them."""

from __future__ import annotations

from typing import Self

from prometheus_client import ProcessCollector
from starlette.types import ASGIApp

from ...models.inventory.schema import WorkerInventory
from ...models.inventory.sections.metrics import Metrics
from ..http.allowed_hosts import host_patterns
from ..http.listener import HttpListener
from ..http.server import HttpServer
from ..jobs.task_context import TaskContext
from .app import METRICS_PATH, CountingApp, MetricsApp
from .collector import WorkerCollector
from .meters import Meters

GRACE_SECONDS = 0.1


class MetricsServer:
    """Counts what a worker does, and serves it to Prometheus; open it with `MetricsServer.bind`.

    `meters` get what the worker's parts count, `url` is where they are read.
    """

    def __init__(self, listener: HttpListener, inventory: WorkerInventory) -> None:
        self.meters = Meters()
        self.url = listener.url.removesuffix("/mcp") + METRICS_PATH
        ProcessCollector(registry=self.meters.registry)
        self._listener = listener
        self._app = MetricsApp(self.meters.registry, host_patterns(inventory, self.url))
        self._http = HttpServer(self._app, listener)

    @classmethod
    def bind(cls, inventory: WorkerInventory, metrics: Metrics) -> Self:
        """Bind the address of a worker's metrics.

        Raises:
            WorkerStartError: the port is taken or not permitted, or the host is not an address of this machine.
        """
        return cls(HttpListener.bind_metrics(inventory, metrics), inventory)

    def watch(self, worker: TaskContext) -> None:
        """Measure the token store and the audit trail of a worker, and read its state with the metrics."""
        self.meters.registry.register(WorkerCollector(worker))
        worker.store.on_operation.append(self.meters.store_operation)
        worker.audit.on_append.append(self.meters.audit_write)

    def allow_hosts(self, inventory: WorkerInventory) -> None:
        """Accept the Host headers of another inventory from now on."""
        self._app.hosts = host_patterns(inventory, self.url)

    def counting(self, app: ASGIApp) -> ASGIApp:
        """Return an application that counts the responses of another one."""
        return CountingApp(app, self.meters.response)

    async def serve(self) -> None:
        """Serve until `stop`."""
        await self._http.serve()

    async def stop(self) -> None:
        """Close all connections, after a moment at the latest."""
        await self._http.stop(GRACE_SECONDS)

    def close(self) -> None:
        """Release the port. Safe to repeat."""
        self._listener.close()
