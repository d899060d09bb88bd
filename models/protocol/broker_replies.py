"""What a NorFab broker's messages mean to whoever sent a job through it.

A broker adds its own 202 and 400 to what the workers say (nfp: see `models/protocol/frames.py`); names of workers are
in the data. Everything here comes from other programs: what hasn't the right shape means nothing,
and nothing is raised.
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
"""How long a broker of norfab 0.25.0 keeps a worker that has fallen silent."""

_REASON_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Dispatched:
    """The broker has handed a POST or GET to `workers`; `asked` are the names that it was for, None where unknown."""

    workers: tuple[str, ...]
    asked: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The broker has no worker for a POST or GET; `asked` are the names that it was for, None where unknown."""

    asked: tuple[str, ...] | None
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Workers have answered with their results, as they came: the values may be of any kind."""

    results: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A worker has stored the job."""

    worker: str


@dataclass(frozen=True, slots=True)
class Running:
    """A worker has the job and hasn't finished it."""

    worker: str


@dataclass(frozen=True, slots=True)
class ResultReady:
    """A worker has finished the job: its result can be had with a GET."""

    worker: str


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """A worker tells how far it is."""

    worker: str
    message: str


@dataclass(frozen=True, slots=True)
class UnknownJob:
    """A worker doesn't know the job."""

    worker: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker has answered with an error status instead of a result."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class ManagementReply:
    """The broker itself has answered a question (MMI)."""

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
    """Return what a message says, None for one that says nothing, or nothing that can be understood."""
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
    """Return the message that asks the broker itself; it answers twice, with a RESPONSE and with `ManagementReply`."""
    data = encode_data({"task": task, "kwargs": kwargs, "args": []})
    return ClientMessage(Command.MMI, service, ALL.encode(), uuid, data)


def worker_rows(value: Any) -> list[dict[str, str]]:
    """Return the rows of the broker's `show_workers`, text only, by name; without workers it gives a row of blanks."""
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    texts = [{str(key): item if isinstance(item, str) else str(item) for key, item in row.items()} for row in rows]
    return sorted((row for row in texts if row.get("name") and row.get("service")), key=lambda row: row["name"])


def _event(data: dict[str, Any]) -> Reply | None:
    worker, kind = _text(data, "worker"), data.get("event_type")
    if not worker:
        return None
    if kind == "result_ready":
        return ResultReady(worker)
    return ProgressUpdate(worker, _text(data, "message")) if kind == "progress" else None


def _response(status: str, data: dict[str, Any]) -> Reply | None:
    worker = _text(data, "worker")
    if status == Status.DONE:
        return Finished({name: value for name, value in data.items() if name})
    if status == Status.DISPATCHED:
        workers = data.get("workers")
        return Dispatched(_names(workers), _asked(data)) if isinstance(workers, list) else None
    if Status.is_error(status):
        if not worker:
            return Rejected(_asked(data), _reason(status, data))
        return UnknownJob(worker) if status == Status.NOT_FOUND else Failed(worker, _reason(status, data))
    if not worker:
        return None
    return Accepted(worker) if status == Status.ACCEPTED else Running(worker)


def _asked(data: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names in the target that the broker gives back; norfab 0.25.0 does so as it came."""
    try:
        target = decode_target(_text(data, "target").encode(errors="replace"))
    except ProtocolError:
        return None
    if not target:
        return None
    return (target,) if isinstance(target, str) else tuple(target)


def _names(value: Sequence[Any]) -> tuple[str, ...]:
    return tuple(name for name in value if isinstance(name, str))


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _reason(status: str, data: dict[str, Any]) -> str:
    errors = data.get("errors")
    lines = [line for line in errors if isinstance(line, str)] if isinstance(errors, list) else []
    said = _text(data, "error") or "; ".join(lines) or _text(data, "status") or f"status {status}"
    return said[:_REASON_CHARACTERS]
