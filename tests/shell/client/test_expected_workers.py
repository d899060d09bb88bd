"""Jobs to all workers of a fabric, some of which are expected and away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.known_workers import KnownWorkers, utc_now
from nfcli.models.errors import EnvironmentFolderError, NfcliError, NoWorkersError
from nfcli.models.inventory.loader import load_inventory
from nfcli.shell.client.client import Client
from nfcli.shell.client.fleet import Fleet
from nfcli.shell.client.norfab import NorFab
from support.fabric.fake_broker import POST, FakeBroker, Site, run

MakeClient = Callable[..., Client]


@pytest.fixture
def broker() -> Iterator[Any]:
    """Run a broker with the workers `w1`, `w2` and, of another service, `n1`."""
    broker = FakeBroker({"w1": "fastmcp", "w2": "fastmcp", "n1": "nornir"})
    yield broker
    broker.stop()


@pytest.fixture
def make_client(tmp_path: Path, broker: Any) -> Iterator[MakeClient]:
    """Make clients of that broker's environment; `own` are its workers, `fleet` is the key of its inventory."""
    clients: list[Client] = []

    def make(*own: str, fleet: list[str] | None = None) -> Client:
        clients.append(Site(tmp_path, broker, *own, fleet=fleet).client())
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(make_client: MakeClient) -> Client:
    """Return a client that has seen `w1` and `w2`; `w2` is away."""
    client = make_client()
    client.run_job("fastmcp", "x")
    return client


def failures(client: Client, workers: Any = "all") -> dict[str, str]:
    """Run a job and return the error of each worker that failed."""
    return {name: value[1][0] for name, value in run(client, workers).items() if isinstance(value, tuple)}


def test_a_job_that_misses_a_worker_seen_before_fails_for_it(broker: Any, client: Client) -> None:
    """The others run it; the line says when it was seen, and what to do."""
    del broker.workers["w2"]
    results = run(client)
    status, (line,) = results.pop("w2")
    assert (status, results) == ("error", {"w1": "w1"})
    assert line.startswith("worker w2, last seen ")
    assert line.endswith("start it and repeat this, or drop it with fastmcp workers forget w2")
    assert broker.asked[-1].names == ["w1"]


def test_it_is_known_to_the_next_shell(broker: Any, client: Client, make_client: MakeClient) -> None:
    """And to one that was open before another has seen it."""
    early = make_client()
    run(early)
    broker.workers["w3"] = "fastmcp"
    run(client)
    del broker.workers["w3"], broker.workers["w2"]
    assert [*failures(early)] == [*failures(make_client())] == ["w2", "w3"]


def test_a_worker_that_is_back_is_reached(broker: Any, client: Client) -> None:
    """Nothing has to be told."""
    del broker.workers["w2"]
    assert [*failures(client)] == ["w2"]
    broker.workers["w2"] = "fastmcp"
    assert run(client) == {"w1": "w1", "w2": "w2"}


def test_of_a_list_only_the_named_ones_are_expected(broker: Any, client: Client) -> None:
    """A missing one of them fails, those that aren't named don't; `any` is one that is there."""
    del broker.workers["w2"]
    assert run(client, "w1") == run(client, ["w1"]) == run(client, "any") == {"w1": "w1"}
    assert [*failures(client, ["w2", "w1"])] == ["w2"]
    with pytest.raises(NoWorkersError, match=r"^unknown worker 'w9': there is w1, w2$"):
        run(client, ["w1", "w9"])


def test_a_job_that_reaches_none_is_an_error_that_names_each(broker: Any, client: Client) -> None:
    """Be it for all, for any, or for the one that is away."""
    broker.workers = {"n1": "nornir"}
    for workers, named in [("all", 2), ("any", 2), ("w2", 1)]:
        with pytest.raises(NoWorkersError) as caught:
            run(client, workers)
        assert str(caught.value).count(", last seen ") == named
    assert [ask for ask in broker.asked[1:] if ask.command == POST] == []


def test_missing_workers_are_not_waited_for(broker: Any, client: Client) -> None:
    """One request for the list, one job, as without them."""
    del broker.workers["w2"]
    broker.questions.clear()
    run(client)
    assert (broker.questions, len(broker.asked)) == (["show_workers"], 2)


def test_workers_of_other_services_are_not_expected(broker: Any, client: Client) -> None:
    """Neither by jobs for `fastmcp` nor by jobs for their own service."""
    broker.workers["n2"] = "nornir"
    assert run(client, service="nornir") == {"n1": "n1", "n2": "n2"}
    broker.workers = {"w1": "fastmcp", "n2": "nornir"}
    assert [*failures(client)] == ["w2"]
    assert run(client, service="nornir") == {"n2": "n2"}


def test_a_job_for_every_service_expects_the_workers_too(broker: Any, make_client: MakeClient) -> None:
    """One that serves another service than it should is reached by it."""
    client = make_client(fleet=["w9"])
    run(client)
    broker.workers = {"w1": "fastmcp", "n1": "nornir", "w9": "nornir"}
    results = run(client, service="all")
    assert (sorted(results), results["w9"], results["w2"][0]) == (["n1", "w1", "w2", "w9"], "w9", "error")


