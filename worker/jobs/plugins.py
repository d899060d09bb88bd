"""Plugins: the user's modules, whose `@task` functions and `commands` become tasks of the worker.

Their code runs in the worker's process with all its rights. A plugin that can't be loaded stops the start, with one
line that names it and the remedy.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from traceback import walk_tb
from types import ModuleType, TracebackType
from typing import Any

from pydantic_core import from_json, to_json

from ...models.errors import TaskError, WorkerStartError
from ...models.protocol.jobs import Result
from ...models.tasks.auth import RESERVED_PREFIX, is_token_task
from ...models.tasks.base import TaskInput
from .task import TaskFunction, TaskRegistry, TaskSpec, specs_of
from .task_context import TaskContext
from .trusted_imports import UntrustedModuleError, guard_imports, verify_spec

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MAX_REASON_CHARACTERS = 300
_OWN_FILES = (__file__, importlib.__file__)


def add_plugins(registry: TaskRegistry, names: Sequence[str], folder: Path) -> None:
    """Import plugins and add their tasks to the registry, which must already hold the worker's own.

    Modules are searched for on Python's path first and in `folder` last, so that a file there replaces no other module.
    Tasks of plugins are neither audited nor run inline, they get a `WorkerContext`, and their results are converted to
    JSON values in the thread that runs them.

    Raises:
        WorkerStartError: a plugin isn't found, can be changed by other users, can't be imported, has no tasks, or has
            an invalid one.
    """
    if names:
        add_import_path(folder)
        guard_imports()
    ours = list(registry)
    definitions = {spec.name: ("nfcli", spec) for spec in ours}
    for plugin in names:
        log.info("loading plugin %s", plugin)
        # A plugin may import the worker's own tasks to call them.
        module = _import(plugin)
        specs = [spec for spec in specs_of(module) if not any(spec is each for each in ours)]
        specs += _commands_of(plugin, module)
        if not specs:
            raise WorkerStartError(
                f"plugin {plugin} has no tasks: mark a function with @task, "
                "or remove it from `plugins` in the worker's inventory"
            )
        for spec in specs:
            origin, known = definitions.get(spec.name, (plugin, None))
            if known is spec:  # a second name for the same function, or one imported from another plugin
                continue
            _validate(plugin, spec)
            if known is not None:
                raise WorkerStartError(
                    f"plugin {plugin}: task {spec.name} is already defined by {origin}: rename the function"
                )
            definitions[spec.name] = (f"plugin {plugin}", spec)
            registry.add(replace(spec, function=_wrap(spec.function), audit=None, run_inline=False, is_read=False))


def add_import_path(folder: Path) -> None:
    """Append a folder to Python's search path."""
    if str(folder.absolute()) not in sys.path:
        sys.path.append(str(folder.absolute()))


def find_origin(plugin: str) -> str | None:
    """Return where a plugin, or its package, would be imported from, without importing it; None if it isn't found.

    Raises:
        WorkerStartError: other users can change it, or a module beside it.
    """
    try:
        found = importlib.util.find_spec(plugin.partition(".")[0])
        if found is None:
            return None
        verify_spec(found, is_deep=True)
    except ValueError:  # a loaded module without a spec
        return None
    except UntrustedModuleError as error:  # of the finder too, where plugins were loaded before
        raise _untrusted_error(plugin, error) from error
    return found.origin or "a folder"


def _untrusted_error(plugin: str, error: UntrustedModuleError) -> WorkerStartError:
    return WorkerStartError(f"plugin {plugin} is not loaded: {error}")


def not_found_error(plugin: str) -> WorkerStartError:
    """Return the error for a plugin that isn't found."""
    return WorkerStartError(
        f"plugin {plugin} was not found: put it beside the inventory or install it, "
        "or remove it from `plugins` in the worker's inventory"
    )


