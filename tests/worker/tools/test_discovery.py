"""The other services of a fabric: found, asked, published, and gone."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol.frames import Command
from nfcli.worker.tools.discovery import Discovered, Discovery, Intervals
from support.fabric import hub as scripts
from support.fabric.hub import pushes
from support.fabric.services import INTERVALS, NO_LIST, Fabric, lists, tools

is_silent = scripts.is_silent

Catalogue = Any
Make = Callable[..., Discovery]


@pytest.fixture
def start(make_discovery: Make) -> Make:
    """Make discoveries that look at regular times."""

    def start_one(**named: Any) -> Discovery:
        discovery = make_discovery(**named)
        discovery.start()
        return discovery

    return start_one


def test_the_tasks_of_other_services_are_published_at_the_start(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """Each service is asked once, any of its workers; this worker's own and the reserved name are not."""
    workers = {"a1": ("a", lists("x", "y")), "b1": ("b", lists("z")), "b2": ("b", lists("z"))}
    hub.workers = {**workers, "w0": ("own", lists("hidden")), "all1": ("all", lists("hidden"))}
    start()
    catalogue.wait_for(a=["x", "y"], b=["z"])
    hub.wait_for(Command.MMI, 3)
    assert sorted(message.service for message in hub.log if message.command == Command.POST) == ["a", "b"]


def test_services_are_asked_for_any_workers_list_of_tasks(hub: Any, make_discovery: Make) -> None:
    """With the few seconds that it may take."""
    hub.workers = {"a1": ("a", lists("x"))}
    make_discovery(intervals=Intervals(answer=3.0)).discover()
    message = hub.wait_for(Command.POST)
    assert (message.service, message.target) == ("a", b"any")
    assert json.loads(message.data) == {"task": "list_tasks", "kwargs": {}, "args": [], "timeout": 3}


def test_a_service_that_shows_up_later_is_found(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """And so is one that the broker has with a worker that isn't alive yet."""
    start()
    hub.wait_for(Command.MMI)
    hub.workers = {"a1": ("a", lists("x"))}
    catalogue.wait_for(a=["x"])


def test_a_worker_that_registers_anew_is_asked_again(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """It may have been brought up to date, as may one that joins."""
    hub.workers = {"a1": ("a", lists("x"))}
    start()
    catalogue.wait_for(a=["x"])
    hub.workers["a1"] = ("a", lists("x", "y"))
    hub.uptimes["a1"] = 1
    catalogue.wait_for(a=["x", "y"])
    hub.workers = {"a0": ("a", lists("z")), **hub.workers}
    catalogue.wait_for(a=["z"])


def test_a_silent_service_delays_nobody(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """What the others say is published while it is waited for."""
    hub.workers = {"a1": ("a", is_silent), "b1": ("b", lists("x")), "c1": ("c", lists("y"))}
    start()
    catalogue.wait_for(b=["x"], c=["y"])


@pytest.mark.parametrize("answer", [None, "text", {}, [1], [{"name": "x"}, None], [{"name": "x"}] * 1_001])
def test_a_broken_service_spoils_nothing(
    hub: Any, catalogue: Catalogue, make_discovery: Make, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    """It keeps what was published of it, and the log has one line, however often it's asked."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", lists("y"))}
    discovery = make_discovery()
    discovery.discover()
    hub.workers["a1"] = ("a", pushes(answer))
    for _ in range(2):
        assert discovery.discover() == Discovered(tools("b", "y"), {"a": NO_LIST})
    catalogue.wait_for(a=["x"], b=["y"])
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"service a did not list its tasks: {NO_LIST}"
    ]


def test_a_service_that_failed_is_asked_again(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """Without anybody asking for it."""
    hub.workers = {"a1": ("a", pushes("not yet"))}
    start()
    hub.wait_for(Command.POST, 3)
    hub.workers["a1"] = ("a", lists("x"))
    catalogue.wait_for(a=["x"])


def test_a_fault_in_publishing_costs_one_service(hub: Any, catalogue: Catalogue, make_discovery: Make) -> None:
    """The others come all the same."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", lists("y"))}
    catalogue.faulty = {"a"}
    assert make_discovery().discover() == Discovered(tools("b", "y"), {"a": "internal error: RuntimeError"})


def test_a_service_that_vanishes_takes_its_tools_along(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """Once the broker has no worker of it; it may come back."""
    hub.workers = {"a1": ("a", lists("x")), "a2": ("a", lists("x")), "b1": ("b", lists("y"))}
    start()
    catalogue.wait_for(a=["x"], b=["y"])
    del hub.workers["a1"]
    hub.wait_for(Command.MMI, 3)
    catalogue.wait_for(a=["x"], b=["y"])
    del hub.workers["a2"]
    catalogue.wait_for(b=["y"])
    hub.workers["a1"] = ("a", lists("z"))
    catalogue.wait_for(a=["z"], b=["y"])
    assert catalogue.kept == [{"b"}]


def test_while_the_broker_is_away_nothing_vanishes(
    hub: Any, catalogue: Catalogue, start: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor while workers find it again; whoever does then is asked anew."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", lists("y"))}
    start(answer=0.5)
    catalogue.wait_for(a=["x"], b=["y"])
    second = hub.again()
    try:
        second.wait_for(Command.MMI, 4)
        second.uptimes = {"a1": 1}
        second.workers = {"a1": ("a", lists("z"))}
        catalogue.wait_for(a=["z"], b=["y"])
        assert catalogue.kept == []
    finally:
        second.stop()
    assert "Traceback" not in caplog.text


def test_what_did_not_come_back_with_the_broker_vanishes(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """After the time that workers need to find it."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", lists("y"))}
    start(comeback=0.1)
    catalogue.wait_for(a=["x"], b=["y"])
    second = hub.again()
    try:
        second.workers = {"a1": ("a", lists("x"))}
        catalogue.wait_for(a=["x"])
    finally:
        second.stop()


def test_a_broker_that_is_away_is_logged_once_and_so_is_its_return(
    catalogue: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it's looked for."""
    caplog.set_level("INFO")
    fabric = Fabric()
    fabric.fault = NoWorkersError("no broker answered at tcp://b:1")
    discovery = fabric.discovery(catalogue, **vars(INTERVALS))
    discovery.start()
    fabric.wait_for_polls(3)
    fabric.fault = None
    fabric.wait_for_polls(3)
    discovery.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "service discovery failed: no broker answered at tcp://b:1",
        "service discovery works again",
    ]


def test_a_fault_does_not_end_the_looking(catalogue: Catalogue, caplog: pytest.LogCaptureFixture) -> None:
    """The log names its kind."""
    fabric = Fabric()
    fabric.fault = KeyError("x")
    discovery = fabric.discovery(catalogue, **vars(INTERVALS))
    discovery.start()
    fabric.wait_for_polls(3)
    discovery.stop()
    assert {record.getMessage() for record in caplog.records} == {"service discovery failed: KeyError"}
