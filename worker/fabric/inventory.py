"""Fetch a worker's inventory from the broker, which merges it from its own `workers:`, before the worker starts.

The values are final: environment variables in them are not expanded. If there is no inventory, NorFab's worker starts
with defaults (all interfaces, no authentication); this one doesn't start.
"""

from __future__ import annotations

import time
from typing import Any

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.errors import InventoryError, NoWorkersError
from ...models.inventory.loader import parse_worker
from ...models.inventory.merging import Merged
from ...models.inventory.schema import WorkerInventory, is_other_service
from ...models.inventory.types import kind_of
from ...models.protocol.broker_connection import ANSWER_SECONDS, BrokerAddress, BrokerConnection, random_routing_id
from ...models.protocol.broker_replies import INVENTORY_SERVICE

FETCH_SECONDS = 10.0
"""How long to wait for the broker and its answer."""


def fetch_inventory(address: BrokerAddress, name: str, *, seconds: float = FETCH_SECONDS) -> dict[str, Any]:
    """Return the broker's inventory of a worker; repeats the request until it is answered.

    Raises:
        InventoryError: the broker doesn't answer in time, or has no inventory of this name.
    """
    value = _request(address, name, seconds)
    if value is None or value == {}:
        raise InventoryError(
            f"{_at(address)} has no inventory of worker {name}: add it there under workers, or to the inventory here"
        )
    if not isinstance(value, dict):
        raise InventoryError(f"{_at(address)}: workers.{name}: must be a mapping, got {kind_of(value)}")
    return value


def read_inventory(address: BrokerAddress, name: str, data: dict[str, Any]) -> WorkerInventory | str:
    """Return a worker's configuration, or the name of its service if that is another than ours.

    Raises:
        InventoryError: it breaks the schema; the message names the broker and the key path there.
    """
    service = data.get("service")
    if is_other_service(service):
        return service
    return parse_worker(Merged(data), _at(address), name)


def _request(address: BrokerAddress, name: str, seconds: float) -> Any:
    deadline, reason = time.monotonic() + seconds, ""
    with zmq.Context() as context:
        # The worker's own key pair is created later, once it is certain that it runs here; the broker accepts any.
        keys = KeyPair(*zmq.curve_keypair())
        while (left := deadline - time.monotonic()) > 0:
            connection = BrokerConnection(context, address, name=random_routing_id(name), keys=keys)
            try:
                return connection.request(
                    "get_inventory", service=INVENTORY_SERVICE, seconds=min(left, ANSWER_SECONDS), name=name
                )
            except NoWorkersError as error:
                reason = str(error)
            finally:
                connection.close()
    raise InventoryError(
        f"worker {name}: its inventory is at the broker, and could not be fetched within {seconds:g} s: {reason}"
    )


def _at(address: BrokerAddress) -> str:
    return f"the broker at {address.endpoint}"
