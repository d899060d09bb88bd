"""The task registry: what one model and one function yield, and which tasks are tools."""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from pydantic import AliasChoices, AliasPath, Field

from nfcli.models.environment.paths import Environment
from nfcli.models.protocol.jobs import Result
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import TaskRegistry, ToolHints, task
from nfcli.worker.tokens.errors import TokenStoreDiskError
from nfcli.worker.worker import TASK_MODULES
from support.task_context import task_context


class Greeting(TaskInput):
    """Whom to greet."""

    name: Annotated[str, Field(description="Whom to greet")]
    times: int = 1


def greet(_worker: WorkerContext, arguments: Greeting) -> str:
    """Greet somebody.

    As often as asked.
    """
    return " ".join([f"hello {arguments.name}"] * arguments.times)


def registry() -> TaskRegistry:
    """Return a registry with two tasks, one of them a tool."""
    tasks = ModuleType("tasks")

    def hidden(_worker: WorkerContext, _arguments: TaskInput) -> bool:
        return True

    marked = task(arguments=Greeting, result=str, mcp=ToolHints("Greet", read_only=True))(greet)
    vars(tasks).update(greet=marked, hidden=task(result=bool, mcp=False)(hidden), other=print)
    return TaskRegistry(tasks)


def test_a_changed_entry_changes_no_other() -> None:
    """Schemas are made once; each caller gets its own."""
    tasks = registry()
    first, other = tasks.get("greet").entry(), tasks.get("hidden").entry()
    for properties in (first["inputSchema"]["properties"], first["outputSchema"]["properties"]):
        properties.clear()
    assert tasks.get("greet").entry() == registry().get("greet").entry() != first
    assert tasks.get("hidden").entry() == other
    assert registry().get("hidden").entry() == other


def test_an_entry_has_the_seven_keys_of_the_protocol() -> None:
    """Other workers of the fabric publish the task by it."""
    entry = registry().get("greet").entry()
    assert sorted(entry["outputSchema"]["properties"]) == sorted(Result.model_fields)
    assert "required" not in entry.pop("outputSchema")
    assert entry == {
        "name": "greet",
        "description": "Greet somebody.\n\nAs often as asked.",
        "inputSchema": {
            "additionalProperties": False,
            "properties": {
                "name": {"description": "Whom to greet", "title": "Name", "type": "string"},
                "times": {"default": 1, "title": "Times", "type": "integer"},
            },
            "required": ["name"],
            "type": "object",
        },
        "fastapi": False,
        "mcp": {
            "annotations": {
                "title": "Greet",
                "readOnlyHint": True,
                "destructiveHint": True,
                "idempotentHint": False,
                "openWorldHint": True,
            }
        },
        "agent": {},
    }


def test_the_tools_of_every_worker_are_these_four_and_read_only() -> None:
    """A new built-in task is a tool only if it is added to this list."""
    specs = {spec.name: spec.mcp for spec in TaskRegistry(*TASK_MODULES) if spec.mcp is not None}
    assert specs == {
        name: ToolHints(title, read_only=True, destructive=False, idempotent=True, open_world=False)
        for name, title in (
            ("get_inventory", "Get Inventory"),
            ("get_status", "Get Status"),
            ("get_tools", "Get MCP Tools"),
            ("get_version", "Get Version"),
        )
    }


def named(name: str, mcp: ToolHints | Mapping[str, Any] | Literal[False] | None = None) -> Any:
    """Return the `mcp` object of a task's `list_tasks` entry."""
    tasks = ModuleType("tasks")

    def function(_worker: WorkerContext, _arguments: TaskInput) -> bool:
        return True

    function.__name__ = name
    tasks.function = task(mcp=mcp)(function)  # type: ignore[attr-defined]
    return TaskRegistry(tasks).get(name).entry()["mcp"]


def test_a_task_without_hints_is_a_tool_that_may_do_anything() -> None:
    """The hints are MCP's defaults, the title is made of the name."""
    assert named("show_all_routes") == {
        "annotations": {
            "title": "Show All Routes",
            "readOnlyHint": False,
            "destructiveHint": True,
            "idempotentHint": False,
            "openWorldHint": True,
        }
    }


def test_hints_in_norfabs_notation_equal_toolhints() -> None:
    """Rules are sent unchanged, empty ones omitted."""
    rules = [{"name": "no reload", "field": "commands"}]
    theirs = {"annotations": {"title": "Look", "readOnlyHint": True}, "guardrails": rules}
    ours = ToolHints("Look", read_only=True, guardrails=rules)
    assert named("look", theirs) == named("look", ours)
    assert named("look", ours)["guardrails"] == rules
    assert sorted(named("look", ours)) == ["annotations", "guardrails"]
    prompts = ToolHints(prompts=({"name": "p"},), result_guardrails=({"name": "r"},))
    assert sorted(named("look", prompts)) == ["annotations", "prompts", "result_guardrails"]


