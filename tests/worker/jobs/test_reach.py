"""What tasks of plugins reach, and for whom."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import NoWorkersError, TaskError
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.models.inventory.tool_policy import ToolsInventory
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.fabric.client import FabricClient
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.plugins import _wrap
from nfcli.worker.jobs.task import TaskRegistry, ToolHints, task
from nfcli.worker.jobs.task_context import TaskContext
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.tools.policy import ToolPolicy, ToolUser
from support.task_context import task_context

RULES = [{"field": "text", "type": "contains", "match": ["secret"], "message": "no secrets"}]


class Text(TaskInput):
    """Arguments of `say`."""

    text: str


@task(arguments=Text, mcp=ToolHints(guardrails=RULES))
def say(worker: WorkerContext, arguments: Text) -> str:
    """Return a text."""
    return f"{worker.name} {worker.uuid}: {arguments.text}"


@task(mcp=False)
def hidden(worker: WorkerContext, _: TaskInput) -> str:
    """Return something, but not to MCP clients."""
    return worker.name


@task(mcp=False, restricted=True)
def locked(worker: WorkerContext, _: TaskInput) -> str:
    """Return something to clients alone."""
    return worker.name


@task
def circle(worker: WorkerContext, _: TaskInput) -> Any:
    """Run itself."""
    result = worker.run_job(worker.service, "circle")[worker.name]
    if result["failed"]:
        raise TaskError(result["errors"][0])
    return result["result"]


class FakeFabric:
    """Takes jobs and lists workers; `answer` is the future of each job."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.answer: Future[Any] = Future()

    def submit(self, service: str, name: str, kwargs: dict[str, Any], **options: Any) -> Future[Any]:
        """Take a job."""
        self.sent.append((service, name, kwargs, options))
        return self.answer

    def workers(self) -> list[dict[str, str]]:
        """List two workers of the service, and another."""
        return [
            {"name": "w1", "service": "fastmcp"},
            {"name": "w2", "service": "fastmcp"},
            {"name": "n1", "service": "nornir"},
        ]


@pytest.fixture
def worker(open_store: Callable[[], TokenStore], trail: AuditTrail, tmp_path: Path) -> TaskContext:
    """Provide the context of a job in direct mode, of a worker with these tasks."""
    tasks = ModuleType("tasks")
    vars(tasks).update({each.__name__: each for each in (say, hidden, locked)}, circle=circle)
    registry = TaskRegistry(tasks)
    registry.add(replace(registry.get("circle"), function=_wrap(circle)))
    inventory = WorkerInventory(service="fastmcp")
    return task_context(Environment(tmp_path, None), registry, open_store(), trail, inventory=inventory, uuid="u1")


def in_fabric(worker: TaskContext, fabric: FakeFabric, **fields: Any) -> WorkerContext:
    """Return what a plugin gets of a worker in a fabric."""
    return replace(worker, fabric=cast("FabricClient", fabric), **fields).for_plugin()


@pytest.mark.parametrize("workers", ["all", "any", "w1", ["w1"]])
def test_own_tasks_are_run_at_once(worker: TaskContext, workers: Any) -> None:
    """With the job's uuid, their results as a client gets them, failures among them."""
    results = worker.for_plugin().run_job("fastmcp", "say", {"text": "hello"}, workers)
    assert {name: result["result"] for name, result in results.items()} == {"w1": "w1 u1: hello"}
    assert (results["w1"]["status"], results["w1"]["task"]) == ("completed", "w1:say")
    failed = worker.for_plugin().run_job("fastmcp", "say", {}, workers)["w1"]
    assert (failed["failed"], failed["errors"]) == (True, ["text: field required"])


@pytest.mark.parametrize(
    ("service", "workers"), [("nornir", "all"), ("filesharing", "any"), ("fastmcp", "w2"), ("fastmcp", ["w1", "w2"])]
)
def test_without_a_broker_other_workers_are_not_reached(worker: TaskContext, service: str, workers: Any) -> None:
    """In one line that names the own service."""
    with pytest.raises(TaskError, match=r"^worker w1 has no broker: .*, service fastmcp$"):
        worker.for_plugin().run_job(service, "say", {"text": "x"}, workers)
    with pytest.raises(TaskError, match="has no broker"):
        worker.for_plugin().fetch_file("nf://x")


@pytest.mark.parametrize("service", ["fastmcp", "nornir"])
@pytest.mark.parametrize("name", ["bearer_token_list", "Bearer-Token-Store"])
def test_token_tasks_are_never_reached(worker: TaskContext, service: str, name: str) -> None:
    """Of no service."""
    fabric = FakeFabric()
    for is_relayed in (False, True):
        with pytest.raises(TaskError, match=f"^task {name} is restricted: "):
            in_fabric(worker, fabric, is_relayed=is_relayed).run_job(service, name)
    assert fabric.sent == []


def test_restricted_tasks_are_never_reached(worker: TaskContext) -> None:
    """Not of this worker, nor of others of its service; another service's task of this name is another task."""
    fabric = FakeFabric()
    with pytest.raises(TaskError, match=r"^task locked is restricted: "):
        worker.for_plugin().run_job("fastmcp", "locked")
    with pytest.raises(TaskError, match=r"^task locked is restricted: "):
        in_fabric(worker, fabric).run_job("fastmcp", "locked", workers="w2")
    assert fabric.sent == []
    fabric.answer.set_result({"n1": {"result": 1}})
    assert in_fabric(worker, fabric).run_job("nornir", "locked") == {"n1": {"result": 1}}


