"""A worker's inventory that only the broker has: the broker's `workers:`, merged there, fetched before anything starts.

What comes are values: nothing in them is looked up in this machine's environment. NorFab's own worker goes on with
defaults of its own where it gets none, on all interfaces and without authentication; ours doesn't start.
"""

from __future__ import annotations

import time
from typing import Any

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.errors import InventoryError, NoWorkersError
from ...models.inventory.loader import parse_worker
from ...models.inventory.merging import Merged, Source
from ...models.inventory.schema import WorkerInventory
from ...models.inventory.service import is_other_service
from ...models.inventory.types import kind_of
from ...models.protocol.broker_connection import ANSWER_SECONDS, BrokerAddress, BrokerConnection, random_routing_id
from ...models.protocol.broker_replies import INVENTORY_SERVICE

FETCH_SECONDS = 10.0
"""How long the broker may take to come up and answer."""


def fetch_inventory(address: BrokerAddress, name: str, *, seconds: float = FETCH_SECONDS) -> dict[str, Any]:
    """Return what the broker says of a worker; asks again until it answers.

    Raises:
        InventoryError: it isn't there in time, or has nothing of this name.
    """
    value = _ask(address, name, time.monotonic() + seconds, seconds)
    if value is None or value == {}:
        raise InventoryError(
            f"{_place(address)} has no inventory of worker {name}: add it there under workers, or to the inventory here"
        )
    if not isinstance(value, dict):
        raise InventoryError(f"{_place(address)}: workers.{name}: must be a mapping, got {kind_of(value)}")
    return value


def read_inventory(address: BrokerAddress, name: str, data: dict[str, Any]) -> WorkerInventory | str:
    """Return the configuration of a worker, or the name of its service if that isn't ours.

    Raises:
        InventoryError: it breaks the schema; the line names the broker and the key path there.
    """
    service = data.get("service")
    if is_other_service(service):
        return service
    return parse_worker(Merged(data), Source(_place(address)), name)


def _ask(address: BrokerAddress, name: str, deadline: float, seconds: float) -> Any:
    problem = ""
    with zmq.Context() as context:
        # Its own pair is made once it is known that this worker runs here at all: the broker takes any.
        keys = KeyPair(*zmq.curve_keypair())
        while (left := deadline - time.monotonic()) > 0:
            link = BrokerConnection(context, address, name=random_routing_id(name), keys=keys)
            try:
                return link.request(
                    "get_inventory", service=INVENTORY_SERVICE, seconds=min(left, ANSWER_SECONDS), name=name
                )
            except NoWorkersError as error:
                problem = str(error)
            finally:
                link.close()
    raise InventoryError(
        f"worker {name}: its inventory is at the broker, and was not there within {seconds:g} s: {problem}"
    )


def _place(address: BrokerAddress) -> str:
    return f"the broker at {address.endpoint}"
