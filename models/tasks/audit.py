"""Inputs and results of the tasks that read the audit trail; `worker/audit/chain.py` has the format on disk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from ..fields import StoredUsername, Token, quote_value, seconds_of
from .base import Report, TaskInput

LAST_LINES_DEFAULT = 20
MAX_LAST_LINES = 1_000

Operation = Literal["create", "renew", "delete", "import", "restore", "sync", "backup", "list", "refuse", "recover"]
TOKEN_CHANGES: frozenset[Operation] = frozenset({"create", "renew", "delete", "import", "restore", "sync"})
"""Operations that change which tokens are valid."""
Authentication = Literal["curve", "signature"]
"""What proves an actor's name: the CURVE key of its connection, or the signature of its job."""
Outcome = Literal["done", "failed", "nothing matched", "refused"]


_SINCE_RULE = "must be a time like 2026-05-31T10:00, or how long ago: 30m, 12h, 7d, 2w"


def _last(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < len(str(MAX_LAST_LINES)) + 1:
        value = int(value)
    if type(value) is not int or not 1 <= value <= MAX_LAST_LINES:
        limit, quoted = MAX_LAST_LINES, quote_value(value)
        raise PydanticCustomError(
            "audit_last", "must be a whole number, 1 to {limit}, got {value}", {"limit": limit, "value": quoted}
        )
    return value


def _since(value: Any) -> str:
    """Return a moment as lines have it: ISO 8601 in UTC, with milliseconds. A text without a zone is local time."""
    try:
        seconds = seconds_of(value)
        if isinstance(seconds, str):
            moment = datetime.fromisoformat(seconds).astimezone(UTC)
        else:
            moment = datetime.now(UTC) - timedelta(seconds=seconds)
        return moment.isoformat(timespec="milliseconds")
    except (TypeError, ValueError, OverflowError):
        quoted = quote_value(value)
        raise PydanticCustomError(
            "audit_since", "{rule}, got {value}", {"rule": _SINCE_RULE, "value": quoted}
        ) from None


LastLines = Annotated[
    int, BeforeValidator(_last), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_LAST_LINES})
]
"""How many of the newest lines to show, also as it was typed."""


class GetAuditInput(TaskInput):
    """Arguments of `get_audit`."""

    last: Annotated[LastLines, Field(description="Number of lines, counted from the newest")] = LAST_LINES_DEFAULT
    username: Annotated[StoredUsername | None, Field(description="User name to show lines for")] = None
    token: Annotated[Token | None, Field(description="Token to show lines for", repr=False)] = None
    operation: Annotated[Operation | None, Field(description="Operation to show lines for")] = None
    since: Annotated[
        Annotated[str, BeforeValidator(_since)] | None,
        Field(description="Time to show lines from, or how long ago: 30m, 12h, 7d"),
    ] = None


class AuditEntry(Report):
    """One line of the trail. A line that can't be parsed has empty fields and a reason that says so."""

    seq: int | None = Field(default=None, description="Number of the line, from 1")
    time: str | None = Field(default=None, description="When it was written, ISO 8601 in UTC")
    actor: str | None = Field(default=None, description="Who sent the request: client key, fabric:NAME or address")
    authenticated: Authentication | None = Field(
        default=None, description="What proves the actor's name: curve, signature, or null for a name it gave itself"
    )
    origin: str | None = Field(default=None, description="user@host, as the client itself reports it")
    address: str | None = Field(
        default=None, description="Where the connection came from: IP address, or user and process id on this machine"
    )
    job: str | None = Field(default=None, description="UUID of the job")
    operation: Operation | None = Field(default=None, description="Requested operation")
    username: str | None = Field(default=None, description="Owner of the tokens, null for several owners or none")
    tokens: list[str] = Field(default_factory=list, description="Keyed fingerprints of tokens, at most 100")
    count: int = Field(default=0, description="Number of tokens concerned")
    expire: int | None = Field(default=None, description="Lifetime of the token in seconds, null for no expiry")
    outcome: Outcome | None = Field(default=None, description="Outcome of the operation")
    reason: str | None = Field(default=None, description="Reason why nothing changed")
    suppressed: int | None = Field(
        default=None, description="Number of refused requests before this line that have no line of their own"
    )
    part: int | None = Field(
        default=None, description="Number of this line, from 2, among those of one change with more than 100 tokens"
    )
    previous: str | None = Field(default=None, description="SHA-256 of the previous line")


class AuditReport(Report):
    """Result of `verify_audit` for an intact trail: no line was altered and none is missing."""

    file: str = Field(description="Path of the trail")
    lines: int = Field(description="Number of lines")
    head: str = Field(description="SHA-256 of the last line, 64 zeros for an empty trail")
