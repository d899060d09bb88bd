"""Make the command of a task: a pydantic model whose fields are the task's arguments and the options of jobs."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import Field, create_model

from ...errors import NoWorkersError
from ...inventory.schema import SERVICE as OWN_SERVICE
from ...tasks.effects import TOKEN_CHANGING_TASKS
from ..auth import AuthCommands
from ..base import ALL_WORKERS, ANY_WORKER, JobArguments
from ..fastapi import FastapiAuthCommands
from .definitions import TaskDefinition, describe_argument
from .documents import Variant, is_secret_name, plain_line, value_text
from .values import TypedValue

OWN_WORD_PREFIX = "task-"
MAX_COLUMNS = 16
MAX_CELL_CHARACTERS = 200
_DEFAULT_CHARACTERS = 60
_OTHERS, _YES = "arguments", "yes"
_OTHERS_SCHEMA = {"type": "object"}


class TaskCommand(JobArguments):
    """A command made from a task's schema.

    `ARGUMENTS` are the task's arguments by the keys of the fields; `OTHERS` is the key of the field for arguments that
    the schema doesn't name, `CONSENT` that of the field which stands for a yes, both empty where there is none;
    `WORKERS` are the workers that have the task, empty where all have it.
    """

    FOLDS_DASHES: ClassVar[bool] = True
    READS_FILES: ClassVar[bool] = True
    ARGUMENTS: ClassVar[Mapping[str, str]] = {}
    OTHERS: ClassVar[str] = ""
    CONSENT: ClassVar[str] = ""
    WORKERS: ClassVar[Sequence[str]] = ()

    def job(self) -> dict[str, Any]:
        """Return the arguments of the client's `run_job`: of the task's, only those that were given."""
        given = {name: getattr(self, key) for key, name in self.ARGUMENTS.items() if key in self.model_fields_set}
        others = getattr(self, self.OTHERS) if self.OTHERS in self.model_fields_set else {}
        return super().job() | {"kwargs": {**others, **given}}

    def targets(self) -> dict[str, Any]:
        """Return the arguments of the client's `run_job` that say which workers: only some where others lack the task.

        Raises:
            NoWorkersError: a worker was named that lacks it.
        """
        targets = super().targets()
        if not self.WORKERS:
            return targets
        if targets["workers"] == ALL_WORKERS:
            return {**targets, "workers": list(self.WORKERS)}
        if targets["workers"] == ANY_WORKER:
            return {**targets, "workers": random.sample(self.WORKERS, 1)}
        names = [targets["workers"]] if isinstance(targets["workers"], str) else targets["workers"]
        lacking = [name for name in names if name not in self.WORKERS]
        if lacking:
            raise NoWorkersError(f"{', '.join(lacking)} has no task {self.TASK}: it is on {', '.join(self.WORKERS)}")
        return targets

    def check_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return one worker's result as it is."""
        return result

    def merge(self, values: dict[str, Any]) -> Any:
        """Return `{worker: value}`, or the rows of all workers where their values are lists of flat records."""
        if not _are_tables(values):
            return values
        return [{"worker": worker, **row} for worker, rows in values.items() for row in rows]

    def columns(self, data: Any = None) -> tuple[str, ...]:
        """Return the table's columns for rows of all workers, none for anything else."""
        return tuple(dict.fromkeys(key for row in data for key in row)) if isinstance(data, list) else ()

    def consequence(self) -> str:
        """Return what a worker without a result may lack, for tasks that change tokens."""
        is_change = self.SERVICE == OWN_SERVICE and self.TASK in TOKEN_CHANGING_TASKS
        return "its tokens may not be changed" if is_change else ""

    def question(self) -> str:
        """Return the question of a task that may destroy something, empty where yes was typed."""
        if not self.CONSENT or getattr(self, self.CONSENT):
            return ""
        names = self.targets()["workers"]
        workers = f"{names} workers" if isinstance(names, str) else plain_line(", ".join(names), MAX_CELL_CHARACTERS)
        return f"{self.TASK} may destroy something: run it on {workers} of {self.SERVICE}?"


def make_command(task: TaskDefinition) -> type[JobArguments]:
    """Return the command of a task; for a task that one of `fastmcp auth …` or `fastapi auth …` runs, that one."""
    return _token_commands().get((task.service, task.name)) or _Maker(task).make()


