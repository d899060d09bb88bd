"""`NorFab`: the transport that it chooses, and its notices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli import NorFab
from nfcli.models.errors import InventoryError, NfcliError
from support.fabric.fake_broker import FakeBroker, Site, run


@pytest.fixture
def broker() -> Iterator[Any]:
    """Run a broker with one worker."""
    broker = FakeBroker()
    yield broker
    broker.stop()


def test_with_a_broker_jobs_go_through_it(tmp_path: Path, broker: Any) -> None:
    """Only the broker's key is needed."""
    site = Site(tmp_path, broker)
    with NorFab(site.environment.inventory_file) as norfab:
        client = norfab.make_client(start_workers=True)
        assert run(client) == {"w1": "w1"}
        assert client.describe()["mode"] == "fabric"


def test_the_first_client_is_at_hand() -> None:
    """As in scripts that were written for NorFab; it goes when the environment is closed."""
    norfab = NorFab()
    assert norfab.client is None
    first, _ = norfab.make_client(), norfab.make_client()
    assert norfab.client is first
    norfab.destroy()
    assert norfab.client is None


def test_without_a_broker_jobs_go_to_the_workers() -> None:
    """There is no broker to show."""
    norfab = NorFab()
    client = norfab.make_client()
    assert client.describe()["mode"] == "direct"
    with pytest.raises(NfcliError, match="this environment has no broker: its workers are reached directly") as caught:
        client.show_broker()
    assert caught.value.exit_status == 1
    norfab.destroy()


def test_an_unknown_key_of_the_broker_is_an_inventory_error(tmp_path: Path, broker: Any) -> None:
    """Before anything is created or started."""
    site = Site(tmp_path, broker, about={"shared_key": None})
    with pytest.raises(InventoryError, match="broker: its public key is not known: set shared_key to it"):
        NorFab(site.environment.inventory_file)


def test_surprises_are_reported_once(tmp_path: Path, broker: Any) -> None:
    """A worker of another service, a key file that overrides the inventory's key, a broker that isn't started."""
    site = Site(tmp_path, broker, "w9", broker=True)
    own = tmp_path / "__norfab__" / "files" / "broker" / "public_keys" / "broker.key"
    broker.write_key(own)
    shutil.rmtree(site.environment.state_folder)  # made before the folder was a base folder of NorFab
    text = (tmp_path / "inventory.yaml").read_text().replace(broker.public.decode(), "x" * 40)
    (tmp_path / "inventory.yaml").write_text(text.replace("service: fastmcp", "service: nornir"))
    notices: list[str] = []
    norfab = NorFab(site.environment.inventory_file, notice=notices.append)
    assert run(norfab.make_client(notice=notices.append)) == {"w1": "w1"}
    assert notices == [
        "worker w9 is not started: its service nornir is not nfcli's",
        f"{own} is used, not broker.shared_key, which is a different key",
        "topology.broker is true, but nfcli starts no broker: start NorFab's, or set it to false",
    ]
    norfab.destroy()
