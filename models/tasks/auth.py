"""Inputs and results of the tasks that manage bearer tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..fields import NEVER, Lifetime, StoredUsername, Token, Username
from .base import TaskInput, fold_name

RESERVED_PREFIX = "bearer_token_"
INTROSPECT_TASK = "bearer_token_introspect"
"""The only task that a client may run whose key may only ask about tokens."""


def is_token_task(name: str) -> bool:
    """Whether a task manages bearer tokens, as its name says in any spelling.

    Such a task is never an MCP tool, and no plugin may define one.
    """
    return fold_name(name).startswith(RESERVED_PREFIX)


class BearerTokenStoreInput(TaskInput):
    """Arguments of `bearer_token_store`."""

    token: Annotated[Token, Field(description="Token string to store, autogenerate if not given", repr=False)]
    username: Annotated[Username, Field(description="User name to store the token for")]
    expire: Annotated[Lifetime | None, Field(description="Token expiration time in seconds")] = None

    def lifetime(self, default: int | None = None) -> int | None:
        """Return the lifetime in seconds, None for a token that never expires; `default` is for none given."""
        if self.expire == NEVER:
            return None
        return default if self.expire is None else self.expire


class BearerTokenListInput(TaskInput):
    """Arguments of `bearer_token_list`."""

    username: Annotated[StoredUsername | None, Field(description="User name to list tokens for")] = None


class BearerTokenDeleteInput(TaskInput):
    """Arguments of `bearer_token_delete`: at least one of the two."""

    username: Annotated[StoredUsername | None, Field(description="User name whose tokens should be deleted")] = None
    token: Annotated[Token | None, Field(description="Bearer token string to delete", repr=False)] = None


class BearerTokenCheckInput(TaskInput):
    """Arguments of `bearer_token_check`."""

    token: Annotated[Token, Field(description="Bearer token string to check", repr=False)]


class BearerTokenState(BaseModel):
    """Result of `bearer_token_introspect`; of a token that isn't active nothing else is said.

    `created` and `expires` are seconds since the epoch (UTC), `expires` None for a token that never expires.
    """

    model_config = ConfigDict(frozen=True)

    active: bool
    username: str | None = None
    scopes: list[str] = []
    created: float | None = None
    expires: float | None = None


class BearerTokenEntry(BaseModel):
    """One entry of `bearer_token_list`; times are the worker's local time.

    `age` is `str(timedelta)`. For NorFab's clients `creation` and `expires` are `YYYY-MM-DD HH:MM:SS.ffffff`, and
    `expires` is `None` (the word) for a token without expiry; nfcli's request ISO 8601 with offset, and null.
    """

    model_config = ConfigDict(frozen=True)

    username: str
    token: Annotated[str, Field(repr=False)]
    age: str
    creation: str
    expires: str | None
