"""The audit trail: what its tasks take and give. What its lines look like on disk is in `worker/audit/chain.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from ..fields import Username
from .base import TaskInput

LAST_LINES_DEFAULT = 20
LAST_LINES_MAX = 1_000

Operation = Literal["create", "renew", "delete", "import", "restore", "backup", "refuse", "recover"]
Outcome = Literal["done", "failed", "nothing matched", "refused"]


def _last(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < len(str(LAST_LINES_MAX)) + 1:
        value = int(value)
    if type(value) is not int or not 1 <= value <= LAST_LINES_MAX:
        raise PydanticCustomError("audit_last", "must be a whole number, 1 to {limit}", {"limit": LAST_LINES_MAX})
    return value


class GetAuditInput(TaskInput):
    """Arguments of `get_audit`."""

    last: Annotated[
        int,
        BeforeValidator(_last),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": LAST_LINES_MAX}),
        Field(description="How many lines, the newest ones"),
    ] = LAST_LINES_DEFAULT
    username: Annotated[Username | None, Field(description="User name to show lines of")] = None


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AuditEntry(_Described):
    """One line of the trail. A line that can't be read comes with all fields empty and a reason that says so."""

    seq: int | None = Field(default=None, description="Number of the line, from 1")
    time: str | None = Field(default=None, description="When it was written, ISO 8601 in UTC")
    actor: str | None = Field(default=None, description="Client key, fabric:NAME or address that asked")
    operation: Operation | None = Field(default=None, description="What was asked for")
    username: str | None = Field(default=None, description="User whose tokens they are, null for several or none")
    tokens: list[str] = Field(default_factory=list, description="Keyed fingerprints of the tokens, at most 100")
    count: int = Field(default=0, description="Number of tokens concerned")
    expire: int | None = Field(default=None, description="Seconds the token lives from then, null for no expiry")
    outcome: Outcome | None = Field(default=None, description="What came of it")
    reason: str | None = Field(default=None, description="Why it was not done")
    suppressed: int | None = Field(default=None, description="Refused requests before it that left no line")
    previous: str | None = Field(default=None, description="SHA-256 of the line before")


class AuditReport(_Described):
    """What `verify_audit` found: every line is as it was written, and none is missing."""

    file: str = Field(description="File of the trail")
    lines: int = Field(description="Number of lines")
    head: str = Field(description="SHA-256 of the last line, 64 zeros where there is none")
