"""The tasks of services as the shell keeps them."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from nfcli.models.commands.schemas.commands import TaskCommand
from nfcli.models.errors import NoWorkersError, TaskError
from nfcli.shell.repl.services.catalogue import TaskCatalogue


class Workers:
    """A client whose workers list tasks; `gate` holds their answers back until it is set."""

    def __init__(self) -> None:
        self.rows = {name: {"service": "demo", "status": "alive", "alive (s)": "100"} for name in ("w1", "w2")}
        self.tasks: dict[str, Any] = {name: [{"name": "say"}] for name in self.rows}
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def show_workers(self) -> list[dict[str, str]]:
        """Return the rows."""
        if self.error:
            raise self.error
        return [{"name": name, **row} for name, row in self.rows.items()]

    def run_job(self, service: str, task: str, *, workers: str = "all", timeout: float = 60) -> Any:
        """List tasks."""
        assert (task, workers) == ("list_tasks", "all")
        assert timeout <= 3
        self.asked.append(service)
        self.gate.wait(10)
        if self.error:
            raise self.error
        names = [name for name, row in self.rows.items() if row["service"] == service]
        return {
            name: {
                "failed": isinstance(self.tasks[name], str),
                "result": self.tasks[name],
                "errors": [self.tasks[name]],
            }
            for name in names
        }


@pytest.fixture
def workers() -> Workers:
    """Provide two workers of service `demo`."""
    return Workers()


@pytest.fixture
def clock() -> SimpleNamespace:
    """Provide a clock that stands still until a test moves it."""
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def notes() -> list[str]:
    """Provide what is noted."""
    return []


@pytest.fixture
def catalogue(workers: Workers, clock: SimpleNamespace, notes: list[str]) -> TaskCatalogue:
    """Provide a catalogue."""
    return TaskCatalogue(workers, note=notes.append, clock=lambda: clock.now)


def wait(workers: Workers, clock: SimpleNamespace, seconds: float) -> None:
    """Let time pass, for the workers as well."""
    clock.now += seconds
    for row in workers.rows.values():
        row["alive (s)"] = str(float(row["alive (s)"]) + seconds)


def test_tasks_are_asked_for_once_until_a_worker_starts_again(
    catalogue: TaskCatalogue, workers: Workers, clock: SimpleNamespace
) -> None:
    """Whichever worker it is; then new tasks are there at once."""
    for _ in range(3):
        assert [*catalogue.task_entries("demo")] == ["say"]
        wait(workers, clock, 500)
    assert workers.asked == ["demo"]
    workers.rows["w2"]["alive (s)"] = "2"
    workers.tasks["w2"] = [{"name": "say"}, {"name": "new"}]
    assert [*catalogue.task_entries("demo")] == ["new", "say"]
    assert catalogue.task_entries("demo")["new"].field.description == "(on w2)"
    assert workers.asked == ["demo"] * 2


def test_tasks_are_asked_for_again_when_workers_come_and_go(
    catalogue: TaskCatalogue, workers: Workers, clock: SimpleNamespace
) -> None:
    """A worker that has left is not waited for; one that has joined brings its tasks."""
    catalogue.task_entries("demo")
    wait(workers, clock, 2)
    workers.rows["w3"] = {"service": "demo", "status": "alive", "alive (s)": "1"}
    workers.tasks["w3"] = [{"name": "more"}]
    assert [*catalogue.task_entries("demo")] == ["more", "say"]


def test_a_worker_that_lists_nothing_is_named_and_asked_again_later(
    catalogue: TaskCatalogue, workers: Workers, clock: SimpleNamespace, notes: list[str]
) -> None:
    """The others' tasks are there; half a minute later it gets another chance."""
    workers.tasks["w2"] = "out of order"
    assert [*catalogue.task_entries("demo")] == ["say"]
    assert notes == ["w2 hasn't listed its tasks: out of order"]
    wait(workers, clock, 29)
    catalogue.task_entries("demo")
    assert workers.asked == ["demo"]
    workers.tasks["w2"] = [{"name": "late"}]
    wait(workers, clock, 2)
    assert [*catalogue.task_entries("demo")] == ["late", "say"]


def test_a_service_without_an_answer_is_an_error(catalogue: TaskCatalogue, workers: Workers) -> None:
    """With each worker's reason; an answer that is no list of tasks counts as none."""
    workers.tasks = {"w1": "out of order", "w2": {"say": 1}}
    with pytest.raises(TaskError) as caught:
        catalogue.task_entries("demo")
    assert str(caught.value) == (
        "no worker of demo has listed its tasks: w1 hasn't listed its tasks: out of order; "
        "w2: the answer to list_tasks is not a list of at most 10000 tasks"
    )
    workers.error = NoWorkersError("no broker")
    with pytest.raises(NoWorkersError):
        catalogue.task_entries("demo")


def test_services_are_listed_with_their_workers(catalogue: TaskCatalogue, workers: Workers) -> None:
    """Those with names that can be typed; `all` stands for every one."""
    workers.rows |= {
        f"x{number}": {"service": service, "status": "dead", "alive (s)": ""}
        for number, service in enumerate(("all", "", "a\x1b[2Jb", "other"))
    }
    assert catalogue.services() == {"demo": "2 workers", "other": "1 worker"}


def test_a_key_press_never_waits(catalogue: TaskCatalogue, workers: Workers) -> None:
    """What isn't known is asked for meanwhile, once, and there when the answer has come."""
    workers.gate.clear()
    with catalogue.only_known():
        begun = time.monotonic()
        assert [catalogue.task_entries("demo") for _ in range(3)] == [{}] * 3
        assert workers.asked == ["demo"]
        workers.gate.set()
        while not (found := catalogue.task_entries("demo")):
            assert time.monotonic() - begun < 30
        assert [*found] == ["say"]
    assert workers.asked == ["demo"]


def test_a_key_press_that_fails_is_not_repeated_at_once(
    catalogue: TaskCatalogue, workers: Workers, clock: SimpleNamespace
) -> None:
    """A broker that is away is asked again after half a minute, and nothing is said about it."""
    workers.error = NoWorkersError("no broker")
    with catalogue.only_known():
        for _ in range(3):
            assert catalogue.task_entries("demo") == {}
            assert catalogue.services() == {}
    assert workers.asked == ["demo"]
    workers.error = None
    clock.now += 31
    with catalogue.only_known():
        begun = time.monotonic()
        while not catalogue.task_entries("demo"):
            assert time.monotonic() - begun < 30


def test_thousands_of_tasks_are_no_burden(catalogue: TaskCatalogue, workers: Workers) -> None:
    """Their commands are made when they are used."""
    schema = {"type": "object", "properties": {"x": {"type": "string"}}}
    tasks = [{"name": f"task_{number}", "inputSchema": schema, "description": "x" * 1_000} for number in range(5_000)]
    workers.tasks = {"w1": tasks, "w2": tasks}
    before = {*TaskCommand.__subclasses__()}
    entries = catalogue.task_entries("demo")
    assert len(entries) == 5_000
    assert {*TaskCommand.__subclasses__()} <= before
    model = entries["task_4999"].model
    assert model is entries["task_4999"].model
    assert {*TaskCommand.__subclasses__()} - before == {model}
