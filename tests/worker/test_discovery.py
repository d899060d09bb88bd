"""The other services of a fabric: found, asked, published, and gone."""

import json
import queue
import runpy
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from nfcli.models.errors import NfcliError, NoWorkersError, TaskError
from nfcli.models.keys import KeyPair
from nfcli.models.nfp import Command
from nfcli.models.service import tool_name
from nfcli.worker import discovery as discovery_module
from nfcli.worker import discovery_tasks
from nfcli.worker.discovery import Discovered, Discovery, Pace, start_fabric_client
from nfcli.worker.fabric_client import FabricClient
from nfcli.worker.sent_job import Patience
from nfcli.worker.tasks import TaskRegistry

_hub = runpy.run_path(str(Path(__file__).with_name("fabric_hub.py")))
Hub, WAIT_SECONDS = _hub["Hub"], _hub["WAIT_SECONDS"]
is_busy, is_silent, pushes = _hub["is_busy"], _hub["is_silent"], _hub["pushes"]

# Short where something has to happen, long where it must not.
PATIENCE = Patience(poll=0.05, answer=WAIT_SECONDS, comeback=WAIT_SECONDS)
PACE = Pace(look=0.02, answer=WAIT_SECONDS, retry=0.01, retry_max=0.05)
NO_LIST = "the answer to list_tasks is no list of at most 1000 tasks"


