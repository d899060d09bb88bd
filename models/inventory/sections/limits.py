"""The section `limits`: what one user's tool calls may take."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from ...patterns.globs import matches_glob
from ..types import Kind, parse_whole_number, refusal
from .base import InventorySection
from .introspection import UserGlobs

MAX_CALLS = 1_000_000
MAX_BYTES = 10**12


def _parse(value: Any, maximum: int) -> int | None:
    return None if value is None else parse_whole_number(value, 1, maximum, f"must be a whole number, 1 to {maximum}")


Calls = Annotated[int | None, BeforeValidator(partial(_parse, maximum=MAX_CALLS)), Kind("whole number from 1, or null")]
Bytes = Annotated[
    int | None, BeforeValidator(partial(_parse, maximum=MAX_BYTES)), Kind("whole number of bytes from 1, or null")
]


class UserLimit(InventorySection):
    """Limits of each user whose name matches."""

    users: Annotated[UserGlobs, Kind("list of user names and globs")] = Field(
        description="Users whose tool calls are limited, each for himself; the first entry that has a user counts"
    )
    calls_per_minute: Calls = Field(default=None, description="Tool calls that a user may make within a minute")
    calls_at_once: Calls = Field(default=None, description="Tool calls of a user that may run at the same time")
    bytes_per_minute: Bytes = Field(
        default=None,
        description="Size of the results that a user may get within a minute, in bytes of JSON; a call that goes "
        "beyond it is answered, and the next ones wait",
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if (self.calls_per_minute, self.calls_at_once, self.bytes_per_minute) == (None, None, None):
            raise refusal("must have calls_per_minute, calls_at_once or bytes_per_minute")
        return self

    def has(self, username: str) -> bool:
        """Whether these are the limits of a user."""
        return any(matches_glob(glob, username) for glob in self.users)
