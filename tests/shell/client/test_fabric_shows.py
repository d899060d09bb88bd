"""What a client in fabric mode shows of workers, broker and itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.worker_lock import WorkerLock
from nfcli.models.errors import NfcliError, NoWorkersError, UsageError
from nfcli.shell.client.client import Client
from nfcli.shell.transport.base import not_running
from support.fabric.fake_broker import FakeBroker, Site, run


@pytest.fixture
def broker() -> Iterator[Any]:
    """Run a broker with one worker."""
    broker = FakeBroker()
    yield broker
    broker.stop()


@pytest.fixture
def client(tmp_path: Path, broker: Any) -> Iterator[Client]:
    """A client of that broker's environment, with no worker of its own."""
    with Site(tmp_path, broker).client() as client:
        yield client


def test_show_workers_lists_what_the_broker_has_and_what_is_missing(tmp_path: Path, broker: Any) -> None:
    """Workers of this machine that aren't there are missing, with the reason."""
    site = Site(tmp_path, broker, "w8", "w9")
    lock = WorkerLock.acquire(site.environment.lock_file("w9"))
    broker.workers["n1"] = "nornir"
    alive = {"status": "alive", "holdtime": "12.8", "alive (s)": "32", "note": ""}
    missing = {"service": "fastmcp", "status": "missing", "holdtime": "", "alive (s)": ""}
    note = f"worker w9 runs here (pid {os.getpid()}) but is not registered at the broker: check its log"
    with site.client() as client:
        assert client.show_workers() == [
            {"name": "n1", "service": "nornir", **alive},
            {"name": "w1", "service": "fastmcp", **alive},
            {"name": "w8", **missing, "note": not_running("w8")},
            {"name": "w9", **missing, "note": note},
        ]
    lock.release()


@pytest.mark.parametrize("answer", [5, "x", {}, [1, {"name": 5}, {"name": "w1"}], [{"name": "", "service": ""}]])
def test_workers_of_the_wrong_shape_are_skipped(broker: Any, client: Client, answer: Any) -> None:
    """Whatever the broker sends, the error is one line."""
    broker.on_question = lambda _: answer
    with pytest.raises(NoWorkersError) as caught:
        run(client)
    assert str(caught.value) == "no worker serves 'fastmcp': the broker has none"


def test_the_broker_describes_itself(broker: Any, client: Client) -> None:
    """Its state, its versions, and how many it has; something else than a mapping is refused."""
    broker.workers = {"w1": "fastmcp", "w2": "fastmcp", "n1": "nornir"}
    versions = {"norfab": "0.25.0"}
    assert client.show_broker() == {"name": "NFPBroker", "versions": versions, "workers": 3, "services": 2}
    broker.on_question = lambda task: "Unsupported task" if task == "show_broker_version" else None
    with pytest.raises(NfcliError, match="doesn't know show_broker_version: "):
        client.show_broker()


def test_a_client_knows_how_it_reaches_workers_without_asking(tmp_path: Path, broker: Any) -> None:
    """Also while the broker isn't there."""
    broker.stop()
    with Site(tmp_path, broker, "w9").client() as client:
        shown = client.describe()
    assert {key: shown[key] for key in ("mode", "broker", "broker_key", "workers")} == {
        "mode": "fabric",
        "broker": broker.endpoint,
        "broker_key": "broker.shared_key",
        "workers": ["w9"],
    }


def test_a_closed_client_says_so(client: Client) -> None:
    """It isn't used by mistake."""
    client.close()
    with pytest.raises(UsageError, match="this client is closed"):
        client.worker_names()
