"""Parse the messages that a NorFab broker sends to clients into one class for each meaning.

The broker adds its own 202 and 400 to the messages that it relays from workers (see `frames.py`); workers are named in
the data. All of it comes from other programs: a message of another shape is None, and nothing is raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from ..errors import ProtocolError
from .frames import (
    ALL,
    BROKER_SERVICE,
    BrokerMessage,
    ClientMessage,
    Command,
    Status,
    decode_data,
    decode_target,
    encode_data,
)

INVENTORY_SERVICE = "sid.service.broker"
KEEPALIVE_SECONDS = 2.5
HOLD_SECONDS = 15.0
"""How long a broker of norfab 0.25.0 keeps a worker that sends no keepalives."""

_REASON_CHARACTERS = 2_000


class JobState(Enum):
    """What a worker reports about a job, short of a result."""

    ACCEPTED = auto()
    RUNNING = auto()
    PROGRESS = auto()
    """It has sent an event that is none of the others."""
    READY = auto()
    """The result can be fetched with a GET."""
    UNKNOWN = auto()
    """The worker doesn't know the job (404)."""
    FAILED = auto()
    """The worker has answered with another error status instead of a result."""


_READY_EVENT = "result_ready"


@dataclass(frozen=True, slots=True)
class WorkerReply:
    """A worker's report; `text` is an event's message, an error's reason, or a state; `event` an event's data."""

    worker: str
    state: JobState
    text: str = ""
    event: dict[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Dispatched:
    """The broker forwarded a POST or GET to `workers`; `asked` are the names in its target, None if unknown.

    `error` is why there are none, in an answer with an error status.
    """

    workers: tuple[str, ...]
    asked: tuple[str, ...] | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """Results of workers, not validated: the values may be of any type."""

    results: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ManagementReply:
    """The broker's own answer to a management request (MMI)."""

    value: Any


BrokerReply = WorkerReply | Dispatched | Finished | ManagementReply


def parse_reply(message: BrokerMessage) -> BrokerReply | None:
    """Return the meaning of a message, None if it has none or can't be decoded."""
    try:
        data = decode_data(message.data)
    except ProtocolError:
        return None
    if message.command == Command.MMI:
        return ManagementReply(data)
    if not isinstance(data, dict):
        return None
    if message.command == Command.EVENT:
        worker, kind = _string(data, "worker"), _string(data, "event_type")
        state = JobState.READY if kind == _READY_EVENT else JobState.PROGRESS
        return WorkerReply(worker, state, _string(data, "message"), data) if worker and kind else None
    return _response(message.status, data) if message.command == Command.RESPONSE else None


def management_request(uuid: str, task: str, *, service: str = BROKER_SERVICE, **kwargs: Any) -> ClientMessage:
    """Return a request to the broker itself, which answers it twice: with a RESPONSE and with a `ManagementReply`."""
    data = encode_data({"task": task, "kwargs": kwargs, "args": []})
    return ClientMessage(Command.MMI, service, ALL.encode(), uuid, data)


def error_reason(status: str, data: dict[str, Any]) -> str:
    """Return why a worker or broker answered with an error status, on one line of bounded length."""
    errors = data.get("errors")
    lines = [line for line in errors if isinstance(line, str)] if isinstance(errors, list) else []
    reason = _string(data, "error") or "; ".join(lines) or _string(data, "status") or f"status {status}"
    return " ".join(reason[:_REASON_CHARACTERS].split())


def worker_rows(value: Any) -> list[dict[str, str]]:
    """Return the rows of `show_workers` as text, sorted by name, without NorFab's placeholder row for an empty list."""
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    texts = [{key: str(item) for key, item in row.items()} for row in rows]
    return sorted((row for row in texts if row.get("name") and row.get("service")), key=lambda row: row["name"])


def _response(status: str, data: dict[str, Any]) -> BrokerReply | None:
    worker, is_error = _string(data, "worker"), Status.is_error(status)
    if status == Status.DONE:
        return Finished({name: value for name, value in data.items() if name})
    if status == Status.DISPATCHED:
        workers = data.get("workers")
        return Dispatched(tuple(filter(_is_unicode, workers)), _asked(data)) if isinstance(workers, list) else None
    if not worker:
        return Dispatched((), _asked(data), error_reason(status, data)) if is_error else None
    if is_error:
        state = JobState.UNKNOWN if status == Status.NOT_FOUND else JobState.FAILED
        return WorkerReply(worker, state, error_reason(status, data))
    return WorkerReply(
        worker, JobState.ACCEPTED if status == Status.ACCEPTED else JobState.RUNNING, _string(data, "status")
    )


def _asked(data: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names in the target, which the broker echoes unchanged."""
    try:
        target = decode_target(_string(data, "target").encode(errors="replace"))
    except ProtocolError:
        return None
    return ((target,) if isinstance(target, str) else tuple(target)) if target else None


def _is_unicode(name: object) -> bool:
    """Whether a name can be sent: JSON can also express unpaired surrogates."""
    return isinstance(name, str) and name == name.encode(errors="ignore").decode()


def _string(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""
