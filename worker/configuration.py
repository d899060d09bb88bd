"""What a worker process is told to be: its inventory, which may lie at a broker, and the broker that it joins."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.environment.paths import Environment
from ..models.errors import InventoryError
from ..models.inventory.loader import load_inventory
from ..models.inventory.schema import WorkerInventory
from ..models.protocol.broker_connection import BrokerAddress
from .fabric.inventory import fetch_inventory, read_inventory


@dataclass(frozen=True)
class Configuration:
    """One worker's; `broker` None: clients reach it directly."""

    inventory: WorkerInventory
    broker: BrokerAddress | None = None


def find_configuration(environment: Environment, name: str) -> Configuration | str:
    """Return a worker's configuration, or the name of its service if the broker says that it isn't one of ours.

    Takes up to 10 s where the broker has the inventory and isn't there. Writes nothing.

    Raises:
        InventoryError: the environment's inventory, or the broker's, can't be had, breaks the schema, or lacks this
            worker; or the broker's public key isn't known.
    """
    inventory = load_inventory(environment)
    broker = None if inventory.broker is None else BrokerAddress.find(environment, inventory.broker)
    if broker is not None and name in inventory.remote_workers:
        found = read_inventory(broker, name, fetch_inventory(broker, name))
        return found if isinstance(found, str) else Configuration(found, broker)
    if name not in inventory.workers:
        known = ", ".join(sorted(inventory.workers)) or "none"
        raise InventoryError(f"worker {name} is not in the inventory of {environment.folder}: it has {known}")
    return Configuration(inventory.workers[name], broker)
