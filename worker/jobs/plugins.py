"""Plugins: modules of the user's whose `@task` functions become tasks of the worker.

Their code runs in the worker's process with all its rights. Whatever is wrong with one stops the start with one line
that names it.
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
from .task import TaskFunction, TaskRegistry, TaskSpec, specs_of
from .task_context import TaskContext

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_REASON_MAX_CHARACTERS = 300
_OWN_FILES = (__file__, importlib.__file__)


def add_plugins(registry: TaskRegistry, names: Sequence[str], folder: Path) -> None:
    """Import plugins and add their tasks to the registry, which must hold all others already.

    Modules are looked for where Python finds any, and then in `folder`, so that what lies there stands in for nothing
    else. Tasks of plugins never run inline, and what they return is made plain JSON before anybody else sees it.

    Raises:
        WorkerStartError: a plugin isn't found, can't be imported, has no tasks, or one that can't be taken; one line.
    """
    if names:
        add_import_path(folder)
    ours = list(registry)
    makers = {spec.name: ("nfcli", spec) for spec in ours}
    for plugin in names:
        log.info("loading plugin %s", plugin)
        # What a module has imported from us to call it isn't its own.
        specs = [spec for spec in specs_of(_module(plugin)) if not any(spec is each for each in ours)]
        if not specs:
            raise WorkerStartError(
                f"plugin {plugin} has no tasks: mark a function with @task, "
                "or take it out of `plugins` in the worker's inventory"
            )
        for spec in specs:
            maker, known = makers.get(spec.name, (plugin, None))
            if known is spec:  # a second name for it, or another plugin's that was imported
                continue
            _check(plugin, spec)
            if known is not None:
                raise WorkerStartError(
                    f"plugin {plugin}: task {spec.name} is there already, from {maker}: rename the function"
                )
            makers[spec.name] = (f"plugin {plugin}", spec)
            registry.add(replace(spec, function=_plain(spec.function), audit=None, run_inline=False))


def add_import_path(folder: Path) -> None:
    """Let modules be imported from a folder where no other place has them."""
    if str(folder.absolute()) not in sys.path:
        sys.path.append(str(folder.absolute()))


def find_origin(plugin: str) -> str | None:
    """Return where a plugin, or the package that it is in, would be imported from; None if nowhere; runs none of it."""
    try:
        found = importlib.util.find_spec(plugin.partition(".")[0])
    except ValueError:  # a module that has no such place
        return None
    return None if found is None else found.origin or "a folder"


def not_found_error(plugin: str) -> WorkerStartError:
    """Return the error for a plugin that is nowhere."""
    return WorkerStartError(
        f"plugin {plugin} was not found: put it beside the inventory or install it, "
        "or take it out of `plugins` in the worker's inventory"
    )


def _module(plugin: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(plugin)
    except BaseException as error:  # noqa: BLE001  whatever its code raises, the line below is what has to come of it
        if isinstance(error, ModuleNotFoundError) and f"{plugin}.".startswith(f"{error.name}."):
            raise not_found_error(plugin) from None
        raise WorkerStartError(
            f"plugin {plugin} can't be loaded: {_reason(error)}{_place(error.__traceback__)}: "
            "mend it, or take it out of `plugins` in the worker's inventory"
        ) from None


def _check(plugin: str, spec: TaskSpec) -> None:
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
            f"plugin {plugin}: task {name} is an async function: write it with def, it is run in a thread"
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise WorkerStartError(
            f"plugin {plugin}: task {name} must take two arguments: write def {name}(worker, arguments)"
        ) from None
    try:
        to_json(spec.entry())
        is_object = spec.input_schema().get("type") == "object"
    except Exception as error:  # noqa: BLE001  pydantic has many, and those of the models' own code
        raise WorkerStartError(
            f"plugin {plugin}: task {name} can't be described in JSON Schema: {_reason(error)}: "
            "make arguments and result of pydantic models and plain types"
        ) from None
    if not is_object:
        raise WorkerStartError(
            f"plugin {plugin}: the arguments of task {name} have no names: "
            "make them a subclass of TaskInput with fields"
        )


def _plain(function: TaskFunction) -> TaskFunction:
    """Return a function that logs where it fails, and whose results are what JSON knows: no answer fails later on."""

    @functools.wraps(function)
    def run(worker: TaskContext, arguments: Any) -> Any:
        try:
            value = function(worker.for_plugin(), arguments)
        except TaskError:
            raise
        except BaseException as error:
            log.error("task %s failed%s", function.__name__, _place(error.__traceback__))  # never with its values
            raise
        try:
            if isinstance(value, Result):
                return Result.model_validate(_jsonable(value))
            return _jsonable(value)
        except Exception as error:  # noqa: BLE001  the code of generators and serializers runs only here
            log.error("the result of task %s can't be written: %s", function.__name__, type(error).__name__)
            raise TaskError(f"the result of task {function.__name__} can't be written as JSON") from None

    return run


def _jsonable(value: object) -> Any:
    return from_json(to_json(value, inf_nan_mode="null"))


def _reason(error: BaseException) -> str:
    """Return type and message of an error in one line."""
    kind = type(error).__name__
    with contextlib.suppress(Exception):  # the message may be made by code of the plugin's
        lines = str(error).strip().splitlines()
        text = "".join(character for character in "".join(lines[:1]) if character.isprintable())
        return f"{kind}: {text[:_REASON_MAX_CHARACTERS]}" if text else kind
    return kind


def _place(trace: TracebackType | None) -> str:
    """Return where an error was raised, as the end of a line; empty where no file says."""
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(trace)]
    places = [(file, line) for file, line in places if file not in _OWN_FILES and not file.startswith("<")]
    return f" (line {places[-1][1]} of {places[-1][0]})" if places else ""
