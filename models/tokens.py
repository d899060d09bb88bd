"""Bearer tokens: what the four auth tasks take and give, and the record that is kept of each token."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from .fields import Seconds, Token, Username


class TaskInput(BaseModel):
    """Base of every task's input: unknown keys are errors, and values never show up in error texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)


class BearerTokenStoreInput(TaskInput):
    """Arguments of `bearer_token_store`."""

    token: Annotated[Token, Field(description="Token string to store, autogenerate if not given", repr=False)]
    username: Annotated[Username, Field(description="User name to store the token for")]
    expire: Annotated[Seconds | None, Field(description="Token expiration time in seconds")] = None


class BearerTokenListInput(TaskInput):
    """Arguments of `bearer_token_list`."""

    username: Annotated[Username | None, Field(description="User name to list tokens for")] = None


class BearerTokenDeleteInput(TaskInput):
    """Arguments of `bearer_token_delete`: at least one of the two."""

    username: Annotated[Username | None, Field(description="User name whose tokens should be deleted")] = None
    token: Annotated[Token | None, Field(description="Bearer token string to delete", repr=False)] = None


class BearerTokenCheckInput(TaskInput):
    """Arguments of `bearer_token_check`."""

    token: Annotated[Token, Field(description="Bearer token string to check", repr=False)]


class BearerTokenEntry(BaseModel):
    """One line of `bearer_token_list`; every value is text, times are the worker's local time.

    `age` is `str(timedelta)`, `creation` and `expires` are `YYYY-MM-DD HH:MM:SS.ffffff`; `expires` is `None` (the word)
    for a token without expiry.
    """

    model_config = ConfigDict(frozen=True)

    username: str
    token: Annotated[str, Field(repr=False)]
    age: str
    creation: str
    expires: str


class BearerTokenRecord:
    """A stored token. `created` and `expires` are seconds since the epoch (UTC); `expires` None means never.

    A slotted class rather than a model: a worker holds one for every token, and 100,000 of them must stay small.
    """

    __slots__ = ("created", "expires", "token", "username")

    def __init__(self, token: str, username: str, created: float, expires: float | None) -> None:
        self.token = token
        self.username = username
        self.created = created
        self.expires = expires

    def __repr__(self) -> str:
        """Leave the token out: a repr may end in a log."""
        return f"BearerTokenRecord(username={self.username!r}, created={self.created}, expires={self.expires})"

    def is_live(self, now: float) -> bool:
        """Whether the token still counts at `now` (epoch seconds); it dies at the very moment `expires` names."""
        return self.expires is None or now < self.expires

    def entry(self, now: float) -> dict[str, str]:
        """Return the fields of this record's `BearerTokenEntry` as seen at `now` (epoch seconds).

        A plain dict: a list of 100,000 models takes three times as long to make and to serialize, since the garbage
        collector follows each of them.
        """
        return {
            "username": self.username,
            "token": self.token,
            "age": str(timedelta(seconds=max(0.0, now - self.created))),
            "creation": _local_text(self.created),
            "expires": "None" if self.expires is None else _local_text(self.expires),
        }


def _local_text(epoch_seconds: float) -> str:
    # Straight to local time: by way of an aware instant a list of 100,000 tokens takes 0.3 s longer.
    return datetime.fromtimestamp(epoch_seconds).isoformat(" ", "microseconds")  # noqa: DTZ006  text for people
