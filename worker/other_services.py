"""A worker's way to the other services of its fabric: jobs that it sends them, and their tasks as tools of its own."""

from __future__ import annotations

from ..models.environment.curve_keys import KeyPair
from ..models.protocol.broker_connection import BrokerAddress
from .fabric.client import FabricClient
from .jobs.context import WorkerContext
from .tools.discovery import Discovery


class OtherServices:
    """What reaches them; made before the MCP app, which has to know that there are any, started when all is open.

    Args:
        worker: gets `fabric` and `discovery` at once, and counters in `health` at the start.
        address: the broker's.
        keys: the worker's CURVE pair.
    """

    def __init__(self, worker: WorkerContext, address: BrokerAddress, keys: KeyPair) -> None:
        self._worker = worker
        self._client = FabricClient(worker.name, address, keys)
        self._discovery = Discovery(worker.service, self._client, worker.catalogue)
        worker.fabric, worker.discovery = self._client, self._discovery

    def start(self) -> None:
        """Begin to look for them."""
        self._worker.health["fabric_jobs"] = self._client.counters
        self._client.start()
        self._discovery.start()

    def stop(self) -> None:
        """End all jobs at once, and the looking, within seconds; also before the start."""
        # The client first: it ends what discovery waits for.
        self._discovery.ask_to_stop()
        self._client.stop()
        self._discovery.stop()
