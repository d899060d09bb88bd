"""Parse the messages that a NorFab broker sends to clients into one class for each meaning.

The broker adds its own 202 and 400 to the messages that it relays from workers (see `frames.py`); workers are named in
the data. All of it comes from other programs: a message of another shape is None, and nothing is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Dispatched:
    """The broker forwarded a POST or GET to `workers`; `asked` are the names in its target, None if unknown."""

    workers: tuple[str, ...]
    asked: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The broker has no worker for a POST or GET; `asked` are the names in its target, None if unknown."""

    asked: tuple[str, ...] | None
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Results of workers, not validated: the values may be of any type."""

    results: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A worker has stored the job."""

    worker: str


@dataclass(frozen=True, slots=True)
class Running:
    """A worker has the job and has not finished it."""

    worker: str


@dataclass(frozen=True, slots=True)
class ResultReady:
    """A worker has finished the job: a GET returns its result."""

    worker: str


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """A progress message of a worker."""

    worker: str
    message: str


@dataclass(frozen=True, slots=True)
class UnknownJob:
    """A worker doesn't know the job (404)."""

    worker: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker has answered with an error status instead of a result."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class ManagementReply:
    """The broker's own answer to a management request (MMI)."""

    value: Any


Reply = (
    Dispatched
    | Rejected
    | Finished
    | Accepted
    | Running
    | ResultReady
    | ProgressUpdate
    | UnknownJob
    | Failed
    | ManagementReply
)


def parse_reply(message: BrokerMessage) -> Reply | None:
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
        return _event(data)
    return _response(message.status, data) if message.command == Command.RESPONSE else None


def management_request(uuid: str, task: str, *, service: str = BROKER_SERVICE, **kwargs: Any) -> ClientMessage:
    """Return a request to the broker itself, which answers it twice: with a RESPONSE and with a `ManagementReply`."""
    data = encode_data({"task": task, "kwargs": kwargs, "args": []})
    return ClientMessage(Command.MMI, service, ALL.encode(), uuid, data)


def error_reason(status: str, data: dict[str, Any]) -> str:
    """Return why a worker or broker answered with an error status, bounded in length."""
    errors = data.get("errors")
    lines = [line for line in errors if isinstance(line, str)] if isinstance(errors, list) else []
    reason = _string(data, "error") or "; ".join(lines) or _string(data, "status") or f"status {status}"
    return reason[:_REASON_CHARACTERS]


def worker_rows(value: Any) -> list[dict[str, str]]:
    """Return the rows of `show_workers` as text, sorted by name, without the empty row that stands for no workers."""
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    texts = [{str(key): item if isinstance(item, str) else str(item) for key, item in row.items()} for row in rows]
    return sorted((row for row in texts if row.get("name") and row.get("service")), key=lambda row: row["name"])


def _event(data: dict[str, Any]) -> Reply | None:
    worker, kind = _string(data, "worker"), data.get("event_type")
    if not worker:
        return None
    if kind == "result_ready":
        return ResultReady(worker)
    return ProgressUpdate(worker, _string(data, "message")) if kind == "progress" else None


def _response(status: str, data: dict[str, Any]) -> Reply | None:
    worker = _string(data, "worker")
    if status == Status.DONE:
        return Finished({name: value for name, value in data.items() if name})
    if status == Status.DISPATCHED:
        workers = data.get("workers")
        return Dispatched(_names(workers), _asked(data)) if isinstance(workers, list) else None
    if Status.is_error(status):
        if not worker:
            return Rejected(_asked(data), error_reason(status, data))
        return UnknownJob(worker) if status == Status.NOT_FOUND else Failed(worker, error_reason(status, data))
    if not worker:
        return None
    return Accepted(worker) if status == Status.ACCEPTED else Running(worker)


def _asked(data: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names in the target, which the broker echoes unchanged."""
    try:
        target = decode_target(_string(data, "target").encode(errors="replace"))
    except ProtocolError:
        return None
    if not target:
        return None
    return (target,) if isinstance(target, str) else tuple(target)


def _names(value: Sequence[Any]) -> tuple[str, ...]:
    return tuple(name for name in value if isinstance(name, str))


def _string(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""
