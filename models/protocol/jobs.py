"""The data of a job's messages: request, results and events, in the shapes that NFP defines."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from pydantic_core import PydanticCustomError, to_json

from ..errors import ProtocolError, TaskError, UsageError, validation_messages
from .frames import decode_object, encode_data
from .signatures import Proof

DEFAULT_TIMEOUT_SECONDS = 60
MAX_PAGE_ITEMS = 10_000
CHECK_BEFORE_RETRY = "check what it has done before you repeat it"
"""The remedy where a worker may have run a job whose result is not available."""

Results = dict[str, dict[str, Any]]
"""`{worker: Result as a dict}`, as `run_job` returns it."""

OUTCOME_UNKNOWN = "so the outcome is unknown"
"""Follows the reason why no result has come of a job that was sent."""

Event = dict[str, Any]
"""The data of an EVENT as `read_event` returns it, with the keys of a `JobEvent`."""

EVENT_TIME = "%d-%b-%Y %H:%M:%S.%f"
"""How NorFab writes the time of an event, in the worker's local time; read with `strptime`."""
_EVENT_TEXTS = ("worker", "service", "uuid", "event_type", "message", "task", "status", "severity", "timestamp")
_MAX_EVENT_CHARACTERS, _MAX_RESOURCES = 4_000, 1_000
_AUTOMATIC_MESSAGES = frozenset({"", "starting", "completed"})

_REPEATED_ERROR = "Worker experienced error: "
_TRACEBACK = "Traceback (most recent call last)"
_WRONG_ARGUMENTS = re.compile(r"[0-9] validation errors? for ")
_VALUE = re.compile(r" \[type=.*")


class ResultStatus(StrEnum):
    """How a task ended."""

    COMPLETED = "completed"
    TIMEOUT = "timeout"
    NO_MATCH = "no_match"
    FAILED = "failed"
    SKIPPED = "skipped"
    ERROR = "error"
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


class Result(BaseModel):
    """What one worker answers to one job.

    `result` is the task's value, null when it failed; `failed` says whether it did; `errors` has one line a cause;
    `messages` are notes for the user, also of tasks that succeeded. Times are in the worker's local time, as C `ctime`
    texts or in the format that the client requests.
    """

    model_config = ConfigDict(use_enum_values=True)

    result: Any = Field(default=None, description="Value the task returned, null when it failed")
    failed: bool = Field(default=False, description="True when the task failed")
    errors: list[str] = Field(default_factory=list, description="One line for each cause of a failure")
    task: str | None = Field(default=None, description="Worker and task name, joined by a colon")
    messages: list[str] = Field(default_factory=list, description="Notes for the user")
    juuid: str | None = Field(default=None, description="UUID of the job")
    resources: list[str] = Field(default_factory=list, description="Resources the task worked on")
    resources_failed: list[str] = Field(default_factory=list, description="Resources the task failed for")
    status: ResultStatus | None = Field(default=None, description="How the task ended")
    task_started: str | None = Field(default=None, description="Local time the task started")
    task_completed: str | None = Field(default=None, description="Local time the task ended")
    service: str | None = Field(default=None, description="Service of the worker")
    diff: dict[str, Any] | str | None = Field(default=None, description="Difference the task made")
    dry_run: bool = Field(default=False, description="True when nothing was changed on purpose")

    def raise_for_status(self, message: str = "") -> None:
        """Raise an error if the task failed, with `message` before the reason; in a task, it is what the user gets.

        Raises:
            TaskError: the task failed.
        """
        if self.failed:
            place = message or (self.task or "").replace(":", ": ", 1)
            raise TaskError(f"{place}: {failure_reason(dict(self))}" if place else failure_reason(dict(self)))


def failure_reason(result: Mapping[str, Any]) -> str:
    """Return why a worker failed, on one line.

    Of a traceback, as NorFab's workers send it, that is the last line; of a validation error's, each argument and its
    rule, without the value. The copy of an error that they add to `messages` is left out.
    """
    errors, messages = (_lines(result.get(key)) for key in ("errors", "messages"))
    if errors:
        messages = [text for text in messages if not text.startswith(_REPEATED_ERROR)]
    return "; ".join(map(_short_reason, errors + messages)) or f"failed without a reason, status {result.get('status')}"


