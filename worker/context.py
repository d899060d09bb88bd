"""What a running worker hands to its tasks and to its MCP server: no globals, no registry in `builtins`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..models.environment import Environment
from ..models.inventory import WorkerInventory
from .transfers import Transfers

if TYPE_CHECKING:
    from .audit import AuditTrail
    from .discovery import Discovery
    from .tasks import TaskRegistry
    from .token_store import TokenStore


class FabricJobs(Protocol):
    """Runs jobs on the workers of other services of a fabric."""

    async def run_job(
        self,
        service: str,
        task: str,
        kwargs: dict[str, Any],
        *,
        timeout: float,  # noqa: ASYNC109  the broker's side is told, and what came until then is handed over
    ) -> dict[str, dict[str, Any]]:
        """Run a task on all workers of a service and return `{worker: Result}`; `timeout` is in seconds.

        Raises:
            NfcliError: it can't be run at all; what single workers do wrong stands in their results.
        """


def _say_nothing(_message: str) -> None:
    """Tell nobody: there is no job, or nobody who could be told."""


@dataclass
class WorkerContext:
    """One worker: who it is, what it is configured to do and the parts its tasks may use.

    Each job of a task that isn't quick has a context of its own. `client` is the name of the client that sent it, in
    tasks that the audit trail tells of; else empty. `uuid` is the job's name. `progress` tells the client how far the
    job is, in one line of at most 1,000 characters; it may be called from any thread and as often as one likes: more
    than some ten lines a second are left out, and after the job's end, in quick tasks and in calls of MCP clients it
    does nothing.
    `url` (MCP endpoint, `http://host:port/mcp`) and `endpoint` (ZeroMQ) are filled in once the sockets are bound.
    `clock` gives seconds since the epoch. `stopping` is set when the process is asked to end. `health` maps a part's
    name to a function that returns counters for `get_stats`. `transfers` are the backup and the restore under way.
    `fabric` and `discovery` reach the other services of the fabric; without a broker there are none.
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
    clock: Callable[[], float] = time.time
    started: float = field(default_factory=time.time)
    stopping: threading.Event = field(default_factory=threading.Event)
    health: dict[str, Callable[[], dict[str, int]]] = field(default_factory=dict)
    transfers: Transfers = field(default_factory=Transfers)
    fabric: FabricJobs | None = None
    discovery: Discovery | None = None
