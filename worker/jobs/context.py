"""What a running worker hands to its tasks and to its MCP server: no globals, no registry in `builtins`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...models.environment.paths import Environment
from ...models.inventory.schema import WorkerInventory
from ..tokens.transfers import Transfers

if TYPE_CHECKING:
    from ...models.protocol.broker_connection import BrokerAddress
    from ..audit.trail import AuditTrail
    from ..tokens.store import TokenStore
    from ..tools.catalogue import ToolCatalogue
    from ..tools.discovery import Discovery
    from .task import TaskRegistry


def _say_nothing(_message: str) -> None:
    """Tell nobody: there is no job, or nobody who could be told."""


class FabricJobs(Protocol):
    """The way to the workers of other services."""

    async def run_job(
        self,
        service: str,
        task: str,
        kwargs: dict[str, Any],
        *,
        timeout: float,  # noqa: ASYNC109  the job's
    ) -> dict[str, dict[str, Any]]:
        """Run a task on all workers of a service; return `{worker: Result}`, failed ones included.

        Args:
            service: whose task it is.
            task: its name.
            kwargs: its arguments.
            timeout: seconds that the job may take.

        Raises:
            NfcliError: there is no answer at all; one line says why.
        """


@dataclass
class WorkerContext:
    """One worker: who it is, what it is configured to do and the parts its tasks may use.

    Each job of a task that isn't quick has a context of its own. `client` is the name of the client that sent it, in
    tasks that the audit trail tells of; else empty. `uuid` is the job's name. `progress` tells the client how far the
    job is, in one line of at most 1,000 characters; it may be called from any thread and as often as one likes: more
    than some ten lines a second are left out, and after the job's end, in quick tasks and in calls of MCP clients it
    does nothing.
    `url` (MCP endpoint, `http://host:port/mcp`) and `endpoint` (ZeroMQ) are filled in once the sockets are bound.
    `broker` is the NorFab broker that it joins, whose endpoint is then its own; None: clients reach it directly.
    `clock` gives seconds since the epoch. `stopping` is set when the process is asked to end. `health` maps a part's
    name to a function that returns counters for `get_stats`. `transfers` are the backup and the restore under way.
    `fabric` and `discovery` reach the other services of the fabric; without a broker there are none, and then no other
    service's tools are published. `catalogue` is what MCP clients see; unless given it is made of the registry's tasks.
    """

    name: str
    service: str
    environment: Environment
    inventory: WorkerInventory
    registry: TaskRegistry
    store: TokenStore
    audit: AuditTrail
    client: str = ""
    uuid: str = ""
    progress: Callable[[str], None] = _say_nothing
    url: str = ""
    endpoint: str = ""
    broker: BrokerAddress | None = None
    clock: Callable[[], float] = time.time
    started: float = field(default_factory=time.time)
    stopping: threading.Event = field(default_factory=threading.Event)
    health: dict[str, Callable[[], dict[str, int]]] = field(default_factory=dict)
    transfers: Transfers = field(default_factory=Transfers)
    fabric: FabricJobs | None = None
    discovery: Discovery | None = None
    catalogue: ToolCatalogue = field(default=None)  # type: ignore[assignment]  # from here on it is one

    def __post_init__(self) -> None:
        """Make the catalogue, unless this is a copy that has one."""
        if self.catalogue is None:
            # Plugins import this module, also where they aren't run: the catalogue takes 0.3 s more.
            from ..tools.catalogue import ToolCatalogue  # noqa: PLC0415
            from ..tools.policy import ToolRules  # noqa: PLC0415

            own = (spec.entry() for spec in self.registry)
            self.catalogue = ToolCatalogue(self.name, self.service, own, ToolRules(self.inventory.tools))
