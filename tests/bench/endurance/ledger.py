"""Ledgers: what a client has been promised about its tokens, to compare with what a worker has after a kill.

A change that was sent and not answered may have happened or not, but wholly: the ledger takes either for good.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Row = Mapping[str, str | None]
"""A line of `bearer_token_list`."""


@dataclass(frozen=True)
class Stored:
    """A token as it must be found: whose it is, and the moments (epoch seconds) between which it expires, if ever."""

    username: str
    earliest: float | None = None
    latest: float | None = None

    def fits(self, row: Row) -> bool:
        """Whether a line of the listing shows this token."""
        if row["username"] != self.username:
            return False
        if self.earliest is None or self.latest is None or row["expires"] is None:
            return self.earliest is None and row["expires"] is None
        expires = datetime.fromisoformat(row["expires"]).timestamp()
        return self.earliest - 0.001 <= expires <= self.latest + 0.001


State = dict[str, Stored | None]
"""Every token that ever was, None for those that are gone."""


@dataclass(frozen=True)
class Change:
    """A job that stores or deletes; `tokens` are those that it touches, `sent` is when (epoch seconds)."""

    task: str
    kwargs: dict[str, Any]
    tokens: tuple[str, ...]
    sent: float = field(default_factory=time.time)

    @classmethod
    def store(cls, username: str, token: str, expire: int | None) -> Change:
        """Return the job that stores or renews a token."""
        return cls("bearer_token_store", {"username": username, "token": token, "expire": expire}, (token,))

    @classmethod
    def delete(cls, tokens: Iterable[str], **kwargs: str) -> Change:
        """Return the job that deletes what `kwargs` names, which is these tokens."""
        return cls("bearer_token_delete", kwargs, tuple(tokens))

    def after(self, now: float) -> State:
        """Return what the tokens must be when this has happened by `now`."""
        if self.task == "bearer_token_delete":
            return dict.fromkeys(self.tokens)
        username, expire = self.kwargs["username"], self.kwargs["expire"]
        stored = Stored(username) if expire is None else Stored(username, self.sent + expire, now + expire)
        return dict.fromkeys(self.tokens, stored)


class Ledger:
    """What one client knows of its tokens: `state` was acknowledged, `pending` was sent and not answered."""

    def __init__(self) -> None:
        self.state: State = {}
        self.pending: Change | None = None

    def live(self) -> dict[str, str]:
        """Return the tokens that are stored and whose they are."""
        return {token: stored.username for token, stored in self.state.items() if stored is not None}

    def gone(self) -> list[str]:
        """Return the tokens that were deleted."""
        return [token for token, stored in self.state.items() if stored is None]

    def acknowledge(self) -> None:
        """Enter the change that was sent: it has happened."""
        if self.pending is not None:
            self.state |= self.pending.after(time.time())
        self.pending = None

    def settle(self, rows: Mapping[str, Row]) -> list[str]:
        """Compare with a listing, token to line; return what is wrong. What was pending is known afterwards."""
        if self.pending is None:
            return _differences(self.state, rows)
        change, self.pending = self.pending, None
        # A token that is created is new to the ledger: it must not be there before.
        as_before = _differences(dict.fromkeys(change.tokens) | self.state, rows)
        state = self.state | change.after(time.time())
        as_after = _differences(state, rows)
        if as_before and as_after:
            return [*as_before, *(f"or, had {change.task} {change.kwargs} been done: {line}" for line in as_after)]
        if as_before:
            self.state = state
        return []


def _differences(state: State, rows: Mapping[str, Row]) -> list[str]:
    found = []
    for token, stored in state.items():
        row = rows.get(token)
        if stored is None and row is not None:
            found.append(f"token {token} was deleted and is back: {dict(row)}")
        elif stored is not None and row is None:
            found.append(f"token {token} was stored and is lost: {stored}")
        elif stored is not None and row is not None and not stored.fits(row):
            found.append(f"token {token} is not as it was stored: {dict(row)} instead of {stored}")
    return found