def is_unanswered(result: Mapping[str, Any]) -> bool:
    """Whether a failed result is the client's own, because none has come from the worker.

    Workers put their name and a colon before the name of the task.
    """
    task = result.get("task")
    return bool(result.get("failed")) and isinstance(task, str) and ":" not in task


def strip_tracebacks(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result whose errors are reasons without tracebacks, which would reveal paths of the worker's host."""
    errors = result.get("errors")
    if not isinstance(errors, list):
        return dict(result)
    return {**result, "errors": [_short_reason(str(text)) if _TRACEBACK in str(text) else text for text in errors]}


def _short_reason(text: str) -> str:
    lines = text.splitlines()
    begins = next((number for number, line in enumerate(lines) if _WRONG_ARGUMENTS.search(line)), len(lines))
    # Pydantic's form: the name, two blanks and the rule, four blanks and a link.
    name, reasons = "", []
    for line in lines[begins + 1 :]:
        if not line.startswith(" "):
            name = f"{line.strip()}: "
        elif not line.startswith("    "):
            reasons.append(f"{name}{_VALUE.sub('', line.strip())}")
    return "; ".join(reasons) or lines[-1].strip()


def _lines(value: object) -> list[str]:
    values = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return [text for each in values if (text := str(each).strip())]


class Page(BaseModel):
    """Which part of a list a client requests: at most `limit` items, those after the cursor of the page before it.

    A task that has pages returns `{"rows": […], "next": CURSOR}` for one, with the cursor null on the last page; all
    other tasks ignore the request.
    """

    model_config = ConfigDict(frozen=True)

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_ITEMS)]
    after: Annotated[str | None, Field(repr=False)] = None


class ResultFormat(BaseModel):
    """The format that a client requests results in.

    `times`: `local` is NorFab's, texts in the worker's local time and the word `None`; `iso8601` has the worker's local
    time with its offset, and null.
    """

    model_config = ConfigDict(frozen=True)

    times: Literal["local", "iso8601"] = "local"
    page: Page | None = None

    @property
    def has_iso_times(self) -> bool:
        """Whether times are ISO 8601 with an offset."""
        return self.times == "iso8601"


class JobRequest(BaseModel):
    """The data of a POST: which task, with what.

    `timeout` is in seconds and absent in a GET. `deadline` is when the client stops waiting, in seconds since the epoch
    (UTC): the job isn't begun after it. `origin` is `user@host` of the process that sends it, as it says itself;
    `depth` how many jobs led to it, one sending the other. These three and `result_format` are nfcli's own keys:
    NorFab's clients send none, and its workers ignore them.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    args: list[Any] = Field(default_factory=list)
    timeout: float | None = None
    deadline: Annotated[float, Field(allow_inf_nan=False)] | None = None
    origin: str = ""
    depth: Annotated[int, Field(ge=0)] = 0
    result_format: ResultFormat = ResultFormat()
    _proof: Proof | None = PrivateAttr(default=None)

    @property
    def issued(self) -> float | None:
        """When the client made the job, by its own clock, the same for all its workers; None where it doesn't say."""
        return None if self.deadline is None or self.timeout is None else self.deadline - self.timeout

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the DATA frame of a POST; ProtocolError if it isn't JSON of this shape."""
        value = decode_object(data)
        try:
            request = cls.model_validate(value)
        except ValidationError as error:
            raise ProtocolError(f"the data is not a job request: {'; '.join(validation_messages(error))}") from None
        if "signed" in value:
            request._proof = Proof.find(data, value["signed"])  # noqa: SLF001  the class's own
        return request

    @property
    def proof(self) -> Proof | None:
        """The signature that the request came with, not verified; None if it isn't signed."""
        return self._proof

    @field_validator("task")
    @classmethod
    def _is_unicode(cls, value: str) -> str:
        """Refuse an unpaired surrogate: JSON can express it, but no event or result that names the task can be sent."""
        try:
            value.encode()
        except UnicodeEncodeError:
            raise PydanticCustomError("unicode", "must be valid Unicode") from None
        return value