def test_for_mcp_and_other_workers_only_tools_are_reached(worker: TaskContext) -> None:
    """And their guardrails apply; other clients reach the rest too."""
    relayed = replace(worker, is_relayed=True).for_plugin()
    assert relayed.run_job("fastmcp", "say", {"text": "hello"})["w1"]["result"] == "w1 u1: hello"
    with pytest.raises(TaskError, match="no secrets"):
        relayed.run_job("fastmcp", "say", {"text": "my secret"})
    with pytest.raises(TaskError, match=r"^task hidden of service fastmcp is no tool that worker w1 publishes"):
        relayed.run_job("fastmcp", "hidden")
    with pytest.raises(TaskError, match=r"^task cli of service nornir is no tool that worker w1 publishes"):
        in_fabric(worker, FakeFabric(), is_relayed=True).run_job("nornir", "cli")
    with pytest.raises(TaskError, match=r"^task fetch_file of service filesharing is no tool"):
        in_fabric(worker, FakeFabric(), is_relayed=True).fetch_file("nf://x")
    assert worker.for_plugin().run_job("fastmcp", "hidden")["w1"]["result"] == "w1"
    assert worker.for_plugin().run_job("fastmcp", "say", {"text": "my secret"})["w1"]["failed"] is False


def test_a_tool_call_is_judged_as_one(worker: TaskContext) -> None:
    """`run_tool` makes the context of the call of an MCP client."""
    registry = worker.registry

    @task
    def lead(context: WorkerContext, _: TaskInput) -> Any:
        """Run a task that is no tool."""
        return context.run_job("fastmcp", "hidden")["w1"]["result"]

    registry.add(replace(TaskRegistry(_module(lead)).get("lead"), function=_wrap(lead)))
    assert registry.run(worker, "lead", {}).result == "w1"
    refused = worker.run_tool("lead", {}, None, threading.Event())
    assert refused.failed
    assert "is no tool that worker w1 publishes" in refused.errors[0]


def _module(function: Any) -> ModuleType:
    module = ModuleType("module")
    vars(module)[function.__name__] = function
    return module


def test_a_task_that_runs_itself_comes_to_an_end(worker: TaskContext) -> None:
    """After five."""
    result = worker.registry.run(worker, "circle", {})
    assert result.failed
    assert result.errors == ["jobs of tasks are nested more than 5 deep: circle probably leads to itself"]


def test_other_workers_of_the_own_service_are_asked_beside_it(worker: TaskContext) -> None:
    """The job goes to the others, with the depth and the time that are left."""
    fabric = FakeFabric()
    fabric.answer.set_result({"w2": {"result": "w2"}})
    results = in_fabric(worker, fabric, depth=2, seconds_left=lambda: 3.0).run_job("fastmcp", "hidden", timeout=60)
    assert {name: result["result"] for name, result in results.items()} == {"w1": "w1", "w2": "w2"}
    ((service, name, kwargs, options),) = fabric.sent
    assert (service, name, kwargs) == ("fastmcp", "hidden", {})
    assert options == {"timeout": 3.0, "target": ["w2"], "on_stream": None, "depth": 3}


@pytest.mark.parametrize("reason", ["cancelled", "stopping"])
def test_the_wait_ends_with_the_calling_task(worker: TaskContext, reason: str) -> None:
    """The job is no longer waited for."""
    fabric = FakeFabric()
    context = in_fabric(worker, fabric)
    getattr(context, reason).set()
    with pytest.raises(TaskError, match="not wanted any more"):
        context.run_job("nornir", "cli")
    assert fabric.answer.cancelled()


def test_what_is_wrong_is_a_task_error(worker: TaskContext) -> None:
    """So that a task that doesn't handle it fails with the reason."""
    fabric = FakeFabric()
    fabric.answer.set_exception(NoWorkersError("no such service"))
    with pytest.raises(TaskError, match=r"^no such service$"):
        in_fabric(worker, fabric).run_job("nornir", "cli")
    with pytest.raises(TaskError, match="timeout must be a positive number"):
        in_fabric(worker, fabric).run_job("nornir", "cli", timeout=0)
    with pytest.raises(TaskError, match="no longer waits"):
        in_fabric(worker, fabric, seconds_left=lambda: 0.0).run_job("nornir", "cli")
    with pytest.raises(TaskError, match="one service at a time"):
        in_fabric(worker, fabric).run_job("all", "echo")
    with pytest.raises(TaskError, match="has a part that is empty"):
        in_fabric(worker, fabric).fetch_file("nf://../x")
    with pytest.raises(TaskError, match="belongs to no call"):
        WorkerContext(name="w", service="s", inventory=worker.inventory, stopping=threading.Event()).run_job("s", "t")


def test_tools_of_some_users_are_reached_for_these(worker: TaskContext) -> None:
    """Of a job of another worker nobody knows the user."""
    rules = [{"tasks": ["say"], "users": ["ann"]}, {"tasks": ["say"], "action": "reject"}]
    worker.catalogue.apply_policy(ToolPolicy(ToolsInventory.model_validate({"policy": rules})))
    assert worker.catalogue.tools
    ann, bob = (ToolUser(name, frozenset()) for name in ("ann", "bob"))
    assert _said_for(worker, ann) == "w1 u1: hello"
    for user in (bob, None):
        with pytest.raises(TaskError, match="is no tool that worker w1 publishes"):
            _said_for(worker, user)
    with pytest.raises(TaskError, match="is no tool that worker w1 publishes"):
        _said(replace(worker, is_relayed=True))


def _said(worker: TaskContext) -> Any:
    return worker.for_plugin().run_job("fastmcp", "say", {"text": "hello"})["w1"]["result"]


def _said_for(worker: TaskContext, user: ToolUser | None) -> Any:
    return _said(replace(worker, is_relayed=True, may_use=lambda access: access.allows(user)))