class _Maker:
    """Collects the fields of a task's command; words and keys are unique."""

    def __init__(self, task: TaskDefinition) -> None:
        self._task = task
        self._arguments = list(task.arguments())
        self._taken = {_fold(name) for name in _job_words()}
        if task.is_destructive:
            self._taken.add(_YES)  # messages tell people to add this word, whatever the task's arguments are
        self._names = {name for name, _, _ in self._arguments}
        self._key = "argument_"
        while any(name.startswith(self._key) for name in self._names):
            self._key += "_"
        self._fields: dict[str, Any] = {}

    def make(self) -> type[TaskCommand]:
        """Return the model."""
        task = self._task
        keys = {self._add_argument(*argument): argument[0] for argument in self._arguments}
        others = consent = ""
        if task.takes_others:
            text = "Other arguments as a JSON object" if task.versions else "Arguments as a JSON object"
            others = self._add(_OTHERS, TypedValue([(_OTHERS_SCHEMA, {})]), text, default=None)
        if task.is_destructive:
            self._taken.discard(_YES)
            text = "Run it without a question: it may destroy something"
            consent = self._add(_YES, TypedValue([({"type": "boolean"}, {})]), text, default=False, shows_default=False)
        model: type[TaskCommand] = create_model(
            "TaskCommand", __base__=TaskCommand, __doc__=task.description, **self._fields
        )
        model.SERVICE, model.TASK, model.ARGUMENTS = task.service, task.name, keys
        model.OTHERS, model.CONSENT = others, consent
        model.WORKERS = () if task.is_everywhere else tuple(task.workers)
        return model

    def _add_argument(self, name: str, variants: list[Variant], is_required: bool) -> str:
        value = TypedValue(variants)
        value.is_secret |= is_secret_name(name) and _may_be_secret(value)
        default = ... if is_required else _default_text(variants, value)
        return self._add(name, value, describe_argument(variants), default=default)

    def _add(self, name: str, value: TypedValue, text: str, *, default: Any, shows_default: bool = True) -> str:
        key = f"{self._key}{len(self._fields) + 1}"
        word = self._word(name)
        self._taken.add(_fold(word))
        field = Field(alias=word, description=text, repr=not value.is_secret, **_default(default, shown=shows_default))
        self._fields[key] = (Annotated[Any, value], field)
        return key

    def _word(self, name: str) -> str:
        """Return the word to type for a name, not one that means something else here."""
        word = name
        while _fold(word) in self._taken or (word != name and word in self._names):
            word = f"{OWN_WORD_PREFIX}{word}"
        return word


def _default(default: Any, *, shown: bool) -> dict[str, Any]:
    if default is ...:
        return {}
    return {"default": default} if shown else {"default_factory": lambda: default}


def _default_text(variants: Sequence[Variant], value: TypedValue) -> str | None:
    """Return the schema's default as text to show, None where it has none; the worker fills it in."""
    found = next((one.get("default") for one, _ in variants if isinstance(one, Mapping)), None)
    if found is None or found in ([], {}, "") or value.is_secret:
        return None
    try:
        text = value_text(found) if not isinstance(found, dict | list) else json.dumps(found)
    except (ValueError, TypeError, RecursionError):
        return None
    return plain_line(text, _DEFAULT_CHARACTERS)


def _may_be_secret(value: TypedValue) -> bool:
    return not value.types or bool({"string", "array", "object"} & set(value.types))


def _are_tables(values: Mapping[str, Any]) -> bool:
    """Whether the value of each worker is a list of records without anything nested in them, and one has some."""
    rows = [row for value in values.values() if isinstance(value, list) for row in value]
    if not rows or not all(isinstance(value, list) for value in values.values()):
        return False
    if not all(isinstance(row, dict) and row and all(map(_is_cell, row.values())) for row in rows):
        return False
    return len({key for row in rows for key in row}) <= MAX_COLUMNS


def _is_cell(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_CELL_CHARACTERS and "\n" not in value
    return not isinstance(value, dict | list)


def _fold(word: str) -> str:
    return word.replace("-", "_")


@cache
def _job_words() -> frozenset[str]:
    """Return the words of the options that all jobs have."""
    fields = JobArguments.model_fields
    return frozenset(word for key, field in fields.items() for word in (key, field.alias) if word)


@cache
def _token_commands() -> Mapping[tuple[str, str], type[JobArguments]]:
    """Return the commands of `fastmcp auth` and `fastapi auth`, by their services and tasks."""
    groups = (AuthCommands, FastapiAuthCommands)
    models = [field.annotation for group in groups for field in group.model_fields.values()]
    commands = [model for model in models if isinstance(model, type) and issubclass(model, JobArguments)]
    return {(command.SERVICE, command.TASK): command for command in commands}
