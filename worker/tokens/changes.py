"""Changes of a token database: what a commit hook gets, and what changes of many tokens return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...models.tokens import BearerTokenRecord


@dataclass(frozen=True)
class TokenChange:
    """A change about to be committed: the records that it writes or, for a deletion, those that it removes.

    An expired token of another user counts as absent: storing it is a creation. The records of a restore are those that
    were not stored for the same user before, `removed` the live ones that it removes, `count` how many are stored then;
    `count` is None for a change of just its records.
    """

    operation: Literal["create", "renew", "delete", "import", "restore", "sync"]
    records: tuple[BearerTokenRecord, ...]
    removed: tuple[BearerTokenRecord, ...] = ()
    count: int | None = None


BeforeCommit = Callable[[TokenChange], None]
"""A commit hook: called with a change in the store's thread, after its rows are written and before they are committed.

At most once for each call that changes something; it must not call the store. An exception that it raises rolls the
change back and reaches the caller unchanged. The commit may still fail afterwards; the store then raises its own error.
"""


@dataclass(frozen=True)
class ReplaceResult:
    """How many tokens a restore stored, removed from their users, and skipped because they have expired."""

    stored: int
    removed: int
    expired: int


@dataclass(frozen=True)
class ImportResult:
    """The outcome of an import.

    `stored` counts the tokens that are new here, `present` those that their users had already, `expired` those that
    were skipped because they have expired; `refused` are those that other users have here; `deleted` counts those that
    were deleted here since they were created.
    """

    stored: int
    present: int
    refused: tuple[BearerTokenRecord, ...]
    expired: int
    deleted: int = 0


def bind_once(before_commit: BeforeCommit | None, change: TokenChange) -> Callable[[], None] | None:
    """Return a hook bound to its change, which does nothing once it has succeeded; None for no hook."""
    if before_commit is None:
        return None
    is_called = False

    def call() -> None:
        nonlocal is_called
        if not is_called:
            before_commit(change)
            is_called = True

    return call
