"""Discovery on demand, through the task `discover`, and without sockets."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nfcli.models.errors import NfcliError, NoWorkersError, TaskError
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.tasks import tools as discovery_tasks
from nfcli.worker.tools import discovery as discovery_module
from nfcli.worker.tools.discovery import Discovered, Discovery, Intervals
from support.fabric.hub import is_busy
from support.fabric.services import NO_LIST, Fabric, lists, tools

Catalogue = Any
Make = Callable[..., Discovery]


@pytest.fixture
def found(catalogue: Catalogue) -> Callable[..., Discovery]:
    """Make discoveries of a fabric without sockets."""
    return lambda fabric, **named: fabric.discovery(catalogue, **named)


def test_services_are_asked_concurrently_up_to_a_limit(found: Callable[..., Discovery]) -> None:
    """Every service is asked."""
    fabric = Fabric(**{f"s{number:02}": [{"name": "t"}] for number in range(70)})
    fabric.awaits = discovery_module.CONCURRENT_JOBS
    assert len(found(fabric).discover().tools) == 70
    assert (len(fabric.asked), fabric.most_at_once) == (70, discovery_module.CONCURRENT_JOBS)


def test_services_beyond_the_limit_are_skipped(
    found: Callable[..., Discovery], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This is logged once."""
    monkeypatch.setattr(discovery_module, "MAX_SERVICES", 2)
    discovery = found(Fabric(a=[], b=[], c=[]))
    for _ in range(2):
        assert discovery.discover().tools == {"a": [], "b": []}
    assert [record.getMessage() for record in caplog.records] == [
        "the broker has more than 2 services: the rest is skipped"
    ]


def test_pauses_between_retries_grow_up_to_a_limit(found: Callable[..., Discovery]) -> None:
    """They start again from the first pause after an answer."""
    fabric = Fabric(a=NfcliError("no"))
    now = 0.0
    discovery = found(fabric, clock=lambda: now)
    asked = []
    for second in range(201):
        now = float(second)
        discovery.poll()
        if len(fabric.asked) > len(asked):
            asked.append(second)
    assert asked == [0, 5, 15, 35, 75, 135, 195]
    fabric.services["a"] = []
    discovery.discover()
    fabric.services["a"] = NfcliError("no")
    discovery.discover()
    count = len(fabric.asked)
    now += 5
    discovery.poll()
    assert len(fabric.asked) == count + 1


@pytest.mark.parametrize("uptime", ["", "x", "nan", "inf", "-1e999"])
def test_invalid_uptime_is_ignored(found: Callable[..., Discovery], uptime: str) -> None:
    """It doesn't make the service be asked again."""
    fabric = Fabric(a=[])
    fabric.rows = [{**fabric.rows[0], "alive (s)": uptime}]
    discovery = found(fabric)
    for _ in range(3):
        discovery.poll()
    assert fabric.asked == ["a"]


def test_service_is_asked_once_for_each_registration(found: Callable[..., Discovery]) -> None:
    """An uptime below the last one, or a new worker, is a registration."""
    fabric = Fabric(a=[])
    (row,) = fabric.rows
    discovery = found(fabric)
    for uptimes in (["5"], ["6"], ["1"], ["2"], ["6", "3"], ["6", "4"]):
        fabric.rows = [{**row, "name": name, "alive (s)": each} for name, each in zip("xy", uptimes, strict=False)]
        discovery.poll()
    assert len(fabric.asked) == 3


def test_dead_workers_are_not_a_service(found: Callable[..., Discovery]) -> None:
    """Neither are rows without the uptime."""
    fabric = Fabric(a=[])
    fabric.rows = [{"name": "a1", "service": "a", "status": "dead"}, {"name": "a2", "service": "a"}]
    assert found(fabric).discover() == Discovered()


def test_on_demand_one_service_or_all_are_asked_again(hub: Any, catalogue: Catalogue, make_discovery: Make) -> None:
    """No polling is needed."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", lists("y"))}
    discovery = make_discovery()
    assert discovery.discover() == Discovered({**tools("a", "x"), **tools("b", "y")})
    hub.workers = {"a1": ("a", lists("z")), "b1": ("b", lists("z"))}
    assert discovery.discover("a") == Discovered(tools("a", "z"))
    catalogue.wait_for(a=["z"], b=["y"])


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("c", "unknown service 'c': known are a, b"),
        ("own", "service own is this worker's own: its tools are always published"),
        ("b", "service b: no answer within 1 s"),
    ],
)
def test_service_that_cannot_be_discovered_is_one_line(
    hub: Any, make_discovery: Make, service: str, message: str
) -> None:
    """The error names the service."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", is_busy)}
    with pytest.raises(TaskError) as caught:
        make_discovery(intervals=Intervals(answer=1.0)).discover(service)
    assert str(caught.value) == message


def test_unknown_service_is_an_error_and_no_service_is_not(make_discovery: Make) -> None:
    """With no services, a discovery of all is empty."""
    discovery = make_discovery()
    assert discovery.discover() == Discovered()
    with pytest.raises(TaskError, match="unknown service 'a'"):
        discovery.discover("a")


@pytest.fixture
def said() -> list[str]:
    """Return the progress that the task has sent."""
    return []


@pytest.fixture
def run(said: list[str]) -> Callable[..., Any]:
    """Run the task `discover` on a worker with that discovery."""

    def run_task(discovery: Discovery | None, **kwargs: Any) -> Any:
        said.clear()
        worker: Any = SimpleNamespace(name="w0", service="own", discovery=discovery, progress=said.append)
        return TaskRegistry(discovery_tasks).run(worker, "discover", kwargs)

    return run_task


def test_task_returns_tools_and_messages_about_failed_services(
    run: Any, said: list[str], found: Callable[..., Discovery]
) -> None:
    """Tools of the other services are published."""
    discovery = found(Fabric(a=[{"name": "x"}], b="nonsense"))
    result = run(discovery)
    assert (result.failed, result.result, result.messages) == (False, tools("a", "x"), [f"service b: {NO_LIST}"])
    assert said == ["service a: tools found: 1"]
    assert run(discovery, service="a").result == tools("a", "x")


def test_task_fails_with_one_line(run: Any, found: Callable[..., Discovery]) -> None:
    """Causes are a missing broker, one that is down, and an unknown service."""
    fabric = Fabric()
    fabric.fault = NoWorkersError("no broker answered")
    assert run(found(fabric)).errors == ["no broker answered"]
    (error,) = run(found(Fabric()), service="x").errors
    assert error.startswith("unknown service 'x': ")
    assert run(None).errors == ["no broker is configured: there are no other services to discover"]


def test_task_is_not_a_tool() -> None:
    """Its arguments are declared."""
    entry = TaskRegistry(discovery_tasks).get("discover").entry()
    assert entry["mcp"] is False
    assert list(entry["inputSchema"]["properties"]) == ["service"]
