"""The tasks that show jobs: what a worker was sent, by whom, and what came of it, without secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
from pydantic import Field, SecretStr

from nfcli.models.environment.paths import Environment
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry, task
from nfcli.worker.tasks import jobs
from nfcli.worker.tokens.store import TokenStore
from support.job_bench import JobBench
from support.task_context import task_context

ROW = ["uuid", "client_address", "task", "status"]
TIMES = ["received_timestamp", "started_timestamp", "completed_timestamp"]


class Door(TaskInput):
    """A part of the arguments."""

    code: SecretStr | None = None


class Login(TaskInput):
    """Arguments of the test's task."""

    device: str
    pin: Annotated[str, Field(repr=False)] = ""
    puk: SecretStr | None = None
    otp: Annotated[str | None, Field(alias="oneTime", json_schema_extra={"format": "password"})] = None
    door: Door | None = None
    options: Annotated[dict[str, Any], Field(default_factory=dict)]


@pytest.fixture
def bench(open_store: Callable[[], TokenStore], trail: AuditTrail, tmp_path: Path) -> Iterator[JobBench]:
    """Return a bench whose worker has the tasks about jobs, and one with arguments that are secrets."""
    bench = JobBench(open_store(), trail, tmp_path)
    bench.executor.stop()
    tasks = ModuleType("tasks")

    def login(worker: Any, arguments: Login) -> str:
        worker.progress("knocking")
        return f"in {arguments.device}"

    tasks.login = task(arguments=Login)(login)  # type: ignore[attr-defined]
    registry = TaskRegistry(tasks, jobs)
    for spec in bench.worker.registry:
        registry.add(spec)
    bench.worker = task_context(Environment(tmp_path, None), registry, bench.worker.store, trail, service="demo")
    restart(bench)
    yield bench
    bench.gate.set()
    bench.executor.stop()


def restart(bench: JobBench, **limits: int) -> None:
    """Start a new executor with these limits, whose history the worker has."""
    bench.restart(**limits)
    bench.worker.jobs = bench.executor.history


def listed(bench: JobBench, **kwargs: Any) -> list[Any]:
    """Return what `job_list` shows, without its own row."""
    rows: list[Any] = bench.run("job_list", "list", client="shell", kwargs=kwargs)["result"]
    bench.executor._finished.forget(("shell", "list"))  # noqa: SLF001  the next listing has the same uuid
    return [row for row in rows if row["uuid"] != "list"]


def details(bench: JobBench, uuid: str, number: int = 0, **kwargs: Any) -> Any:
    """Return the Result of `job_details`."""
    return bench.run("job_details", f"details-{uuid}-{number}", client="shell", kwargs={"uuid": uuid, **kwargs})


def test_jobs_are_listed_the_newest_first(bench: JobBench) -> None:
    """In NorFab's format; one that runs has no end yet."""
    bench.run("count", "u1", client="a")
    bench.submit("hold", "u2", client="b")
    bench.entered.get(timeout=10)
    rows = listed(bench)
    assert [[row[key] for key in ROW] for row in rows] == [
        ["u2", "name of b", "hold", "PENDING"],
        ["u1", "name of a", "count", "COMPLETED"],
    ]
    assert all(list(row) == [*ROW, *TIMES, "worker", "service"] for row in rows)
    assert [row["completed_timestamp"] is None for row in rows] == [True, False]
    assert (rows[0]["worker"], rows[0]["service"]) == ("w1", "demo")
    times = [datetime.strptime(rows[1][key], "%a %b %d %H:%M:%S %Y") for key in TIMES]  # noqa: DTZ007  as NorFab's
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("kwargs", "uuids"),
    [
        ({"pending": False}, ["u3", "u1"]),
        ({"completed": False}, ["u2"]),
        ({"pending": None, "completed": None}, ["u3", "u2", "u1"]),
        ({"task": "hold"}, ["u2"]),
        ({"client": "name of a"}, ["u3", "u1"]),
        ({"client": "a"}, []),
        ({"uuid": "u1", "completed": False}, ["u1"]),
        ({"last": 2}, ["u3"]),  # its own row is the newest
    ],
)
def test_jobs_can_be_filtered(bench: JobBench, kwargs: dict[str, Any], uuids: list[str]) -> None:
    """The arguments are NorFab's."""
    bench.run("count", "u1", client="a")
    bench.submit("hold", "u2", client="b")
    bench.entered.get(timeout=10)
    bench.run("count", "u3", client="a")
    assert [row["uuid"] for row in listed(bench, **kwargs)] == uuids


