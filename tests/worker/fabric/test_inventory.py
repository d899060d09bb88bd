"""A worker's inventory that only the broker has is fetched and validated; every failure is an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nfcli.models.errors import InventoryError
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.models.protocol.broker_connection import BrokerAddress
from nfcli.models.protocol.broker_key import BrokerKey
from nfcli.worker.fabric.inventory import fetch_inventory, read_inventory
from support.fabric.broker import FabricBroker

ADDRESS = BrokerAddress("tcp://192.0.2.1:5555", BrokerKey(b"k" * 40, "broker.shared_key"))
PLACE = "the broker at tcp://192.0.2.1:5555"


@pytest.fixture
def broker() -> Iterator[Any]:
    """Return a broker that runs and has the inventory of w1."""
    broker = FabricBroker(0.1, 0.6)
    broker.inventories["w1"] = {"service": "fastmcp", "port": 0}
    broker.start()
    yield broker
    broker.close()


def test_the_broker_s_inventory_is_returned(broker: Any) -> None:
    """Unchanged."""
    assert fetch_inventory(broker.address, "w1") == {"service": "fastmcp", "port": 0}


def test_a_broker_that_is_still_starting_is_waited_for(broker: Any) -> None:
    """Both may be started at the same time."""
    broker.stop()
    starting = threading.Timer(0.2, broker.start)
    starting.start()
    assert fetch_inventory(broker.address, "w1") == {"service": "fastmcp", "port": 0}
    starting.join()


@pytest.mark.parametrize("value", [None, {}])
def test_a_worker_that_the_broker_does_not_know_is_an_error(broker: Any, value: Any) -> None:
    """Defaults would mean all interfaces and no authentication."""
    broker.inventories["w1"] = value
    with pytest.raises(InventoryError) as caught:
        fetch_inventory(broker.address, "w1")
    assert str(caught.value) == (
        f"the broker at {broker.endpoint} has no inventory of worker w1: "
        "add it there under workers, or to the inventory here"
    )


@pytest.mark.parametrize(("value", "kind"), [([], "a list"), ("text", "text"), (False, "false")])
def test_an_inventory_that_is_not_a_mapping_is_an_error(broker: Any, value: Any, kind: str) -> None:
    """Another program may answer at that endpoint."""
    broker.inventories["w1"] = value
    with pytest.raises(InventoryError, match=rf"workers\.w1: .*got {kind}"):
        fetch_inventory(broker.address, "w1")


@pytest.mark.parametrize("state", ["gone", "dumb"])
def test_no_answer_in_time_is_an_error(broker: Any, state: str) -> None:
    """One line: whose inventory, where it is, why it is not available."""
    reason = "no broker answered at .*: start it, or correct endpoint"
    if state == "gone":
        broker.stop()
    else:
        broker.is_dumb, reason = True, r"the broker at .* doesn't answer: "
    with pytest.raises(InventoryError) as caught:
        fetch_inventory(broker.address, "w1", seconds=0.5)
    assert caught.match(rf"worker w1: its inventory is at the broker, and could not be fetched within 0\.5 s: {reason}")
    assert "\n" not in str(caught.value)


def test_the_wrong_key_is_an_error_that_names_its_source(broker: Any) -> None:
    """No request reaches the broker."""
    other = FabricBroker(0.1, 0.6)
    other.close()
    wrong = BrokerAddress(broker.endpoint, BrokerKey(other.keys.public, "broker.shared_key"))
    with pytest.raises(InventoryError, match=r"the key of broker\.shared_key is not its key"):
        fetch_inventory(wrong, "w1", seconds=0.5)
    assert broker.questions == []


def test_an_inventory_for_norfab_is_valid() -> None:
    """Keys of its job engine are ignored, and values are not expanded as templates."""
    data = {
        "service": "fastmcp",
        "host": "127.0.0.1",
        "authentication_enabled": "yes",
        "jobs_compress": True,
        "max_concurrent_jobs": 3,
        "logging": {"text": "${HOME} {{ env.get('HOME') }}"},
    }
    inventory = read_inventory(ADDRESS, "w1", data)
    assert isinstance(inventory, WorkerInventory)
    assert (inventory.authentication_enabled, inventory.port) == (True, 8001)
    assert inventory.logging == {"text": "${HOME} {{ env.get('HOME') }}"}


def test_the_service_of_another_worker_is_returned() -> None:
    """This is not an error."""
    assert read_inventory(ADDRESS, "w1", {"service": "netbox", "url": "http://x"}) == "netbox"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"status": "MMI Request Timeout"}, f"{PLACE}: workers.w1.status: "),
        ({"port": 1}, f"{PLACE}: workers.w1.service: required key is missing"),
        ({"service": "fastmpc"}, f"{PLACE}: workers.w1.service: must be 'fastmcp', got 'fastmpc'"),
        ({"service": 1}, f"{PLACE}: workers.w1.service: must be 'fastmcp', got 1"),
        ({"service": "fastmcp", "prot": 1}, f"{PLACE}: workers.w1.prot: no such key, did you mean port?"),
        ({"service": "fastmcp", "auth_bearer": {"token_ttl": 0}}, f"{PLACE}: workers.w1.auth_bearer.token_ttl: must "),
    ],
)
def test_an_invalid_inventory_is_an_error_that_names_the_broker_and_the_key(data: Any, message: str) -> None:
    """No default is used instead."""
    with pytest.raises(InventoryError) as caught:
        read_inventory(ADDRESS, "w1", data)
    assert str(caught.value).startswith(message)
