"""Base classes of the commands: pydantic models whose fields are the words that can be typed behind a command's name.

A command that runs a task on workers inherits the task's input model and `JobArguments`, and names service and task.
All other commands name a handler of the shell: models import neither the shell nor the manual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError, from_json

from ..errors import UsageError, validation_messages
from ..fields import TimeoutSeconds
from ..inventory.schema import SERVICE as OWN_SERVICE
from ..protocol.jobs import DEFAULT_TIMEOUT_SECONDS, Results
from ..tasks.base import TaskInput

ALL_WORKERS = "all"
ANY_WORKER = "any"
TARGETS_MIXED = "all and any cannot be combined with names"
_SEVERAL = (ALL_WORKERS, ANY_WORKER)
OPTION = "option"
"""Key in a field's JSON Schema: every job command has it; the tree and plain help leave it out."""


class Summary(str):
    """A table column that shows the first paragraph of a longer text, on one line."""

    __slots__ = ()


class LocalTime(str):
    """A table column of times: `YYYY-MM-DD HH:MM:SS.ffffff` without their offset, and `None` where there is none."""

    __slots__ = ()


class TakesSeveral:
    """Marks a field that takes several values, separated by blanks or commas."""


class ShellCommand(TaskInput):
    """A command of the shell.

    `HANDLER` names the shell's function that runs it. `COLUMNS` are the columns of its result's table; without them the
    result is no table. Both are in capitals because a task's arguments may have any lower-case name.
    """

    HANDLER: ClassVar[str] = ""
    COLUMNS: ClassVar[tuple[str, ...]] = ()

    class PicleConfig:
        """The model of what may follow a `|`, named as picle expects it."""

        pipe = f"{__package__}.pipes.Pipes"

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Self:
        """Convert and check values as they were typed, by field name.

        Raises:
            UsageError: values that break a rule or are missing; names each field and its rule.
        """
        # By alias, the word that was typed: messages name a field as it was given.
        words = {cls.model_fields[key].alias or key if key in cls.model_fields else key: values[key] for key in values}
        try:
            return cls.model_validate(words)
        except ValidationError as error:
            raise UsageError("; ".join(validation_messages(error, cls))) from None

    def columns(self, data: Any = None) -> tuple[str, ...]:  # noqa: ARG002  for commands whose table depends on it
        """Return the columns of the result's table; empty where the result is no table."""
        return self.COLUMNS

    def result_columns(self, data: Any = None) -> tuple[str, ...]:
        """Return the columns of what is printed; empty where that is no table."""
        return self.columns(data)


def _join_names(value: Any) -> Any:
    """Return names that come as a JSON list, or as a list, separated by commas; a prompt has taken the quotes away."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        with suppress(ValueError):
            value = from_json(value)
        if isinstance(value, str):
            value = value[1:-1].split(",")
    if isinstance(value, list) and all(isinstance(name, str) and "," not in name for name in value):
        return ",".join(map(str.strip, value))
    return value


def _check_workers(value: str) -> str:
    names = split_names(value)
    if not all(names):
        raise PydanticCustomError("workers_empty", "must be all, any, or names separated by commas")
    if len(names) > 1 and set(names) & set(_SEVERAL):
        raise PydanticCustomError("workers_mixed", TARGETS_MIXED)
    if not value.isprintable():
        raise PydanticCustomError("workers_control", "must not contain control characters")
    return value


def check_names(value: str | None) -> str | None:
    """Check names of workers, separated by commas."""
    if value is not None and set(split_names(value)) & set(_SEVERAL):
        raise PydanticCustomError("workers_named", "must be names separated by commas, not all or any")
    return None if value is None else _check_workers(value)


def split_names(value: str) -> list[str]:
    """Return the names in a text, without the blanks around them."""
    return [name.strip() for name in value.split(",")]


def check_printable(value: str) -> str:
    """Check a text that is shown on one line."""
    if not value.isprintable():
        raise PydanticCustomError("control", "must not contain control characters")
    return value


Workers = Annotated[
    str,
    BeforeValidator(_join_names),
    AfterValidator(_check_workers),
    Field(description="Filter worker to target"),
    TakesSeveral(),
]
"""Workers as they are typed: all, any, or names separated by commas; also a JSON list of names."""


class TargetArguments(ShellCommand):
    """A command that addresses workers."""

    timeout: Annotated[TimeoutSeconds | None, Field(description="Job timeout")] = None
    workers: Workers = ALL_WORKERS

    def targets(self) -> dict[str, Any]:
        """Return the arguments of the client's `run_job` that say which workers, and how long."""
        names = list(dict.fromkeys(split_names(self.workers)))
        return {
            "workers": names[0] if names[0] in _SEVERAL else names,
            "timeout": DEFAULT_TIMEOUT_SECONDS if self.timeout is None else self.timeout,
        }