def test_a_job_is_shown_with_arguments_events_and_result(bench: JobBench) -> None:
    """Secrets are masked: by name at any depth, and what the task's model declares to be one."""
    secrets = {"pin": "4711", "puk": "4712", "oneTime": "4713", "door": {"code": "4714"}}
    kwargs = {"device": "r1", **secrets, "options": {"retries": 2, "password": "hunter2"}}
    sent = bench.run("login", "u1", client="a", kwargs=kwargs, timeout=7)
    shown = details(bench, "u1")["result"]
    assert (shown["status"], shown["client_address"], shown["task"]) == ("COMPLETED", "name of a", "login")
    assert (shown["args"], shown["timeout"]) == ([], 7)
    masked = dict.fromkeys(secrets, "***")
    assert shown["kwargs"] == {"device": "r1", **masked, "options": {"retries": 2, "password": "***"}}
    assert shown["result_data"] == {
        "client_address": "name of a",
        "uuid": "u1",
        "status_code": "200",
        "result": {"w1": sent},
        "worker": "w1",
        "service": "demo",
    }
    assert [(event["event_type"], event["message"], event["status"]) for event in shown["job_events"]] == [
        ("progress", "starting", "running"),
        ("progress", "knocking", "running"),
        ("result_ready", "completed", "completed"),
    ]
    event = shown["job_events"][1]
    assert (event["juuid"], event["client_address"], event["task"]) == ("u1", "name of a", "login")
    assert datetime.strptime(event["created_at"], "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007  as NorFab's


def test_a_job_can_be_shown_without_result_and_events(bench: JobBench) -> None:
    """Both are asked for unless a client says otherwise."""
    bench.run("login", "u1", kwargs={"device": "r1"})
    assert details(bench, "u1", 1, result=False)["result"]["result_data"] is None
    assert details(bench, "u1", 2, events=False)["result"]["job_events"] == []


def test_a_running_and_a_failed_job_can_be_shown(bench: JobBench) -> None:
    """One that runs has no result."""
    bench.submit("hold", "u1")
    bench.entered.get(timeout=10)
    shown = details(bench, "u1")["result"]
    assert (shown["status"], shown["result_data"], len(shown["job_events"])) == ("STARTED", None, 1)
    bench.run("login", "u2")
    shown = details(bench, "u2")["result"]
    assert (shown["status"], shown["result_data"]["result"]["w1"]["errors"]) == ("FAILED", ["device: field required"])


@pytest.mark.parametrize("name", ["bearer_token_check", "bearer_token_list", "bearer_tokken_check"])
def test_arguments_and_results_of_token_tasks_are_not_shown(bench: JobBench, name: str) -> None:
    """Nor of a task that isn't known: it may be a misspelt one. That the job was there is."""
    bench.run("bearer_token_store", "u0", kwargs={"username": "ann", "token": "secret-token"})
    bench.run(name, "u1", kwargs={"token": "secret-token"} if "check" in name else {})
    for uuid in ("u0", "u1"):
        answer = details(bench, uuid)
        assert (answer["result"]["kwargs"], answer["result"]["result_data"]) == ({}, None)
        assert answer["messages"] == ["arguments and results of this task are not shown: they may be tokens"]
        assert "secret-token" not in str(answer)
    assert [row["task"] for row in listed(bench)][-2:] == [name, "bearer_token_store"]


def test_a_running_token_task_shows_no_arguments(bench: JobBench) -> None:
    """While it runs, its request is still in memory."""
    bench.submit("hold_change", "u1", kwargs={"amount": 42})
    bench.entered.get(timeout=10)
    assert (details(bench, "u1")["result"]["kwargs"], details(bench, "u1", 1)["result"]["args"]) == ({}, [])


def test_an_unknown_job_is_an_error_that_says_what_is_known(bench: JobBench) -> None:
    """A worker's memory begins with its start."""
    assert details(bench, "nope")["errors"] == [
        "no job 'nope' of worker w1 is known: job_list has the newest since its start"
    ]


def test_jobs_beyond_the_limit_are_forgotten(bench: JobBench) -> None:
    """The oldest are."""
    restart(bench, kept_jobs=2)
    for number in range(3):
        bench.run("login", f"u{number}", kwargs={"device": "r1"})
    assert [row["uuid"] for row in listed(bench)] == ["u2", "u1"]


def test_arguments_and_events_count_as_the_result_and_are_forgotten_with_it(bench: JobBench) -> None:
    """A client can't fill the worker's memory with arguments."""
    restart(bench, kept_result_bytes=2_000)
    for number in range(2):
        bench.run("login", f"u{number}", kwargs={"device": "r1", "options": {"text": "x" * 1_200}})
    shown = details(bench, "u0")["result"]
    assert (shown["kwargs"], shown["result_data"], shown["job_events"]) == ({}, None, [])
    assert (shown["status"], shown["task"]) == ("COMPLETED", "login")


def test_echo_names_the_job_that_it_came_with(bench: JobBench) -> None:
    """As NorFab's does: who sent it, under which uuid, with which time."""
    assert bench.run("echo", "u1", client="a", kwargs={"ping": "pong"}, timeout=9)["result"] == {
        "juuid": "u1",
        "client_address": "name of a",
        "timeout": 9.0,
        "task": "echo",
        "args": [],
        "kwargs": {"ping": "pong"},
    }
