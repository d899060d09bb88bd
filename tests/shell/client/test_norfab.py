"""`NorFab`: the transport that it chooses, and its notices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli import NorFab
from nfcli.models.errors import InventoryError, NfcliError, UsageError
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


def test_an_inventory_may_be_data(tmp_path: Path) -> None:
    """As NorFab's API takes it: paths are relative to `base_dir`, and nothing of the data is left behind."""
    (tmp_path / "w1.yaml").write_text("service: fastmcp\nport: 0\n", encoding="utf-8")
    data = {"workers": {"w1": ["w1.yaml"]}, "topology": {"workers": ["w1"]}}
    norfab = NorFab(inventory_data=data, base_dir=tmp_path)
    try:
        assert norfab.inventory.workers["w1"].port == 0
        assert norfab.environment.folder == tmp_path.resolve()
        [file] = tmp_path.glob(".inventory-*.yaml")
        assert file.stat().st_mode & 0o777 == 0o600
    finally:
        norfab.destroy()
    assert list(tmp_path.glob(".inventory-*")) == []


def test_workers_of_an_inventory_of_data_run(tmp_path: Path) -> None:
    """They are processes that read it; a context manager has a client at hand."""
    data = {"workers": {"w1": [{"service": "fastmcp", "port": 0}]}}
    with NorFab(inventory_data=data, base_dir=tmp_path) as norfab:
        assert norfab.client is not None
        assert norfab.client.run_job("fastmcp", "get_status")["w1"]["result"]["name"] == "w1"
    assert list(tmp_path.glob(".inventory-*")) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"inventory": "x.yaml", "inventory_data": {}}, "name an inventory file or give inventory_data, not both"),
        ({"inventory_data": []}, "inventory_data must be a mapping, got list"),
        ({"inventory_data": {"workers": {1, 2}}}, "inventory_data must have values of JSON: "),
        ({"inventory_data": {}, "base_dir": "/nonexistent"}, "base_dir /nonexistent: the inventory can't be written"),
        ({"inventory_data": {"workerz": {}}}, "workerz: no such key, did you mean workers"),
    ],
)
def test_wrong_data_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], error: str
) -> None:
    """With what is wrong with it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NfcliError, match=error):
        NorFab(**options)
    assert list(tmp_path.iterdir()) == []


def test_a_base_folder_without_data_is_that_of_the_state(tmp_path: Path) -> None:
    """As NorFab's, which keeps its own files there."""
    (tmp_path / "inventory.yaml").write_text("workers: {w1: [{service: fastmcp}]}", encoding="utf-8")
    norfab = NorFab(inventory=tmp_path / "inventory.yaml", base_dir=tmp_path / "base")
    assert norfab.environment.state_folder == tmp_path / "base" / ".nfcli"


def test_a_broker_knows_a_client_by_the_name_that_it_is_given(tmp_path: Path, broker: Any) -> None:
    """Names of workers' clients are refused: their jobs would be."""
    norfab = NorFab(Site(tmp_path, broker).environment.inventory_file)
    client = norfab.make_client("script", start_workers=True)
    assert run(client) == {"w1": "w1"}
    assert set(broker.identities) == {b"script"}
    for name in ("w1-NFPClient", "x-nfcli-0123456789abcdef", "", "a b", "x" * 65):
        with pytest.raises(UsageError, match="the name of a client must"):
            norfab.make_client(name)
    norfab.destroy()
