"""A worker that serves metrics, in this process, and what is read from it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.configuration.loading import Configuration
from nfcli.worker.worker import Worker
from support.mcp.served_worker import McpAddress

WAIT_SECONDS = 10.0


class MeasuredWorker(McpAddress):
    """A worker in a thread; `metrics` is the address of its metrics."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.url = worker.context.url
        self.metrics = McpAddress()
        self.metrics.url = worker.context.metrics_url or ""

    def scrape(self, *headers: str) -> str:
        """Return the metrics as text."""
        status, _, body = self.metrics.get(urlsplit(self.metrics.url).path, *headers)
        assert status == 200
        return body.decode()

    def samples(self) -> dict[tuple[str, ...], float]:
        """Return the value of each time series by its name and the values of its labels."""
        families = text_string_to_metric_families(self.scrape())
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


@contextmanager
def measured_worker(folder: Path, **settings: Any) -> Iterator[MeasuredWorker]:
    """Run a worker with authentication and metrics on free ports; `settings` are further keys of its inventory."""
    environment = Environment(folder, None)
    environment.prepare()
    configured = {"service": "fastmcp", "port": 0, "authentication_enabled": True, "metrics": {"port": 0}, **settings}
    inventory = WorkerInventory.model_validate(configured)
    worker = Worker(environment, DEFAULT_WORKER, Configuration(inventory, None), stop_deadline_seconds=None)
    worker.start()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(worker.serve(),))
    thread.start()
    try:
        yield MeasuredWorker(worker)
    finally:
        loop.call_soon_threadsafe(worker.request_stop)
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
        loop.close()
        worker.close()
