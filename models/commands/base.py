"""What every command is: a pydantic model that checks its words, and the one `run` that all of them share.

A command that is a task of the workers inherits the task's input model and `JobArguments`, and names service and task.
All other commands name a handler, which the shell provides: models import neither the shell nor the manual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from ..errors import UsageError, validation_messages
from ..fields import TimeoutSeconds
from ..inventory.service import SERVICE
from ..protocol.jobs import DEFAULT_TIMEOUT_SECONDS
from ..tasks.base import TaskInput

ALL_WORKERS = "all"
ANY_WORKER = "any"
_SEVERAL = (ALL_WORKERS, ANY_WORKER)

Results = dict[str, dict[str, Any]]
"""`{worker: Result as a dict}`, as `run_job` returns it."""


class JobClient(Protocol):
    """The client, as far as commands use it."""

    def run_job(
        self,
        service: str,
        task: str,
        *,
        kwargs: dict[str, Any] | None = ...,
        workers: str | Sequence[str] = ...,
        timeout: float = ...,
    ) -> Results:
        """Run a task; an entry for each targeted worker, failed ones included."""


class CommandShell(Protocol):
    """What a command may ask of the shell that runs it: picle's `picle_app`."""

    @property
    def client(self) -> JobClient:
        """Where jobs are run."""

    @property
    def handlers(self) -> Mapping[str, Callable[[Any], Any]]:
        """The functions behind commands that are no tasks, by name; each gets the checked command, returns data."""

    def report(self, results: Results) -> dict[str, Any]:
        """Tell the user which workers failed and what the others noted; return the values of those that succeeded."""

    def note(self, text: str) -> None:
        """Tell the user something that is no result."""

    def render(self, data: Any, columns: Sequence[str]) -> str:
        """Turn data into the text to print."""


Render = Callable[[Any, Sequence[str]], str]
"""Data and the columns of its table (none: it isn't one) to the text to print."""


class Summary(str):
    """A column of a table that shows the first paragraph of a longer text, on one line."""

    __slots__ = ()


class Command(TaskInput):
    """A command: its fields are what can be typed behind its name.

    `HANDLER` names the shell's function that does the work. `COLUMNS` says that the result is a list of rows, to be
    printed as a table of these columns. In capitals, because a task's arguments may have any name.
    """

    HANDLER: ClassVar[str] = ""
    COLUMNS: ClassVar[tuple[str, ...]] = ()

    class PicleConfig:
        """Where picle, and our own reader, find the words that may follow a `|`."""

        pipe = f"{__package__}.pipes.Pipes"

    @classmethod
    def run(cls, *, picle_app: CommandShell, render: Render | None = None, **values: str) -> str:
        """Check the values, do what the command is for, and return the text to print; empty when there is none.

        Args:
            picle_app: the shell.
            render: makes text of the data, where pipes follow; None leaves that to the shell.
            values: the typed words as they are: the model converts them, whatever path led here.

        Raises:
            UsageError: values that break a rule or are missing; nothing has been sent then.
            NfcliError: the command can't be run at all, for instance because no worker is reachable.
        """
        try:
            command = cls.model_validate(values)
        except ValidationError as error:
            raise UsageError("; ".join(validation_messages(error))) from None
        data = command.answer(picle_app)
        return "" if data is None else (render or picle_app.render)(data, command.columns())

    def columns(self) -> tuple[str, ...]:
        """Return the columns of the result's table, none where it isn't one."""
        return self.COLUMNS

    def answer(self, shell: CommandShell) -> Any:
        """Do the work; return its data, None when there is nothing to print."""
        return shell.handlers[self.HANDLER](self)


def _workers(value: str) -> str:
    names = _split(value)
    if not all(names):
        raise PydanticCustomError("workers_empty", "must be all, any, or names separated by commas")
    if len(names) > 1 and set(names) & set(_SEVERAL):
        raise PydanticCustomError("workers_mixed", "all and any stand alone, not beside names")
    if not value.isprintable():
        raise PydanticCustomError("workers_control", "must not hold control characters")
    return value