class Catalogue:
    """Keeps what is published, and lets a test wait for it."""

    def __init__(self) -> None:
        self.by_service: dict[str, list[str]] = {}
        self.kept: list[set[str]] = []
        self.faulty: set[str] = set()
        self._change = threading.Condition()

    def replace(self, service: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
        """Publish."""
        if service in self.faulty:
            raise RuntimeError
        tools = [tool_name(service, entry["name"]) for entry in entries]
        with self._change:
            self.by_service[service] = tools
            self._change.notify_all()
        return tools

    def keep_only(self, services: Collection[str]) -> None:
        """Take away."""
        with self._change:
            self.kept.append(set(services))
            self.by_service = {name: tools for name, tools in self.by_service.items() if name in services}
            self._change.notify_all()

    def wait_for(self, **by_service: list[str]) -> None:
        """Wait until exactly this is published: services and their tasks."""
        expected = {service: [tool_name(service, task) for task in tasks] for service, tasks in by_service.items()}
        with self._change:
            assert self._change.wait_for(lambda: self.by_service == expected, WAIT_SECONDS), self.by_service


@pytest.fixture
def hub() -> Iterator[Any]:
    """Run a broker without workers."""
    hub = Hub()
    yield hub
    hub.stop()


@pytest.fixture
def catalogue() -> Catalogue:
    """Return an empty one."""
    return Catalogue()


Make = Callable[..., Discovery]


@pytest.fixture
def make(hub: Any, catalogue: Catalogue) -> Iterator[Make]:
    """Make discoveries of service `own`, each with a client of the broker."""
    with ExitStack() as opened:

        def make_one(*, pace: Pace = PACE, **patience: float) -> Discovery:
            chosen = Patience(**{**vars(PATIENCE), **patience})
            client = FabricClient("w0", hub.address, KeyPair(*zmq.curve_keypair()), patience=chosen)
            client.start()
            discovery = Discovery("own", client, catalogue, pace=pace)
            opened.callback(discovery.stop)
            opened.callback(client.stop)
            opened.callback(discovery.ask_to_stop)
            return discovery

        yield make_one


@pytest.fixture
def start(make: Make) -> Make:
    """Make discoveries that look at regular times."""

    def start_one(**named: Any) -> Discovery:
        discovery = make(**named)
        discovery.start()
        return discovery

    return start_one


def lists(*tasks: str) -> Any:
    """Be a worker with these tasks."""
    return pushes([{"name": task} for task in tasks])


def tools(service: str, *tasks: str) -> dict[str, list[str]]:
    """Return what is found of a service."""
    return {service: [tool_name(service, task) for task in tasks]}


def test_the_tasks_of_other_services_are_published_at_the_start(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """Each service is asked once, any of its workers; this worker's own and the reserved name are not."""
    workers = {"a1": ("a", lists("x", "y")), "b1": ("b", lists("z")), "b2": ("b", lists("z"))}
    hub.workers = {**workers, "w0": ("own", lists("hidden")), "all1": ("all", lists("hidden"))}
    start()
    catalogue.wait_for(a=["x", "y"], b=["z"])
    hub.wait_for(Command.MMI, 3)
    posts = [message for message in (hub.heard.get() for _ in range(hub.heard.qsize())) if message.command != b"0x11"]
    assert posts == []


def test_services_are_asked_for_any_workers_list_of_tasks(hub: Any, make: Make) -> None:
    """With the few seconds that it may take."""
    hub.workers = {"a1": ("a", lists("x"))}
    make(pace=Pace(answer=3.0)).discover()
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
    hub: Any, catalogue: Catalogue, make: Make, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    """It keeps what was published of it, and the log has one line, however often it's asked."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", lists("y"))}
    discovery = make()
    discovery.discover()
    hub.workers["a1"] = ("a", pushes(answer))
    for _ in range(2):
        assert discovery.discover() == Discovered(tools("b", "y"), {"a": NO_LIST})
    catalogue.wait_for(a=["x"], b=["y"])
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"tasks of service a not found: {NO_LIST}"
    ]


def test_a_service_that_failed_is_asked_again(hub: Any, catalogue: Catalogue, start: Make) -> None:
    """Without anybody's doing."""
    hub.workers = {"a1": ("a", pushes("not yet"))}
    start()
    hub.wait_for(Command.POST, 3)
    hub.workers["a1"] = ("a", lists("x"))
    catalogue.wait_for(a=["x"])


def test_a_fault_in_publishing_costs_one_service(hub: Any, catalogue: Catalogue, make: Make) -> None:
    """The others come all the same."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", lists("y"))}
    catalogue.faulty = {"a"}
    assert make().discover() == Discovered(tools("b", "y"), {"a": "internal error: RuntimeError"})


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
    discovery = Discovery("own", fabric, catalogue, pace=PACE)
    discovery.start()
    fabric.wait_for_looks(3)
    fabric.fault = None
    fabric.wait_for_looks(3)
    discovery.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "other services can't be looked for: no broker answered at tcp://b:1",
        "other services can be looked for again",
    ]


def test_a_fault_does_not_end_the_looking(catalogue: Catalogue, caplog: pytest.LogCaptureFixture) -> None:
    """The log names its kind."""
    fabric = Fabric()
    fabric.fault = KeyError("x")
    discovery = Discovery("own", fabric, catalogue, pace=PACE)
    discovery.start()
    fabric.wait_for_looks(3)
    discovery.stop()
    assert {record.getMessage() for record in caplog.records} == {"discovery failed: KeyError"}


class Fabric:
    """A fabric without a wire: rows of the broker, and what each service answers once `awaits` have been asked."""

    def __init__(self, **services: Any) -> None:
        self.services = services
        self.rows = [{"name": f"{name}1", "service": name, "status": "alive", "alive (s)": "5"} for name in services]
        self.fault: Exception | None = None
        self.awaits = 1
        self.asked: list[str] = []
        self.most_at_once = 0
        self._looks: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._under_way: list[Future[Any]] = []

    def workers(self) -> list[dict[str, str]]:
        """Return the rows."""
        self._looks.put(None)
        if self.fault is not None:
            raise self.fault
        return self.rows

    def is_settling(self) -> bool:
        """It is well."""
        return False

    def submit(self, service: str, task: str, kwargs: dict[str, Any], **_named: Any) -> Future[Any]:
        """Answer, or raise what is there for that."""
        assert (task, kwargs) == ("list_tasks", {})
        self.asked.append(service)
        answer = self.services[service]
        if isinstance(answer, Exception):
            raise answer
        asked: Future[Any] = Future()
        self._under_way.append(asked)
        self.most_at_once = max(self.most_at_once, sum(not each.done() for each in self._under_way))
        if self.most_at_once >= self.awaits:
            for each in (each for each in self._under_way if not each.done()):
                each.set_result({"w": {"failed": False, "result": answer}})
        return asked

    def wait_for_looks(self, count: int) -> None:
        """Wait until the broker has been asked so many more times."""
        for _ in range(count):
            self._looks.get(timeout=WAIT_SECONDS)


@pytest.fixture
def found(catalogue: Catalogue) -> Callable[..., Discovery]:
    """Make a discovery of a fabric without a wire."""
    return lambda fabric, **pace: Discovery("own", fabric, catalogue, pace=Pace(**pace))


def test_many_services_are_asked_side_by_side_and_not_all_at_once(found: Callable[..., Discovery]) -> None:
    """Each is asked, whatever the others do."""
    fabric = Fabric(**{f"s{number:02}": [{"name": "t"}] for number in range(70)})
    fabric.awaits = discovery_module.ASKED_AT_ONCE
    assert len(found(fabric).discover().tools) == 70
    assert (len(fabric.asked), fabric.most_at_once) == (70, discovery_module.ASKED_AT_ONCE)


def test_more_services_than_the_bound_are_passed_over(
    found: Callable[..., Discovery], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once."""
    monkeypatch.setattr(discovery_module, "MAX_SERVICES", 2)
    discovery = found(Fabric(a=[], b=[], c=[]))
    for _ in range(2):
        assert discovery.discover().tools == {"a": [], "b": []}
    assert [record.getMessage() for record in caplog.records] == [
        "the broker has more than 2 services: the others are passed over"
    ]


def test_pauses_between_retries_grow_to_a_bound(found: Callable[..., Discovery]) -> None:
    """And begin anew once the service has answered."""
    fabric = Fabric(a=NfcliError("no"))
    discovery = found(fabric)
    pauses = []
    for _ in range(6):
        discovery.discover()
        pauses.append(discovery._services["a"].pause)
    assert pauses == [5, 10, 20, 40, 60, 60]
    fabric.services["a"] = []
    discovery.discover()
    assert discovery._services["a"].pause == 0


@pytest.mark.parametrize("uptime", ["", "x", "nan", "inf", "-1e999"])
def test_an_uptime_that_is_none_means_nothing(found: Callable[..., Discovery], uptime: str) -> None:
    """Nobody is asked again and again for it."""
    fabric = Fabric(a=[])
    fabric.rows = [{**fabric.rows[0], "alive (s)": uptime}]
    discovery = found(fabric)
    for _ in range(3):
        discovery._look()
    assert fabric.asked == ["a"]


def test_dead_workers_are_no_service(found: Callable[..., Discovery]) -> None:
    """As rows without what they should have."""
    fabric = Fabric(a=[])
    fabric.rows = [{"name": "a1", "service": "a", "status": "dead"}, {"name": "a2", "service": "a"}]
    assert found(fabric).discover() == Discovered()


def test_on_demand_one_service_is_asked_or_all_again(hub: Any, catalogue: Catalogue, make: Make) -> None:
    """With nothing looking at regular times."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", lists("y"))}
    discovery = make()
    assert discovery.discover() == Discovered({**tools("a", "x"), **tools("b", "y")})
    hub.workers = {"a1": ("a", lists("z")), "b1": ("b", lists("z"))}
    assert discovery.discover("a") == Discovered(tools("a", "z"))
    catalogue.wait_for(a=["z"], b=["y"])


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("c", "unknown service 'c': there is a, b"),
        ("own", "service own is this worker's own: its tools are always published"),
        ("b", "service b: no answer within 1 s"),
    ],
)
def test_what_can_not_be_found_on_demand_is_one_line(hub: Any, make: Make, service: str, message: str) -> None:
    """Of a service that was named."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", is_busy)}
    with pytest.raises(TaskError) as caught:
        make(pace=Pace(answer=1.0)).discover(service)
    assert str(caught.value) == message


