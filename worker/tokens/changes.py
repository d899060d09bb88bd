"""What is done to a token database: for those who are told of a change before it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ...models.tokens import BearerTokenRecord


@dataclass(frozen=True)
class TokenChange:
    """What is about to be done to the database: the records that it writes or, for a deletion, those that it removes.

    A token of somebody's that has expired counts as absent: who stores it anew creates it.
    """

    operation: Literal["create", "renew", "delete", "import", "restore"]
    records: tuple[BearerTokenRecord, ...]


BeforeCommit = Callable[[TokenChange], None]
"""Called with a change in the store's thread, after its rows are written and before they are committed.

At most once for each call that changes something; it must not call the store. What it raises rolls the change back and
reaches the caller as it is. A change that it let pass may still fail, and then the store raises its own error.
"""


@dataclass(frozen=True)
class ReplaceResult:
    """How many tokens a restoration stored, took away from who had them, and passed over since they have expired."""

    stored: int
    removed: int
    expired: int


@dataclass(frozen=True)
class ImportResult:
    """What became of tokens that came from elsewhere.

    `stored` and `present` count those that are stored now and those that their users had already; `refused` are those
    that are other users' here; `expired` counts those that were passed over since they have expired.
    """

    stored: int
    present: int
    refused: tuple[BearerTokenRecord, ...]
    expired: int


def bind_hook(before_commit: BeforeCommit | None, change: TokenChange) -> Callable[[], None] | None:
    """Return what tells a witness of a change, None for no witness."""
    return None if before_commit is None else partial(before_commit, change)