def _split(value: str) -> list[str]:
    return [name.strip() for name in value.split(",")]


class JobArguments(Command):
    """A command that is a task of the workers, and what can be said about its job."""

    TASK: ClassVar[str]

    timeout: Annotated[TimeoutSeconds | None, Field(description="Job timeout")] = None
    workers: Annotated[str, AfterValidator(_workers), Field(description="Filter worker to target")] = ALL_WORKERS

    def targets(self) -> str | list[str]:
        """Return whom the job goes to: `all`, `any`, or the names."""
        names = list(dict.fromkeys(_split(self.workers)))
        return names[0] if names[0] in _SEVERAL else names

    def call(self) -> tuple[str, dict[str, Any]]:
        """Return the task to run and its arguments."""
        return self.TASK, self.model_dump(exclude=set(JobArguments.model_fields), exclude_none=True)

    def answer(self, shell: CommandShell) -> Any:
        """Run the task on the workers; return `{worker: value}`, or the rows of all workers for a table."""
        task, kwargs = self.call()
        results = shell.client.run_job(
            SERVICE,
            task,
            kwargs=kwargs,
            workers=self.targets(),
            timeout=DEFAULT_TIMEOUT_SECONDS if self.timeout is None else self.timeout,
        )
        values = shell.report({worker: self._checked(result) for worker, result in results.items()})
        for note in self.notes(results):
            shell.note(note)
        if not values:
            return None
        return self._rows(values) if self.columns() else values

    def _checked(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's result, a failed one where it should be a list of records and isn't.

        Workers of NorFab's make give some lists as a mapping, by the records' names.
        """
        rows = result.get("result")
        if result.get("failed") or not self.columns():
            return result
        if isinstance(rows, dict) and all(isinstance(row, dict) for row in rows.values()):
            return {**result, "result": [{"name": name, **row} for name, row in rows.items()]}
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return result
        return {**result, "failed": True, "errors": [f"the answer to {self.TASK} is not a list of records"]}

    def _rows(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of all workers; workers of NorFab's make send one of empty texts where they have none."""
        pairs = [(worker, row) for worker, rows in values.items() for row in rows]
        return [{"worker": worker, **row} for worker, row in pairs if any(value != "" for value in row.values())]

    def notes(self, results: Results) -> list[str]:  # noqa: ARG002  for commands that have something to say
        """Return what the user should be told beside the result."""
        return []


class CommandGroup(BaseModel):
    """A branch of the command tree. Its name alone enters it: a subshell with a prompt of its own."""

    # picle validates a command below an alias only where the parent takes field names as well.
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    class PicleConfig:
        """What picle, and our own session, want to know of a group."""

        subshell = True
        prompt: str


def branch(description: str, *, alias: str | None = None) -> Any:
    """Return the field of a group that leads to a command or another group.

    Args:
        description: what help and the manual say about it.
        alias: the word to type where it can't be a Python name.
    """
    return Field(default=None, description=description, alias=alias)


def positional(description: str) -> Any:
    """Return a field whose value is typed without a name before it."""
    return Field(default=None, description=description, json_schema_extra={"positional": True})


class Entry(NamedTuple):
    """A field as it is typed.

    `name` is the word to type, `key` the field's name in Python; `model` is what a branch leads to, else None;
    `is_positional`: the value comes without the name; `is_switch`: the name suffices, without a value; `is_secret`:
    the value must not be shown.
    """

    name: str
    key: str
    field: FieldInfo
    model: type[BaseModel] | None
    is_positional: bool
    is_switch: bool
    is_secret: bool


@cache
def entries(model: type[BaseModel]) -> dict[str, Entry]:
    """Return what can be typed below a group or behind a command's name, by the word to type, in order."""
    found = {}
    for key, field in model.model_fields.items():
        name = field.alias or key
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        target = field.annotation
        is_switch = target is bool or "presence" in extra
        below = target if isinstance(target, type) and issubclass(target, BaseModel) else None
        found[name] = Entry(name, key, field, below, "positional" in extra, is_switch, not field.repr)
    return found