def test_without_services_an_unknown_one_is_told_so(make: Make) -> None:
    """And none is no error."""
    discovery = make()
    assert discovery.discover() == Discovered()
    with pytest.raises(TaskError, match="unknown service 'a': there is none"):
        discovery.discover("a")


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run the task `discover` on a worker with that discovery."""

    def run_task(discovery: Discovery | None, **kwargs: Any) -> Any:
        worker: Any = SimpleNamespace(name="w0", service="own", discovery=discovery)
        return TaskRegistry(discovery_tasks).run(worker, "discover", kwargs)

    return run_task


def test_the_task_names_the_tools_and_tells_of_services_that_fail(run: Any, found: Callable[..., Discovery]) -> None:
    """The others' are there all the same."""
    discovery = found(Fabric(a=[{"name": "x"}], b="nonsense"))
    result = run(discovery)
    assert (result.failed, result.result, result.messages) == (False, tools("a", "x"), [f"service b: {NO_LIST}"])
    assert run(discovery, service="a").result == tools("a", "x")


def test_the_task_fails_with_one_line(run: Any, found: Callable[..., Discovery]) -> None:
    """Without a broker, with one that is away, for a service that isn't there."""
    fabric = Fabric()
    fabric.fault = NoWorkersError("no broker answered")
    assert run(found(fabric)).errors == ["no broker answered"]
    assert run(found(Fabric()), service="x").errors == ["unknown service 'x': there is none"]
    assert run(None).errors == ["this worker has no broker: there are no other services to discover"]


def test_the_task_is_no_tool() -> None:
    """What it takes and gives is declared."""
    entry = TaskRegistry(discovery_tasks).get("discover").entry()
    assert entry["mcp"] is False
    assert list(entry["inputSchema"]["properties"]) == ["service"]


def test_a_worker_gets_its_fabric_and_gives_it_up_at_once(
    hub: Any, catalogue: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    """A service that is waited for doesn't hold it up, and the log hears nothing of it."""
    hub.workers = {"a1": ("a", lists("x")), "b1": ("b", is_silent)}
    worker: Any = SimpleNamespace(name="w0", service="own", health={}, fabric=None, discovery=None)
    stop = start_fabric_client(worker, hub.address, KeyPair(*zmq.curve_keypair()), catalogue)
    catalogue.wait_for(a=["x"])
    assert worker.health["fabric_jobs"]()["running"] == 1
    stop()
    assert [thread.name for thread in threading.enumerate() if thread.name in {"discovery", "fabric-client"}] == []
    assert caplog.records == []
    assert (worker.fabric.counters()["running"], worker.discovery.stop()) == (0, None)
