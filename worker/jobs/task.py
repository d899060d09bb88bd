"""The task registry: one model and one function make a task.

`@task(...)` attaches a `TaskSpec` to a plain function `(worker, arguments)`; a `TaskRegistry` collects the functions of
modules and yields everything that is derived from them: validated runs, `list_tasks` entries, MCP tools.

Plugins import this module too (`from nfcli import task`), so it loads neither the MCP server nor ZeroMQ.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, cached_property
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from pydantic import AliasChoices, AliasPath, BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import from_json, to_json, to_jsonable_python

from ...models.errors import TaskError, TokenStoreError, validation_messages
from ...models.protocol.jobs import Result, ResultStatus
from ...models.tasks.audit import TOKEN_CHANGES, Operation
from ...models.tasks.auth import is_token_task
from ...models.tasks.base import TaskInput, fold_name

if TYPE_CHECKING:
    from .context import WorkerContext

log = logging.getLogger(__name__)

TaskFunction = Callable[[Any, Any], Any]
"""Takes the context, a `TaskContext` or in plugins a `WorkerContext`, and the validated arguments."""
FunctionT = TypeVar("FunctionT", bound=TaskFunction)
Rule = Mapping[str, Any]

# The task of NorFab's workers that runs operating-system commands: never a tool, whatever its decorator says.
_SHELL_TASK = "run_shell_cmd"
_HINTS = {
    "readOnlyHint": "read_only",
    "destructiveHint": "destructive",
    "idempotentHint": "idempotent",
    "openWorldHint": "open_world",
}
_RULES = ("prompts", "guardrails", "result_guardrails")


@dataclass(frozen=True)
class ToolHints:
    """Hints for MCP clients about the tool made of a task.

    The flags and their defaults are those of MCP's `ToolAnnotations`: without hints, clients must assume that the tool
    may do anything. The title defaults to the task's name in words. Prompts and guardrails are in NorFab's notation and
    are sent unchanged to the workers that publish the task.

    Raises:
        TypeError: a flag isn't a bool, the title isn't text, or rules aren't a list of mappings.
    """

    title: str = ""
    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True
    prompts: Sequence[Rule] = ()
    guardrails: Sequence[Rule] = ()
    result_guardrails: Sequence[Rule] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.title, str):
            raise TypeError("title must be text")
        for name in _HINTS.values():
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False")
        for name in _RULES:
            rules = getattr(self, name)
            if not isinstance(rules, list | tuple) or not all(isinstance(rule, Mapping) for rule in rules):
                raise TypeError(f"{name} must be a list of mappings")

    @classmethod
    def parse(cls, mcp: Mapping[str, Any]) -> ToolHints:
        """Return the hints given in NorFab's notation: `annotations` with MCP's names, prompts and guardrails.

        Raises:
            TypeError: a key is unknown, or a value has the wrong type.
        """
        annotations = mcp.get("annotations", {})
        if not isinstance(annotations, Mapping):
            raise TypeError("annotations must be a mapping")
        unknown = sorted({*mcp} - {"annotations", *_RULES}) + sorted({*annotations} - {"title", *_HINTS})
        if unknown:
            raise TypeError(f"mcp has no key {unknown[0]!r}")
        given: dict[str, Any] = {_HINTS.get(str(key), str(key)): value for key, value in annotations.items()}
        return cls(**given, **{key: mcp[key] for key in _RULES if key in mcp})

    def entry(self) -> dict[str, Any]:
        """Return the `mcp` object of a `list_tasks` entry: the annotations, and the rules that aren't empty."""
        annotations = {"title": self.title, **{wire: getattr(self, name) for wire, name in _HINTS.items()}}
        rules = {name: [dict(rule) for rule in getattr(self, name)] for name in _RULES}
        return {"annotations": annotations, **{name: each for name, each in rules.items() if each}}


def read_only_hints(title: str) -> ToolHints:
    """Return the hints of a tool that changes nothing and reads only this worker's state."""
    return ToolHints(title, read_only=True, destructive=False, idempotent=True, open_world=False)


class Lane(StrEnum):
    """Tasks that share threads and limits; those of one lane never wait for those of another."""

    GENERAL = "jobs"
    CHANGES = "token-changes"
    READS = "reads"


