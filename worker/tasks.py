"""The task registry: one model and one function make a task.

`@task(...)` attaches a `TaskSpec` to a plain function `(worker, arguments)`; a `TaskRegistry` collects the functions of
modules and yields everything that is derived from them: validated runs, `list_tasks` entries, MCP tools.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..models.errors import TaskError, TokenStoreError, sentences
from ..models.result import Result, ResultStatus
from ..models.tokens import TaskInput

if TYPE_CHECKING:
    from .context import WorkerContext

log = logging.getLogger(__name__)

TaskFunction = Callable[["WorkerContext", Any], Any]


@dataclass(frozen=True)
class ToolHints:
    """How an MCP client may treat the tool made of a task; the field names are those of MCP's `ToolAnnotations`."""

    title: str
    read_only: bool = True
    destructive: bool = False
    idempotent: bool = True
    open_world: bool = False

    def annotations(self) -> dict[str, Any]:
        """Return the annotations under their names on the wire."""
        return {
            "title": self.title,
            "readOnlyHint": self.read_only,
            "destructiveHint": self.destructive,
            "idempotentHint": self.idempotent,
            "openWorldHint": self.open_world,
        }


@dataclass(frozen=True)
class TaskSpec:
    """A task: its name, function, input model, type of result value, and hints for MCP (None: never a tool).

    `is_quick`: it only reads memory, so that handing it to another thread would take longer than running it.
    """

    name: str
    function: TaskFunction
    input_model: type[BaseModel]
    result_type: Any
    mcp: ToolHints | None
    is_quick: bool = False

    @property
    def description(self) -> str:
        """The function's docstring, unindented."""
        return inspect.getdoc(self.function) or ""

    def input_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the keyword arguments, without a top-level title."""
        schema = self.input_model.model_json_schema()
        schema.pop("title", None)
        schema.pop("description", None)
        schema.setdefault("properties", {})
        return schema

    def output_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a `Result` whose `result` has this task's type."""
        schema = Result.model_json_schema(mode="serialization")
        value = TypeAdapter(self.result_type).json_schema(mode="serialization")
        schema.setdefault("$defs", {}).update(value.pop("$defs", {}))
        value["description"] = "Value the task returned, null when it failed"
        schema["properties"]["result"] = {"anyOf": [value, {"type": "null"}]}
        schema.pop("required", None)
        return schema

    def entry(self) -> dict[str, Any]:
        """Return this task's `list_tasks` entry (seven keys, NFP section "list_tasks")."""
        return {
            "name": self.name,
            "description": self.description,
            "inputSchema": self.input_schema(),
            "outputSchema": self.output_schema(),
            "fastapi": False,
            "mcp": {"annotations": self.mcp.annotations()} if self.mcp else False,
            "agent": {},
        }


def task(
    *, arguments: type[BaseModel] = TaskInput, result: Any, mcp: ToolHints | None = None, is_quick: bool = False
) -> Callable[[TaskFunction], TaskFunction]:
    """Make a function `(worker, arguments) -> value` a task named after it.

    Args:
        arguments: input model; what the function gets as its second parameter is a validated instance of it.
        result: type of the value the function returns (it may return a whole `Result` as well).
        mcp: hints for MCP clients; None keeps the task off the MCP endpoint whatever the configuration says.
        is_quick: the function takes microseconds and never waits: no disk, no lock, no network.
    """

    def mark(function: TaskFunction) -> TaskFunction:
        spec = TaskSpec(function.__name__, function, arguments, result, mcp, is_quick)
        function.task_spec = spec  # type: ignore[attr-defined]
        return function

    return mark


class TaskRegistry:
    """The tasks of one worker, by name."""

    def __init__(self, *modules: ModuleType) -> None:
        specs = (
            value.task_spec for module in modules for value in vars(module).values() if hasattr(value, "task_spec")
        )
        self._specs: dict[str, TaskSpec] = {spec.name: spec for spec in specs}

    def __iter__(self) -> Iterator[TaskSpec]:
        """Iterate over the tasks by name."""
        return iter(self._specs[name] for name in sorted(self._specs))

    def get(self, name: str) -> TaskSpec:
        """Return the task of that name.

        Raises:
            TaskError: there is none.
        """
        try:
            return self._specs[name]
        except KeyError:
            raise TaskError(f"unknown task {name[:64]!r}: list_tasks names those there are") from None

    def is_quick(self, name: str) -> bool:
        """Whether there is a task of that name that may be run in a thread that has other things to do."""
        return name in self._specs and self._specs[name].is_quick

    def run(self, worker: WorkerContext, name: str, kwargs: dict[str, Any], *, uuid: str | None = None) -> Result:
        """Validate the arguments, run the task and wrap what it returns; never raises.

        May be called from any thread; the function runs in the caller's.
        """
        started = time.ctime()
        try:
            spec = self.get(name)
            value = spec.function(worker, spec.input_model.model_validate(kwargs))
            result = value if isinstance(value, Result) else Result(result=value)
            result.status = result.status or ResultStatus.COMPLETED
        except ValidationError as error:
            result = _failed(sentences(error))
        except TokenStoreError as error:
            # Nothing that the caller did: whoever runs the worker has to see to the disk.
            log.error("task %s failed: %s", name[:64], error)
            result = _failed([str(error)])
        except TaskError as error:
            result = _failed([str(error)])
        except Exception as error:  # noqa: BLE001  a fault in a task must not end the thread that serves all others
            log.error("task %s failed: %s", name[:64], type(error).__name__)
            result = _failed([f"internal error in task {name[:64]}: {type(error).__name__}"])
        result.task = f"{worker.name}:{name}"
        result.service = worker.service
        result.juuid = uuid
        result.task_started, result.task_completed = started, time.ctime()
        return result


def _failed(errors: list[str]) -> Result:
    return Result(result=None, failed=True, errors=errors, status=ResultStatus.ERROR)
