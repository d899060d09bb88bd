"""Discovery of other services by polling the broker: publishing, removal, failures."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol.frames import Command
from nfcli.worker.tools.discovery import Discovered, Discovery, Intervals
from support.fabric.hub import is_silent, pushes
from support.fabric.services import INTERVALS, NO_LIST, Fabric, lists, tools

Catalogue = Any
Make = Callable[..., Discovery]


@pytest.fixture
def start(make_discovery: Make) -> Make:
    """Make and start discoveries."""

    def start_one(**named: Any) -> Discovery:
        discovery = make_discovery(**named)
        discovery.start()
        return discovery

    return start_one


def test_tasks_of_other_services_are_published_at_the_start(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """One worker of each service is asked once; this worker's own service and the reserved name are skipped."""
    workers = {"a1": ("a", lists("x", "y")), "b1": ("b", lists("z")), "b2": ("b", lists("z"))}
    hub.workers = {**workers, "w0": ("own", lists("hidden")), "all1": ("all", lists("hidden"))}
    start()
    catalogue.wait_for(a=["x", "y"], b=["z"])
    hub.wait_for(Command.MMI, 3)
    assert sorted(message.service for message in hub.log if message.command == Command.POST) == ["a", "b"]


def test_any_worker_of_a_service_is_asked_for_its_tasks(hub: Any, make_discovery: Make) -> None:
    """The job has the time limit of the intervals."""
    hub.workers = {"a1": ("a", lists("x"))}
    make_discovery(intervals=Intervals(answer=3.0)).discover()
    message = hub.wait_for(Command.POST)
    assert (message.service, message.target) == ("a", b"any")
    job = json.loads(message.data)
    assert job.pop("deadline") > 0
    assert job == {"task": "list_tasks", "kwargs": {}, "args": [], "timeout": 3}


def test_service_that_registers_later_is_found(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """It is found with the next poll."""
    start()
    hub.wait_for(Command.MMI)
    hub.workers = {"a1": ("a", lists("x"))}
    catalogue.wait_for(a=["x"])


def test_service_is_asked_again_when_a_worker_registers(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """Both a restarted worker and a new one may have other tasks."""
    hub.workers = {"a1": ("a", lists("x"))}
    start()
    catalogue.wait_for(a=["x"])
    hub.workers["a1"] = ("a", lists("x", "y"))
    hub.uptimes["a1"] = 1
    catalogue.wait_for(a=["x", "y"])
    hub.workers = {"a0": ("a", lists("z")), **hub.workers}
    catalogue.wait_for(a=["z"])


def test_silent_service_does_not_delay_others(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """The others' tasks are published while its answer is pending."""
    hub.workers = {"a1": ("a", is_silent), "b1": ("b", lists("x")), "c1": ("c", lists("y"))}
    start()
    catalogue.wait_for(b=["x"], c=["y"])


@pytest.mark.parametrize("answer", [None, "text", {}, [1], [{"name": "x"}, None], [{"name": "x"}] * 1_001])
def test_service_with_an_invalid_answer_keeps_its_tools(
    hub: Any, catalogue: Catalogue, make_discovery: Make, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    """The problem is logged once, however often the service is asked."""
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


def test_service_that_failed_is_asked_again(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """The retry needs no request."""
    hub.workers = {"a1": ("a", pushes("not yet"))}
    start()
    hub.wait_for(Command.POST, 3)
    hub.workers["a1"] = ("a", lists("x"))
    catalogue.wait_for(a=["x"])


def test_fault_in_publishing_affects_one_service(hub: Any, catalogue: Catalogue, make_discovery: Make) -> None:
    """The other services' tasks are published."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", lists("y"))}
    catalogue.faulty = {"a"}
    assert make_discovery().discover() == Discovered(tools("b", "y"), {"a": "internal error: RuntimeError"})


def test_tools_of_a_service_without_workers_are_removed(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """They are published again when a worker registers."""
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


def test_tools_stay_while_the_broker_is_down(
    hub: Any, catalogue: Catalogue, start: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """They also stay while workers register with the broker that is back; these are asked again."""
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


def test_tools_of_services_that_did_not_return_with_the_broker_are_removed(
    hub: Any, catalogue: Catalogue, start: Make
) -> None:
    """They are removed after the time that workers need to register."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", lists("y"))}
    start(comeback=0.1)
    catalogue.wait_for(a=["x"], b=["y"])
    second = hub.again()
    try:
        second.workers = {"a1": ("a", lists("x"))}
        catalogue.wait_for(a=["x"])
    finally:
        second.stop()


def test_broker_outage_and_return_are_logged_once(catalogue: Catalogue, caplog: pytest.LogCaptureFixture) -> None:
    """Further polls log nothing."""
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


def test_fault_does_not_end_discovery(catalogue: Catalogue, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the fault's type."""
    fabric = Fabric()
    fabric.fault = KeyError("x")
    discovery = fabric.discovery(catalogue, **vars(INTERVALS))
    discovery.start()
    fabric.wait_for_polls(3)
    discovery.stop()
    assert {record.getMessage() for record in caplog.records} == {"service discovery failed: KeyError"}
