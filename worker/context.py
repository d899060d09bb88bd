"""What a running worker hands to its tasks and to its MCP server: no globals, no registry in `builtins`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..models.broker_link import BrokerAddress
from ..models.environment import Environment
from ..models.inventory import WorkerInventory
from .transfers import Transfers

if TYPE_CHECKING:
    from .audit import AuditTrail
    from .tasks import TaskRegistry
    from .token_store import TokenStore


@dataclass
class WorkerContext:
    """One worker: who it is, what it is configured to do and the parts its tasks may use.

    `client` is the name of the client whose job is run, in tasks that the audit trail tells of; else empty.
    `url` (MCP endpoint, `http://host:port/mcp`) and `endpoint` (ZeroMQ) are filled in once the sockets are bound.
    `broker` is the NorFab broker that it joins, whose endpoint is then its own; None: clients reach it directly.
    `clock` gives seconds since the epoch. `stopping` is set when the process is asked to end. `health` maps a part's
    name to a function that returns counters for `get_stats`. `transfers` are the backup and the restore under way.
    """

    name: str
    service: str
    environment: Environment
    inventory: WorkerInventory
    registry: TaskRegistry
    store: TokenStore
    audit: AuditTrail
    client: str = ""
    url: str = ""
    endpoint: str = ""
    broker: BrokerAddress | None = None
    clock: Callable[[], float] = time.time
    started: float = field(default_factory=time.time)
    stopping: threading.Event = field(default_factory=threading.Event)
    health: dict[str, Callable[[], dict[str, int]]] = field(default_factory=dict)
    transfers: Transfers = field(default_factory=Transfers)
