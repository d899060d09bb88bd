"""The context of a worker without sockets, for tests that run tasks."""

from __future__ import annotations

import threading
import time
from typing import Any

from nfcli.models.environment.fleet_key import FleetKey
from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.jobs.task_context import TaskContext
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.tokens.transfers import Transfers
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy


def task_context(
    environment: Environment, registry: TaskRegistry, store: TokenStore, audit: AuditTrail, **fields: Any
) -> TaskContext:
    """Return the context of a worker of service `fastmcp`, named `w1` unless `fields` say otherwise."""
    defaults: dict[str, Any] = {
        "name": "w1",
        "service": "fastmcp",
        "inventory": WorkerInventory(service="fastmcp"),
        "stopping": threading.Event(),
        "fleet_key": FleetKey(bytes(32)),
        "transfers": Transfers(environment.run_folder, "w1"),
        "clock": time.time,
        "started": time.time(),
    }
    fields = {**defaults, **fields}
    if "catalogue" not in fields:
        own = [spec.entry() for spec in registry]
        policy = ToolPolicy(fields["inventory"].tools)
        fields["catalogue"] = ToolCatalogue(fields["name"], fields["service"], own, policy)
    return TaskContext(environment=environment, registry=registry, store=store, audit=audit, **fields)
