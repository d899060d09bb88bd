"""The context that the worker's own tasks get: what plugins see, and the parts of the worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .context import WorkerContext

if TYPE_CHECKING:
    from ...models.environment.paths import Environment
    from ...models.protocol.broker_connection import BrokerAddress
    from ..audit.trail import AuditTrail
    from ..tokens.store import TokenStore
    from ..tokens.transfers import Transfers
    from ..tools.catalogue import ToolCatalogue
    from ..tools.discovery import Discovery
    from .task import TaskRegistry


@dataclass(kw_only=True)
class TaskContext(WorkerContext):
    """One worker's parts; `worker.py` makes it, and each job of a task that isn't run inline gets a copy.

    Attributes:
        environment: the folders that it keeps its files in.
        registry: its tasks.
        store: its tokens.
        audit: its audit trail.
        catalogue: the tools and prompts that MCP clients see.
        transfers: the backup and the restore in progress.
        clock: returns seconds since the epoch.
        started: when the worker was started, by `clock`.
        broker: the broker that it joins; None in direct mode.
        discovery: finds the other services of the fabric; None in direct mode.
        client: name of the client that sent the job, in audited tasks; else empty.
        url: MCP endpoint, `http://host:port/mcp`.
        endpoint: ZeroMQ endpoint, the broker's where there is one; set once it is bound or connected.
        counters: functions that return the counts of a part, by its name: `jobs` and `messaging`.
    """

    environment: Environment
    registry: TaskRegistry
    store: TokenStore
    audit: AuditTrail
    catalogue: ToolCatalogue
    transfers: Transfers
    clock: Callable[[], float]
    started: float
    broker: BrokerAddress | None = None
    discovery: Discovery | None = None
    client: str = ""
    url: str = ""
    endpoint: str = ""
    counters: dict[str, Callable[[], dict[str, int]]] = field(default_factory=dict)

    def for_plugin(self) -> WorkerContext:
        """Return the part of this context that plugins are promised."""
        return WorkerContext(
            name=self.name,
            service=self.service,
            inventory=self.inventory,
            stopping=self.stopping,
            uuid=self.uuid,
            progress=self.progress,
        )
