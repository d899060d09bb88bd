"""Tombstones: which tokens and users were deleted when, so that an older record elsewhere doesn't bring them back.

A tombstone holds the keyed hash of what was deleted, and never a token. It is a row of the token database, written in
the transaction of the deletion:

    key    text, `tombstone::KEY_ID::token::HASH` or `tombstone::KEY_ID::user::HASH`
    value  text, the time of the deletion in epoch seconds

Those made with another fleet key can't be matched; they are kept as long as the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from ....models.fields import LAST_INSTANT
from ....models.tokens import BearerTokenRecord
from .hashing import TokenHasher

TOMBSTONE_PREFIX = "tombstone::"
KEPT_SECONDS = 30 * 86_400.0
SWEEP_BATCH = 10_000
STEP_SECONDS = 1e-6
"""By how much a creation after a deletion is later at least, whatever the clocks of the two workers say."""

Kind = Literal["token", "user"]

_ROW_KEY = re.compile(r"tombstone::([0-9a-f]{8})::(token|user)::([0-9a-f]{32})")


@dataclass(frozen=True)
class RowChange:
    """Rows of tombstones to write, by key, and keys of rows to remove."""

    written: Mapping[str, str] = field(default_factory=dict)
    removed: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.written or self.removed)


NO_TOMBSTONES = RowChange()


class Tombstones:
    """The tombstones of one database; one thread changes them, any thread reads them.

    `tokens` and `users` have the time of the latest deletion by the keyed hash of what was deleted. No tombstone is to
    be swept before `next_sweep`.
    """

    def __init__(self, hasher: TokenHasher, rows: Mapping[str, str] | None = None) -> None:
        self._hasher = hasher
        self._foreign: dict[str, float] = {}
        self.tokens: dict[bytes, float] = {}
        self.users: dict[bytes, float] = {}
        self.next_sweep = math.inf
        for key, value in (rows or {}).items():
            self._load(key, value)

    def _load(self, key: str, value: str) -> None:
        found, deleted = _ROW_KEY.fullmatch(key), parse_time(value)
        if found is None or deleted is None:
            self._foreign[key] = -math.inf  # nothing that this program has written: removed by the next sweep
            self.next_sweep = -math.inf
        elif found[1] != self._hasher.key_id:
            self._foreign[key] = deleted
        else:
            self._of_kind(found[2])[bytes.fromhex(found[3])] = deleted
        if deleted is not None:
            self.next_sweep = min(self.next_sweep, deleted + KEPT_SECONDS)

    def _of_kind(self, kind: str) -> dict[bytes, float]:
        return self.tokens if kind == "token" else self.users

    def latest_for(self, token: str, username: str) -> float:
        """Return when this token, or all tokens of this user, were last deleted; minus infinity for never."""
        if not self.tokens and not self.users:
            return -math.inf
        deleted = self.tokens.get(self._hasher.token_id(token), -math.inf)
        return max(deleted, self.users.get(self._hasher.user_id(username), -math.inf) if self.users else -math.inf)

    def covers(self, record: BearerTokenRecord) -> bool:
        """Whether a record is no newer than a deletion of its token or user."""
        return record.written_at <= self.latest_for(record.token, record.username)

    def plan(
        self,
        now: float,
        *,
        records: Iterable[BearerTokenRecord] = (),
        token: str | None = None,
        username: str | None = None,
    ) -> RowChange:
        """Return the rows for a deletion of records, and of a token or user whether stored here or not.

        A deletion is never older than what it deletes.
        """
        now = round(now, 6)
        deleted: dict[tuple[Kind, bytes], float] = {}
        latest = now
        for record in records:
            latest = max(latest, record.written_at)
            deleted["token", self._hasher.token_id(record.token)] = max(now, record.written_at)
        if token is not None:
            deleted.setdefault(("token", self._hasher.token_id(token)), now)
        if username is not None:
            deleted["user", self._hasher.user_id(username)] = latest
        return self.rows(deleted)

    def rows(self, deleted: Mapping[tuple[Kind, bytes], float]) -> RowChange:
        """Return the rows for deletions at these times, without those that are known to be as late."""
        return RowChange(
            {
                self._row_key(kind, digest): repr(time)
                for (kind, digest), time in deleted.items()
                if time > self._of_kind(kind).get(digest, -math.inf)
            }
        )

    def without(self, records: Iterable[BearerTokenRecord]) -> RowChange:
        """Return the rows to remove so that these tokens, which are stored again, count as never deleted."""
        if not self.tokens:
            return RowChange()
        digests = (self._hasher.token_id(record.token) for record in records)
        return RowChange(removed=[self._row_key("token", digest) for digest in digests if digest in self.tokens])

    def restored(self, rows: Mapping[str, str], records: Sequence[BearerTokenRecord], now: float) -> RowChange:
        """Return the change that adds rows of a backup, and leaves none for the tokens that it restores."""
        added = Tombstones(self._hasher, {key: value for key, value in rows.items() if _ROW_KEY.fullmatch(key)})
        removed = [*self.without(records).removed]
        known = {key: deleted for key, deleted in self._all() if key not in removed}
        skipped = {*added.without(records).removed}
        written = {
            key: repr(deleted)
            for key, deleted in added._all()
            if key not in skipped and known.get(key, -math.inf) < deleted and deleted + KEPT_SECONDS > now
        }
        return RowChange(written, removed)

    def rows_of_renewed(self, records: Iterable[BearerTokenRecord]) -> RowChange:
        """Return the rows that keep older versions of these expired tokens from coming back."""
        renewed = (record for record in records if record.written is not None)
        return self.rows({("token", self._hasher.token_id(each.token)): each.written_at for each in renewed})

    def expired(self, now: float, limit: int = SWEEP_BATCH) -> RowChange:
        """Return at most `limit` rows of tombstones that are old enough to be removed."""
        if now < self.next_sweep:
            return RowChange()
        old = [key for key, deleted in self._all() if deleted + KEPT_SECONDS <= now]
        return RowChange(removed=old[:limit])

    def update_next_sweep(self) -> None:
        """Compute `next_sweep` from all tombstones: those that were removed otherwise leave it too early."""
        self.next_sweep = min((deleted + KEPT_SECONDS for _, deleted in self._all()), default=math.inf)

    def apply(self, change: RowChange) -> None:
        """Take over a change that is committed."""
        for key, value in change.written.items():
            self._load(key, value)
        for key in change.removed:
            self._foreign.pop(key, None)
            found = _ROW_KEY.fullmatch(key)
            if found is not None and found[1] == self._hasher.key_id:
                self._of_kind(found[2]).pop(bytes.fromhex(found[3]), None)

    def _all(self) -> list[tuple[str, float]]:
        own = [(self._row_key("token", digest), deleted) for digest, deleted in self.tokens.items()]
        own += [(self._row_key("user", digest), deleted) for digest, deleted in self.users.items()]
        return [*own, *self._foreign.items()]

    def _row_key(self, kind: str, digest: bytes) -> str:
        return f"{TOMBSTONE_PREFIX}{self._hasher.key_id}::{kind}::{digest.hex()}"


def parse_time(value: str) -> float | None:
    """Return the time in a row of a tombstone, None if the text is no time."""
    with suppress(ValueError):
        deleted = float(value)
        if 0 <= deleted < LAST_INSTANT:
            return deleted
    return None