def check_timeout(timeout: float) -> float:
    """Return the seconds that a whole job may take; UsageError if that isn't a positive number."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise UsageError(f"timeout must be a positive number of seconds, got {timeout!r}")
    return timeout


def encode_request(
    task: str,
    kwargs: Mapping[str, Any],
    *,
    timeout: float,
    args: Sequence[Any] = (),
    origin: str = "",
    depth: int = 0,
    seconds_left: float | None = None,
    result_format: ResultFormat | None = None,
) -> bytes:
    """Return the data of a POST, whose deadline is in `seconds_left`, or in `timeout` seconds if that is None.

    Raises:
        UsageError: arguments that are not JSON, a timeout that is not positive.
    """
    seconds = check_timeout(timeout) if seconds_left is None else seconds_left
    deadline = round(time.time() + seconds, 3)
    request = {"task": task, "kwargs": kwargs, "args": list(args), "timeout": timeout, "deadline": deadline}
    if origin:
        request["origin"] = origin
    if depth:
        request["depth"] = depth
    if result_format is not None:
        request["result_format"] = result_format.model_dump(exclude_defaults=True)
    try:
        return encode_data(request)
    except (TypeError, ValueError):
        raise UsageError(f"the arguments of {task} must be JSON values, in valid Unicode") from None


def _event_time() -> str:
    local = datetime.now().astimezone()
    return f"{local:%d-%b-%Y %H:%M:%S}.{local.microsecond // 1_000:03d}"


class JobEvent(BaseModel):
    """The data of an EVENT: what a worker reports of a running job.

    `timestamp` is the worker's local time, `22-Nov-2026 04:04:00.480`; `resource` what the event is about; `extras` and
    `timeout`, in seconds, belong to questions, and are left out where they are None.
    """

    worker: str
    service: str
    uuid: str
    event_type: str
    message: str
    task: str
    status: str
    resource: str | list[str] = Field(default_factory=list)
    severity: str = "INFO"
    timestamp: str = Field(default_factory=_event_time)
    extras: dict[str, Any] | None = None
    timeout: int | None = None

    def encode(self) -> bytes:
        """Return the JSON of the event."""
        return to_json(self, exclude_none=True)


def read_event(data: Mapping[str, Any]) -> Event:
    """Return the data of an EVENT with all keys of a `JobEvent`; values of another type become empty ones.

    `resource` is a list; texts have a bounded length, since they come from other programs.
    """
    get = data.get
    resource, extras, timeout = get("resource"), get("extras"), get("timeout")
    # Without a call for each text: an event comes with every job.
    event: Event = {
        key: value[:_MAX_EVENT_CHARACTERS] if isinstance(value := get(key), str) else "" for key in _EVENT_TEXTS
    }
    event["severity"] = event["severity"] or "INFO"
    names = resource if isinstance(resource, list) else [resource]
    event["resource"] = [text for name in names[:_MAX_RESOURCES] if (text := _text(name))]
    if isinstance(extras, dict) and extras:
        event["extras"] = extras
    if isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout > 0:
        event["timeout"] = timeout
    return event


def is_automatic(event: Event) -> bool:
    """Whether an event is one of those that workers send for every job, at its start and its end."""
    return event["event_type"] == "result_ready" or event["message"] in _AUTOMATIC_MESSAGES


def _text(value: Any) -> str:
    return value[:_MAX_EVENT_CHARACTERS] if isinstance(value, str) else ""


def normalize_result(answer: Any) -> dict[str, Any]:
    """Return a worker's answer with all fields of a `Result`; a value that is not a result becomes a failed one.

    `failed` is a bool, `errors` and `messages` are lists of strings; the other fields are not validated.
    """
    if isinstance(answer, dict) and _is_result(answer):
        return {**Result().model_dump(mode="json"), **answer}
    return failed_result("the worker's answer is not a result")


def failed_result(reason: str, status: ResultStatus = ResultStatus.ERROR, **fields: Any) -> dict[str, Any]:
    """Return a failed `Result` with one line of reason, as the worker would have sent it."""
    return Result(failed=True, errors=[reason], status=status, **fields).model_dump(mode="json")


def _is_result(answer: dict[str, Any]) -> bool:
    lines = [answer.get("errors", []), answer.get("messages", [])]
    are_lines = all(isinstance(each, list) and all(isinstance(line, str) for line in each) for each in lines)
    return are_lines and isinstance(answer.get("failed"), bool)