def job_option(description: str, *, alias: str | None = None) -> Any:
    """Return the field of an option that every job command has, not set where it isn't typed."""
    return Field(default=False, description=description, alias=alias, json_schema_extra={OPTION: True})


class JobArguments(TargetArguments):
    """A command that runs `TASK` of `SERVICE`; the value of the field `GENERATED` is generated where none is typed.

    `HAS_PAGES`: the task lists rows in pages to clients that request them (`models/protocol/jobs.py`).
    """

    nowait: bool = job_option("Print the job's uuid instead of waiting for the results: show jobs has them later")
    answer: Annotated[
        Literal["yes", "no"] | None,
        Field(description="Answer to the questions of the task: yes or no", json_schema_extra={OPTION: True}),
    ] = None
    verbose_result: bool = job_option(
        "Print whole results: status, times, messages and errors too", alias="verbose-result"
    )
    progress: bool = job_option("Print all events of the job at once, also those of its start and end")
    quiet: bool = job_option("Print no events of the job")

    SERVICE: ClassVar[str] = OWN_SERVICE
    TASK: ClassVar[str]
    GENERATED: ClassVar[str] = ""
    HAS_PAGES: ClassVar[bool] = False

    @property
    def is_paged(self) -> bool:
        """Whether its rows are requested in pages: not where whole results are to be printed, or none."""
        return self.HAS_PAGES and not self.verbose_result and not self.nowait

    def result_columns(self, data: Any = None) -> tuple[str, ...]:
        """Return the columns of the result's table as it was asked for; empty where the result is no table."""
        return () if self.verbose_result or self.nowait else self.columns(data)

    def job(self) -> dict[str, Any]:
        """Return the arguments of the client's `run_job`."""
        kwargs = self.model_dump(exclude=set(JobArguments.model_fields), exclude_none=True)
        return {"service": self.SERVICE, "task": self.TASK, "kwargs": kwargs, **self.targets()}

    def check_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return one worker's result, failed where a table needs a list of records and it holds something else."""
        return self.check_rows(result) if self.columns() else result

    def check_rows(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return one worker's result with a list of records, failed where it holds something else.

        A mapping from name to record, which some tasks return, becomes a list.
        """
        rows = result.get("result")
        if result.get("failed"):
            return result
        if isinstance(rows, dict) and all(isinstance(row, dict) for row in rows.values()):
            return {**result, "result": [{"name": name, **row} for name, row in rows.items()]}
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return result
        return {**result, "failed": True, "errors": [f"the result of {self.TASK} is not a list of records"]}

    def merge(self, values: dict[str, Any]) -> Any:
        """Return the data to print: `{worker: value}`, or for a table the rows of all workers.

        NorFab's workers send one row of empty texts where they have none; it is left out.
        """
        if not self.columns():
            return values
        pairs = [(worker, row) for worker, rows in values.items() for row in rows]
        return [{"worker": worker, **row} for worker, row in pairs if any(value != "" for value in row.values())]

    def consequence(self) -> str:
        """Return what a worker may have or lack that gave no result, empty for a command that changes nothing there."""
        return ""

    def question(self) -> str:
        """Return the question to answer with yes before the job is sent, empty for a command that needs none."""
        return ""

    def notes(self, results: Results) -> list[str]:  # noqa: ARG002  for commands whose results call for one
        """Return notes about the results, or a generated value."""
        return []


class CommandGroup(BaseModel):
    """A branch of the command tree. Its name alone enters it: a subshell with the prompt that the subclass names."""

    # picle validates a command below an alias only where the parent takes field names as well.
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    class PicleConfig:
        """What picle reads of a group, and `shell/repl/shell_words.py` its prompt."""

        subshell = True

    def __init_subclass__(cls, *, prompt: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.PicleConfig = type("PicleConfig", (cls.PicleConfig,), {"prompt": prompt})  # type: ignore[assignment, misc]


class OnDemandGroup(CommandGroup, prompt=""):
    """A group whose commands aren't fields but known only when they are needed, because workers say what they have.

    They may change from one call to the next. What is drawn or searched as a whole leaves them out, unless it begins
    here.
    """

    @classmethod
    def load_entries(cls) -> dict[str, Entry]:
        """Return what can be typed below the group, by the word to type.

        Raises:
            NfcliError: no worker says so.
        """
        return {}


def branch(description: str, *, alias: str | None = None) -> Any:
    """Return a group's field that leads to a command or group; `alias`: its word, if that is not a name in Python."""
    return Field(default=None, description=description, alias=alias)


def positional(description: str) -> Any:
    """Return a field whose value is typed without a name before it."""
    return Field(default=None, description=description, json_schema_extra={"positional": True})


class ValueType:
    """What may be typed for a field whose type a worker has described; part of the field's annotation.

    `choices` are the only values, empty where they aren't listed; `words` say in a few words what is expected;
    `is_list`: several values may be typed, separated by commas; `is_switch`: the field's name alone sets it.
    """

    choices: tuple[str, ...] = ()
    words: str = ""
    is_list: bool = False
    is_switch: bool = False


class Entry(NamedTuple):
    """A field as it is typed.

    `name` is the word to type, `key` the field's name in Python; `load_model` returns what a branch leads to, None for
    a value; `is_positional`: the value is typed without the name; `is_switch`: the name alone sets it; `is_secret`: the
    value is never shown; `value_type`: what a worker has said about the value; `reads_files`: `@FILE` may be
    typed for it; `is_option`: every job command has it; `takes_several`: more values may follow, separated by blanks.
    """

    name: str
    key: str
    field: FieldInfo
    load_model: Callable[[], type[BaseModel]] | None = None
    is_positional: bool = False
    is_switch: bool = False
    is_secret: bool = False
    value_type: ValueType | None = None
    reads_files: bool = False
    is_option: bool = False
    takes_several: bool = False

    @property
    def is_branch(self) -> bool:
        """Whether it leads to a command or group."""
        return self.load_model is not None

    @property
    def model(self) -> type[BaseModel] | None:
        """What a branch leads to, else None."""
        return None if self.load_model is None else self.load_model()

    @property
    def fixed_model(self) -> type[BaseModel] | None:
        """What a branch leads to whose commands are always the same, else None."""
        model = self.model
        return None if model is None or is_on_demand(model) else model


def is_on_demand(model: type[BaseModel]) -> bool:
    """Whether a model is a group whose commands are known only when they are needed."""
    return issubclass(model, OnDemandGroup)


def entries(model: type[BaseModel]) -> dict[str, Entry]:
    """Return what can be typed below a group or behind a command's name, by the word to type, in order.

    Raises:
        NfcliError: the workers that know the commands of a group can't be asked.
    """
    return model.load_entries() if issubclass(model, OnDemandGroup) else _declared_entries(model)


def find_entry(model: type[BaseModel], word: str) -> Entry | None:
    """Return what a word means below a group or behind a command's name, None if nothing.

    Where workers have given the names, `-` may be typed for `_`.
    """
    choices = entries(model)
    entry = choices.get(word)
    if entry is None and "-" in word and folds_dashes(model):
        entry = choices.get(word.replace("-", "_"))
    return entry


def folds_dashes(model: type[BaseModel]) -> bool:
    """Whether `-` may be typed for `_` in what a group or command has."""
    return getattr(model, "FOLDS_DASHES", False)


@cache
def _declared_entries(model: type[BaseModel]) -> dict[str, Entry]:
    found = {}
    reads_files = getattr(model, "READS_FILES", False)
    for key, field in model.model_fields.items():
        name = field.alias or key
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        target = field.annotation
        value = next((each for each in field.metadata if isinstance(each, ValueType)), None)
        is_switch = target is bool or "presence" in extra or (value is not None and value.is_switch)
        below = target if isinstance(target, type) and issubclass(target, BaseModel) else None
        load_model = None if below is None else partial(_itself, below)
        found[name] = Entry(
            *(name, key, field, load_model, "positional" in extra, is_switch, not field.repr, value),
            reads_files=reads_files and value is not None,
            is_option=OPTION in extra,
            takes_several=any(isinstance(each, TakesSeveral) for each in field.metadata),
        )
    return dict(sorted(found.items(), key=lambda item: item[1].is_option))


def _itself(model: type[BaseModel]) -> type[BaseModel]:
    return model