@dataclass(frozen=True)
class TaskSpec:
    """The declaration of one task: its function, model of arguments, type of result, and hints (None: never a tool).

    `audit` is the operation of the audit line that is written when the task changes nothing, None for tasks that aren't
    audited. `run_inline`: it only reads memory, so the thread that receives the job runs it. `is_read`: it waits for
    nothing but this worker's own memory and disk, so its jobs don't queue behind tasks that do. `restricted`: it shows
    or changes what clients must be authorized for, so its jobs have to be signed where the inventory says so, and other
    workers' are refused. `shows_tokens`: its results have tokens in them. `more`: further keys of the entry.
    """

    name: str
    function: TaskFunction
    input_model: type[BaseModel]
    result_type: Any
    mcp: ToolHints | None
    audit: Operation | None = None
    run_inline: bool = False
    is_read: bool = False
    restricted: bool = False
    shows_tokens: bool = False
    more: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if is_token_task(self.name):
            object.__setattr__(self, "restricted", True)
        if is_token_task(self.name) or fold_name(self.name) == _SHELL_TASK:
            object.__setattr__(self, "mcp", None)

    @property
    def lane(self) -> Lane:
        """The lane of the task's jobs: a change of tokens waits neither for other tasks nor for long lists."""
        if self.audit in TOKEN_CHANGES:
            return Lane.CHANGES
        return Lane.READS if self.is_read or is_token_task(self.name) else Lane.GENERAL

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
        schema = deepcopy(_result_schema())
        value = TypeAdapter(self.result_type).json_schema(mode="serialization")
        schema.setdefault("$defs", {}).update(value.pop("$defs", {}))
        value["description"] = "Value the task returned, null when it failed"
        schema["properties"]["result"] = {"anyOf": [value, {"type": "null"}]}
        schema.pop("required", None)
        return schema

    def read_arguments(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return keyword arguments as they were given and as the function would get them, for rules that judge them.

        A value is there under all names of its field, its own and its aliases, whichever of them was used; a list has
        the different forms of one. Arguments that aren't valid are returned as they were given: `TaskRegistry.run`
        refuses them.
        """
        found = dict(kwargs)
        try:
            model = self.input_model.model_validate(kwargs)
        except Exception:  # noqa: BLE001  a plugin's validators may raise anything
            return found
        for name in model.model_fields_set:
            spellings = spellings_of(name, type(model).model_fields.get(name))
            given = [kwargs[spelling] for spelling in spellings if spelling in kwargs]
            forms = [_jsonable(getattr(model, name, None)), *given]
            found |= dict.fromkeys(spellings, forms)
        return found

    def entry(self) -> dict[str, Any]:
        """Return this task's `list_tasks` entry (NFP, section "list_tasks"), which the caller may change."""
        input_schema, output_schema = from_json(self._schemas)
        return {
            "name": self.name,
            "description": self.description,
            "inputSchema": input_schema,
            "outputSchema": output_schema,
            "fastapi": False,
            "mcp": self.mcp.entry() if self.mcp else False,
            "agent": {},
            **(self.more or {}),
        }

    @cached_property
    def _schemas(self) -> bytes:
        return to_json([self.input_schema(), self.output_schema()])


@cache
def _result_schema() -> dict[str, Any]:
    return Result.model_json_schema(mode="serialization")


def spellings_of(name: str, field: FieldInfo | None) -> list[str]:
    """Return all names that an argument can be given by."""
    if field is None:
        return [name]
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    paths = [each.path[0] if isinstance(each, AliasPath) else each for each in choices]
    return list(dict.fromkeys(each for each in (name, field.alias, *paths) if isinstance(each, str)))


def _jsonable(value: Any) -> Any:
    try:
        return to_jsonable_python(value, fallback=str)
    except ValueError:
        return str(value)


@overload
def task(function: FunctionT, /) -> FunctionT: ...


@overload
def task(
    *,
    arguments: type[BaseModel] = ...,
    result: Any = ...,
    mcp: ToolHints | Mapping[str, Any] | Literal[False] | None = ...,
    audit: Operation | None = ...,
    run_inline: bool = ...,
    is_read: bool = ...,
    restricted: bool = ...,
    shows_tokens: bool = ...,
) -> Callable[[FunctionT], FunctionT]: ...


def task(
    function: TaskFunction | None = None,
    /,
    *,
    arguments: type[BaseModel] = TaskInput,
    result: Any = Any,
    mcp: ToolHints | Mapping[str, Any] | Literal[False] | None = None,
    audit: Operation | None = None,
    run_inline: bool = False,
    is_read: bool = False,
    restricted: bool = False,
    shows_tokens: bool = False,
) -> Any:
    """Make a function `(worker, arguments) -> value` a task named after it; `@task` and `@task(...)` both do.

    Args:
        function: the function, if the decorator is used without parentheses.
        arguments: input model; the function's second argument is a validated instance of it.
        result: type of the value that the function returns; it may return a `Result` instead.
        mcp: hints for MCP clients, `ToolHints` or NorFab's notation; None: a tool without hints; False: never a tool,
            whatever the configuration says.
        audit: operation that the audit trail records when a job of the task fails or changes nothing; the function
            itself records what it changed, before the change is committed. Ignored for plugins.
        run_inline: the thread that receives jobs runs the function itself; only for functions that take microseconds
            and never wait: no disk, no lock, no network. Ignored for plugins.
        is_read: its jobs share threads with those that read tokens, and wait for no other task. Ignored for plugins.
        restricted: refuse its jobs from other workers, and unsigned ones where the inventory requires signatures.
        shows_tokens: its results have tokens in them, and are kept only for as long as their client may ask again.

    Raises:
        TypeError: `arguments` isn't a model, or `mcp` isn't one of these.
    """

    def mark(function: TaskFunction) -> TaskFunction:
        name = function.__name__
        hints = _hints(name, mcp)
        spec = TaskSpec(name, function, arguments, result, hints, audit, run_inline, is_read, restricted, shows_tokens)
        function.task_spec = spec  # type: ignore[attr-defined]
        return function

    if not (isinstance(arguments, type) and issubclass(arguments, BaseModel)):
        raise TypeError("arguments must be a subclass of TaskInput")
    return mark if function is None else mark(function)


def _hints(name: str, mcp: ToolHints | Mapping[str, Any] | Literal[False] | None) -> ToolHints | None:
    if mcp is False:
        return None
    if isinstance(mcp, Mapping):
        mcp = ToolHints.parse(mcp)
    elif mcp is None:
        mcp = ToolHints()
    elif not isinstance(mcp, ToolHints):
        raise TypeError("mcp must be ToolHints, a mapping, False or None")
    return mcp if mcp.title else replace(mcp, title=name.replace("_", " ").strip().title())


def specs_of(module: ModuleType) -> list[TaskSpec]:
    """Return the tasks that a module defines or imports, in the order of its names."""
    functions = [value for value in vars(module).values() if isinstance(value, FunctionType)]
    specs = [vars(function).get("task_spec") for function in functions]
    return [spec for spec in specs if isinstance(spec, TaskSpec)]


class TaskRegistry:
    """The tasks of one worker, by name."""

    def __init__(self, *modules: ModuleType) -> None:
        self._specs = {spec.name: spec for module in modules for spec in specs_of(module)}

    def __iter__(self) -> Iterator[TaskSpec]:
        """Iterate over the tasks by name."""
        return iter(self._specs[name] for name in sorted(self._specs))

    def add(self, spec: TaskSpec) -> None:
        """Add a task; the name must be free, and the registry not yet in use."""
        self._specs[spec.name] = spec

    def get(self, name: str) -> TaskSpec:
        """Return the task of that name.

        Raises:
            TaskError: there is no such task.
        """
        spec = self.find(name)
        if spec is None:
            raise TaskError(f"unknown task {name[:64]!r}: call list_tasks for the available names")
        return spec

    def find(self, name: str) -> TaskSpec | None:
        """Return the task of that name, None for an unknown one."""
        return self._specs.get(name)

    def read_arguments(self, name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return keyword arguments of a task as `TaskSpec.read_arguments` does."""
        return self.get(name).read_arguments(kwargs)

    def run(
        self,
        worker: WorkerContext,
        name: str,
        kwargs: dict[str, Any],
        *,
        uuid: str | None = None,
        iso_times: bool = False,
    ) -> Result:
        """Validate the arguments, run the task and return its result; never raises.

        May be called from any thread; the function runs in the caller's. `iso_times`: when it ran is ISO 8601 with an
        offset, not in NorFab's format.
        """
        to_text = _iso_time if iso_times else time.ctime
        started = to_text()
        try:
            spec = self.get(name)
            value = spec.function(worker, spec.input_model.model_validate(kwargs))
            result = value if isinstance(value, Result) else Result(result=value)
            result.status = result.status or ResultStatus.COMPLETED
        except ValidationError as error:
            result = _failed(validation_messages(error))
        except TokenStoreError as error:
            # Not a client error: the operator has to check the disk.
            log.error("task %s failed: %s", name[:64], error)
            result = _failed([str(error)])
        except TaskError as error:
            result = _failed([str(error)])
        except BaseException as error:  # noqa: BLE001  no exception of a task, SystemExit included, may end the thread
            log.error("task %s failed: %s", name[:64], type(error).__name__)
            result = _failed([f"internal error in task {name[:64]}: {type(error).__name__}"])
        result.task = f"{worker.name}:{name}"
        result.service = worker.service
        result.juuid = uuid
        result.task_started, result.task_completed = started, to_text()
        return result


def _iso_time() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="milliseconds")


def _failed(errors: list[str]) -> Result:
    return Result(result=None, failed=True, errors=errors, status=ResultStatus.ERROR)
