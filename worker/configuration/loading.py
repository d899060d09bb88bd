"""Load a worker's configuration, from the environment's inventory or from the broker."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.environment.paths import Environment
from ...models.errors import InventoryError
from ...models.inventory.loader import load_inventory
from ...models.inventory.schema import WorkerInventory
from ...models.protocol.broker_connection import BrokerAddress
from ..fabric.inventory import fetch_inventory, read_inventory


@dataclass(frozen=True)
class Configuration:
    """A worker's inventory, and the broker that it joins; None: clients connect to the worker itself."""

    inventory: WorkerInventory
    broker: BrokerAddress | None = None


def load_configuration(environment: Environment, name: str) -> Configuration | str:
    """Return a worker's configuration, or the name of its service where the broker's inventory names another one.

    Writes nothing. Takes up to 10 s where the broker keeps the inventory and doesn't answer.

    Raises:
        InventoryError: the inventory, the environment's or the broker's, isn't available, breaks the schema, or lacks
            this worker; or the broker's public key isn't known.
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
