"""The context that the worker's own tasks get: what plugins see, and the parts of the worker."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ...models.protocol.jobs import Result, ResultFormat
from .channels.base import NO_CHANNEL, Channel
from .context import WorkerContext
from .reach import TaskReach

if TYPE_CHECKING:
    import threading

    from ...models.certificates.summary import CertificateSummary
    from ...models.environment.fleet_key import FleetKey
    from ...models.environment.paths import Environment
    from ...models.protocol.broker_connection import BrokerAddress
    from ..audit.actor import Actor
    from ..audit.trail import AuditTrail
    from ..fabric.client import FabricClient
    from ..tokens.store import TokenStore
    from ..tokens.transfers import Transfers
    from ..tools.catalogue import ToolCatalogue
    from ..tools.definitions import PublishedTool
    from ..tools.discovery import Discovery
    from ..tools.policy import ToolAccess, ToolUser
    from ..watchdog import MemoryWatchdog
    from .history import JobHistory
    from .task import TaskRegistry


def _no_user(_access: ToolAccess) -> bool:
    """Stand for `may_use` where no user of an MCP client is known."""
    return True


@dataclass(kw_only=True)
class TaskContext(WorkerContext):
    """One worker's parts; `worker.py` makes it, and each job of a task that isn't run inline gets a copy.

    `clock` and `started` are seconds since the epoch. `broker` and `discovery` are None in direct mode. `client` is the
    client that sent the job, in audited tasks, and `client_key` what `jobs`, the worker's history, tells it apart by;
    `timeout` are the seconds that the job may take, None where its client doesn't say; `issued` is when it made the
    job, by its clock, None where it doesn't say; `result_format` is what it requests of the result, which tasks that
    list times or pages consider. `is_relayed`: an MCP client runs the task, or another worker, which may run it for
    one; `may_use`: whether the user of that client may use a tool. `url` is the MCP endpoint, `endpoint` that of
    ZeroMQ, set once it is bound or connected, `metrics_url` that of the metrics, None without them. `counters` has
    functions that return the counts of `jobs`, `messaging`, `http` and `mcp`. `certificate` returns what is known of
    the MCP server's certificate, None without TLS. `watchdog` checks the memory of the process. `fabric` sends jobs to
    other services, None in direct mode; `depth` is how many jobs led to this one, and `seconds_left` returns for how
    long its client still waits.
    """

    environment: Environment
    fleet_key: FleetKey
    registry: TaskRegistry
    store: TokenStore
    audit: AuditTrail
    catalogue: ToolCatalogue
    transfers: Transfers
    clock: Callable[[], float]
    started: float
    broker: BrokerAddress | None = None
    discovery: Discovery | None = None
    client: Actor | str = ""
    client_key: str = ""
    timeout: float | None = None
    jobs: JobHistory | None = None
    issued: float | None = None
    is_relayed: bool = False
    may_use: Callable[[ToolAccess], bool] = _no_user
    result_format: ResultFormat = field(default_factory=ResultFormat)
    url: str = ""
    endpoint: str = ""
    metrics_url: str | None = None
    counters: dict[str, Callable[[], dict[str, int]]] = field(default_factory=dict)
    certificate: Callable[[], CertificateSummary | None] = lambda: None
    watchdog: MemoryWatchdog | None = None
    fabric: FabricClient | None = None
    depth: int = 0
    seconds_left: Callable[[], float] = lambda: math.inf

    def run_tool(
        self,
        task: str,
        arguments: dict[str, Any],
        user: ToolUser | None,
        cancelled: threading.Event,
        channel: Channel = NO_CHANNEL,
    ) -> Result:
        """Run a task for an MCP client as `TaskRegistry.run` does; `user` is None without authentication."""

        def may_use(access: ToolAccess) -> bool:
            return access.allows(user)

        context = replace(self, is_relayed=True, may_use=may_use, cancelled=cancelled, channel=channel)
        return self.registry.run(context, task, arguments)

    def for_plugin(self) -> WorkerContext:
        """Return the part of this context that plugins are promised."""
        promised = {each.name: getattr(self, each.name) for each in fields(WorkerContext)}
        return WorkerContext(**{**promised, "reach": TaskReach(self)})

    def deeper(self) -> TaskContext:
        """Return the context of a task that this one runs."""
        return replace(self, depth=self.depth + 1)

    def find_tool(self, name: str) -> PublishedTool | None:
        """Return the tool of this name that the MCP client could call for which the task is run, None without one.

        Where another worker has sent the job, the user isn't known: then it must be a tool that everybody may use.
        """
        tool = self.catalogue.tools.get(name)
        if tool is None:
            return None
        access = tool.access
        is_for_all = access.default and not access.rules
        may_use = is_for_all if self.may_use is _no_user else self.may_use(access)
        return tool if may_use else None