@pytest.mark.parametrize(
    ("fleet", "missing"),
    [
        (["w1", "w2"], {}),
        (["w?", "*"], {}),
        (["w1", "edge"], {"edge": "worker edge of fleet is not registered"}),
        (["edge-*"], {"edge-*": "no worker was seen yet that matches edge-* of fleet"}),
        (["n*"], {"n*": "no worker was seen yet that matches n* of fleet"}),
        (["n1"], {"n1": "worker n1 of fleet is not registered at the broker for fastmcp"}),
    ],
)
def test_the_inventory_names_workers_that_were_never_seen(
    make_client: MakeClient, fleet: list[str], missing: dict[str, str]
) -> None:
    """Names and globs; a worker of another service is none of them."""
    found = failures(make_client(fleet=fleet))
    assert {name: line.startswith(missing[name]) for name, line in found.items()} == dict.fromkeys(missing, True)


def test_a_glob_is_met_by_a_worker_that_was_seen_before(broker: Any, make_client: MakeClient) -> None:
    """Which is missing itself, under its name."""
    client = make_client(fleet=["w2*"])
    run(client)
    del broker.workers["w2"]
    assert [*failures(client)] == ["w2"]


def test_a_worker_of_this_machine_that_somebody_registered_for_another_service_is_missing(
    broker: Any, make_client: MakeClient
) -> None:
    """It gets no job, and is reported."""
    broker.workers["w9"] = "nornir"
    client = make_client("w9")
    assert failures(client)["w9"].startswith(
        "worker w9 of topology.workers is not registered at the broker for fastmcp"
    )
    assert broker.asked[-1].names == ["w1", "w2"]
    row = next(row for row in client.show_workers() if row["name"] == "w9")
    assert (row["service"], row["status"], "topology.workers" in row["note"]) == ("nornir", "alive", True)


def test_show_workers_lists_missing_ones(broker: Any, client: Client) -> None:
    """In the columns of the others, with what to do."""
    del broker.workers["w2"]
    rows = client.show_workers()
    assert [(row["name"], row["status"]) for row in rows] == [("n1", "alive"), ("w1", "alive"), ("w2", "missing")]
    assert (len({tuple(row) for row in rows}), {"w2": rows[2]["note"]}) == (1, client.missing_workers())


def test_a_forgotten_worker_is_expected_no_longer(broker: Any, client: Client, make_client: MakeClient) -> None:
    """Neither by this client nor by another; seen again, it is."""
    other = make_client()
    del broker.workers["w2"]
    assert [*failures(other)] == ["w2"]
    client.forget_worker("w2")
    assert run(client) == run(other) == run(make_client()) == {"w1": "w1"}
    broker.workers["w2"] = "fastmcp"
    run(other)
    del broker.workers["w2"]
    assert [*failures(client)] == ["w2"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("w1", "is registered at the broker: stop it first"),
        ("w8", "no worker 'w8' was seen before: there is w1, w2"),
        ("w9", "is expected by topology.workers: remove it there"),
        ("edge", "is expected by fleet in the inventory: remove it there"),
    ],
)
def test_a_worker_that_would_be_expected_again_is_not_forgotten(
    make_client: MakeClient, name: str, reason: str
) -> None:
    """The line says what keeps it."""
    client = make_client("w9", fleet=["edge"])
    run(client)
    with pytest.raises(NfcliError, match=reason):
        client.forget_worker(name)


def test_a_worker_can_be_forgotten_while_there_is_no_broker(broker: Any, client: Client) -> None:
    """And is expected by the next job that finds the broker only if that lists it."""
    broker.stop()
    client.forget_worker("w2")
    del broker.workers["w2"]
    broker.start()
    assert run(client) == {"w1": "w1"}


def test_what_cannot_be_stored_is_known_to_this_client(broker: Any, tmp_path: Path) -> None:
    """One notice says so; the job runs."""
    notices: list[str] = []
    site = Site(tmp_path, broker)
    fleet = Fleet(site.environment, load_inventory(site.environment), notice=notices.append)
    (site.environment.state_folder / "workers.lock").mkdir(mode=0o700)
    with site.client(fleet=fleet) as client:
        assert run(client) == run(client) == {"w1": "w1", "w2": "w2"}
        del broker.workers["w2"]
        assert [*failures(client)] == ["w2"]
        client.forget_worker("w2")
        assert run(client) == {"w1": "w1"}
    assert [line.partition(":")[0] for line in notices] == ["the workers that were seen can't be remembered"]


def test_a_list_that_cannot_be_read_stops_a_change(broker: Any, client: Client) -> None:
    """A worker could be missed; the line says what to do."""
    client.environment.known_workers_file.write_text("[]")
    with pytest.raises(EnvironmentFolderError, match=r"workers\.json is not a list of workers .*: move it away"):
        run(client)
    assert len(broker.asked) == 1


def test_in_direct_mode_workers_without_an_entry_are_missing(tmp_path: Path) -> None:
    """The inventory lists all workers that can be reached."""
    (tmp_path / "inventory.yaml").write_text("workers: {w1: [{service: fastmcp}]}\nfleet: [w1, w2, 'edge-*']\n")
    norfab = NorFab(tmp_path / "inventory.yaml")
    client = norfab.make_client()
    KnownWorkers(norfab.environment).add(["w3"], utc_now())
    with pytest.raises(NoWorkersError) as caught:
        client.run_job("fastmcp", "x")
    for name in ("w1", "w2", "w3", "edge-*"):
        assert name in str(caught.value)
    rows = client.show_workers()
    assert {row["name"]: row["status"] for row in rows} == {
        "edge-*": "missing",
        "w1": "dead",
        "w2": "missing",
        "w3": "missing",
    }
    assert len({tuple(row) for row in rows}) == 1
    norfab.destroy()