@pytest.mark.parametrize("name", ["bearer_token_store", "bearer_token_x", "bearer_token_", "run_shell_cmd"])
def test_a_task_that_manages_tokens_or_runs_commands_is_never_a_tool(name: str) -> None:
    """Whatever the decorator says."""
    assert named(name) is False
    assert named(name, ToolHints("Harmless", read_only=True)) is False


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"mcp": True}, "mcp must be ToolHints, a mapping, False or None"),
        ({"mcp": {"annotation": {}}}, "mcp has no key 'annotation'"),
        ({"mcp": {"annotations": {"readOnly": True}}}, "mcp has no key 'readOnly'"),
        ({"mcp": {"annotations": []}}, "annotations must be a mapping"),
        ({"mcp": {"annotations": {"readOnlyHint": "yes"}}}, "read_only must be True or False"),
        ({"mcp": {"annotations": {"title": 1}}}, "title must be text"),
        ({"mcp": {"prompts": {"name": "p"}}}, "prompts must be a list of mappings"),
        ({"mcp": {"guardrails": ["x"]}}, "guardrails must be a list of mappings"),
        ({"arguments": dict}, "arguments must be a subclass of TaskInput"),
        ({"arguments": TaskInput()}, "arguments must be a subclass of TaskInput"),
    ],
)
def test_an_invalid_decorator_is_refused(mistake: dict[str, Any], message: str) -> None:
    """At import, not when a client lists the tools."""
    with pytest.raises(TypeError) as caught:
        task(**mistake)(greet)
    assert str(caught.value) == message


def test_the_decorator_needs_no_parentheses() -> None:
    """Then the task takes no arguments and returns anything."""

    @task
    def plain(_worker: WorkerContext, _arguments: TaskInput) -> list[int]:
        return [1]

    tasks = ModuleType("tasks")
    tasks.plain = plain  # type: ignore[attr-defined]
    entry = TaskRegistry(tasks).get("plain").entry()
    assert entry["inputSchema"]["properties"] == {}
    assert "type" not in entry["outputSchema"]["properties"]["result"]["anyOf"][0]


def test_a_task_that_exits_fails_without_ending_its_thread(trail: Any, open_store: Any, tmp_path: Path) -> None:
    """SystemExit is a failed result like any error."""

    def leave(_worker: WorkerContext, _arguments: TaskInput) -> bool:
        raise SystemExit(3)

    tasks = ModuleType("tasks")
    tasks.leave = task(leave)  # type: ignore[attr-defined]
    registry = TaskRegistry(tasks)
    worker = task_context(Environment(tmp_path, None), registry, open_store(), trail)
    assert registry.run(worker, "leave", {}).errors == ["internal error in task leave: SystemExit"]


def test_result_says_whose_it_is_and_when_it_was_made(trail: Any, open_store: Any, tmp_path: Path) -> None:
    """Of failed tasks too; the times are local ones without a fraction."""
    tasks = registry()
    worker = task_context(Environment(tmp_path, None), tasks, open_store(), trail)
    for name, kwargs in (("greet", {"name": "Ann"}), ("greet", {}), ("nosuch", {})):
        result = tasks.run(worker, name, kwargs, uuid="u1")
        assert (result.task, result.service, result.juuid) == (f"w1:{name}", "fastmcp", "u1")
        started, completed = (time.strptime(each or "") for each in (result.task_started, result.task_completed))
        assert started <= completed


def test_error_of_the_token_store_is_returned_and_logged(
    trail: Any, open_store: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator has to look at the disk, whoever sent the job."""

    def fail(_worker: WorkerContext, _arguments: TaskInput) -> bool:
        raise TokenStoreDiskError("the disk is full")

    tasks = ModuleType("tasks")
    tasks.fail = task(fail)  # type: ignore[attr-defined]
    registry = TaskRegistry(tasks)
    worker = task_context(Environment(tmp_path, None), registry, open_store(), trail)
    (error,) = registry.run(worker, "fail", {}).errors
    assert error == str(TokenStoreDiskError("the disk is full"))
    assert caplog.messages == [f"task fail failed: {error}"]


def test_arguments_are_read_by_all_of_their_names() -> None:
    """As they were given and as the function gets them, in types of JSON."""

    class Named(TaskInput):
        plain: int
        short: Annotated[int, Field(alias="long")] = 0
        either: Annotated[int, Field(validation_alias=AliasChoices("one", AliasPath("two", 0)))] = 0
        path: Path = Path("a")

    marked = task(arguments=Named)(lambda _worker, _arguments: True)
    spec = vars(marked)["task_spec"]
    assert spec.read_arguments({"plain": "1", "long": "2", "one": "3", "path": "b"}) == {
        "plain": [1, "1"],
        **{key: [2, "2"] for key in ("short", "long")},
        **{key: [3, "3"] for key in ("either", "one", "two")},
        "path": ["b", "b"],
    }
    assert spec.read_arguments({"plain": "x"}) == {"plain": "x"}


def test_a_task_with_mcp_false_is_no_tool() -> None:
    """On this worker's MCP server and on those of others."""
    assert [(spec.name, bool(spec.entry()["mcp"])) for spec in registry()] == [("greet", True), ("hidden", False)]


def test_a_task_without_arguments_takes_none() -> None:
    """Its schema is an empty object, and unknown keys are refused."""
    assert registry().get("hidden").input_schema() == {
        "additionalProperties": False,
        "properties": {},
        "type": "object",
    }


def test_the_plugin_api_imports_no_heavy_library() -> None:
    """A plugin's own tests need neither a server nor a shell."""
    code = "from nfcli import TaskError, TaskInput, ToolHints, WorkerContext, task\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    heavy = {"mcp", "uvicorn", "starlette", "zmq", "diskcache", "picle", "rich", "nfcli.shell", "nfcli.man"}
    assert heavy & set(done.stdout.split()) == set()
