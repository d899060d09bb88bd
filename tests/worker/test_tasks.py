"""The task registry: what one model and one function yield."""

from types import ModuleType
from typing import Annotated

from pydantic import Field

from nfcli.models.result import Result
from nfcli.models.tokens import TaskInput
from nfcli.worker.context import WorkerContext
from nfcli.worker.tasks import TaskRegistry, ToolHints, task


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

    marked = task(arguments=Greeting, result=str, mcp=ToolHints("Greet"))(greet)
    vars(tasks).update(greet=marked, hidden=task(result=bool)(hidden), other=print)
    return TaskRegistry(tasks)


def test_an_entry_has_the_seven_keys_of_the_protocol() -> None:
    """What other workers of a fabric need to publish the task."""
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
                "destructiveHint": False,
                "idempotentHint": True,
                "openWorldHint": False,
            }
        },
        "agent": {},
    }


def test_a_task_without_hints_is_no_tool() -> None:
    """`mcp` false keeps a task off every MCP server, this one's and others'."""
    assert [(spec.name, bool(spec.entry()["mcp"])) for spec in registry()] == [("greet", True), ("hidden", False)]


def test_a_task_without_arguments_takes_none() -> None:
    """Its schema is an empty object, and unknown keys are refused."""
    assert registry().get("hidden").input_schema() == {
        "additionalProperties": False,
        "properties": {},
        "type": "object",
    }