def _import(plugin: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(plugin)
    except UntrustedModuleError as error:
        raise _untrusted_error(plugin, error) from None
    except BaseException as error:  # noqa: BLE001  its code may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{plugin}.".startswith(f"{error.name}."):
            raise not_found_error(plugin) from None
        raise WorkerStartError(
            f"plugin {plugin} can't be loaded: {_reason(error)}{_location(error.__traceback__)}: "
            "fix it, or remove it from `plugins` in the worker's inventory"
        ) from None


def _commands_of(plugin: str, module: ModuleType) -> list[TaskSpec]:
    """Return the tasks of the commands that a plugin brings: models with a method `run(worker)`, in its `commands`.

    The shell gets their schemas alone, and never imports the plugin.
    """
    models = getattr(module, "commands", ())
    if not isinstance(models, list | tuple) or not all(map(_is_command, models)):
        raise WorkerStartError(
            f"plugin {plugin}: commands must be a list of subclasses of TaskInput, each with a method run(self, worker)"
        )
    return [_command_spec(plugin.replace(".", "_"), model) for model in models]


def _is_command(model: object) -> bool:
    is_model = isinstance(model, type) and issubclass(model, TaskInput)
    return is_model and inspect.isfunction(getattr(model, "run", None))


def _command_spec(group: str, model: type[Any]) -> TaskSpec:
    """Return the task of a command; the keys `group` and `name` of its entry say where the shell has it."""
    word = _WORD_BOUNDARY.sub("_", model.__name__).lower()

    def run(worker: Any, arguments: Any) -> Any:
        return arguments.run(worker)

    run.__name__, run.__doc__ = f"{group}__{word}", model.__doc__
    return TaskSpec(run.__name__, run, model, Any, None, more={"command": {"group": group, "name": word}})


def _validate(plugin: str, spec: TaskSpec) -> None:
    name, function = spec.name, spec.function
    if not _NAME.fullmatch(name):
        raise WorkerStartError(
            f"plugin {plugin}: task {name[:80]!r} must be named with 1 to 64 letters, digits and underscores, "
            "no digit first: rename the function"
        )
    if is_token_task(name):
        raise WorkerStartError(
            f"plugin {plugin}: task {name} has a name reserved for tasks that manage tokens ({RESERVED_PREFIX}*): "
            "rename the function"
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise WorkerStartError(
            f"plugin {plugin}: task {name} is an async function: define it with def, it is run in a thread"
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise WorkerStartError(
            f"plugin {plugin}: task {name} must take two arguments: define it as {name}(worker, arguments)"
        ) from None
    try:
        to_json(spec.entry())
        is_object = spec.input_schema().get("type") == "object"
    except Exception as error:  # noqa: BLE001  the models' own code may raise anything
        raise WorkerStartError(
            f"plugin {plugin}: task {name} can't be described in JSON Schema: {_reason(error)}: "
            "use pydantic models and plain types for arguments and result"
        ) from None
    if not is_object:
        raise WorkerStartError(
            f"plugin {plugin}: the arguments of task {name} have no names: use a subclass of TaskInput with fields"
        )


def _wrap(function: TaskFunction) -> TaskFunction:
    """Return a function that passes the plugins' context, logs where it fails, and returns values that JSON has."""

    @functools.wraps(function)
    def run(worker: TaskContext, arguments: Any) -> Any:
        try:
            value = function(worker.for_plugin(), arguments)
        except TaskError:
            raise
        except BaseException as error:
            # Without its message, which may quote secrets.
            log.error("task %s failed%s", function.__name__, _location(error.__traceback__))
            raise
        try:
            if isinstance(value, Result):
                return Result.model_validate(_jsonable(value))
            return _jsonable(value)
        except Exception as error:  # noqa: BLE001  generators and serializers run here
            log.error("the result of task %s can't be written: %s", function.__name__, type(error).__name__)
            raise TaskError(f"the result of task {function.__name__} can't be written as JSON") from None

    return run


def _jsonable(value: object) -> Any:
    return from_json(to_json(value, inf_nan_mode="null"))


def _reason(error: BaseException) -> str:
    """Return type and message of an error on one line."""
    kind = type(error).__name__
    with contextlib.suppress(Exception):  # the plugin's own code may make the message
        lines = str(error).strip().splitlines()
        text = "".join(character for character in "".join(lines[:1]) if character.isprintable())
        return f"{kind}: {text[:_MAX_REASON_CHARACTERS]}" if text else kind
    return kind


def _location(trace: TracebackType | None) -> str:
    """Return where an error was raised, to append to a line; empty if it isn't known."""
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(trace)]
    places = [(file, line) for file, line in places if file not in _OWN_FILES and not file.startswith("<")]
    return f" (line {places[-1][1]} of {places[-1][0]})" if places else ""
