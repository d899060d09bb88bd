"""An index of the tokens in memory: by token, by user, and by expiry.

One thread changes an index, any thread reads it: each read is one dictionary look-up, or one copy of its values, which
are atomic in Python.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

from ...models.tokens import BearerTokenRecord
from .replication.hashing import DIGEST_MODULUS

_REBUILD_FRACTION = 256

_by_expiry = attrgetter("expires")
_by_expiry_and_token = attrgetter("expires", "token")


class TokenIndex:
    """Records by token and by user.

    `by_token` is for reading only. No record expires before `next_expiry` (epoch seconds). `digest` is the sum of the
    hashes of all records, 0 without `hash_record`.
    """

    def __init__(
        self,
        records: Iterable[BearerTokenRecord] = (),
        hash_record: Callable[[BearerTokenRecord], int] = lambda _record: 0,
    ) -> None:
        self._hash_record = hash_record
        self.by_token: dict[str, BearerTokenRecord] = {}
        # A single record is stored without a dictionary, which would take as much memory as the record.
        self._by_user: dict[str, BearerTokenRecord | dict[str, BearerTokenRecord]] = {}
        names: dict[str, str] = {}
        for record in records:
            # All tokens of a user share one string.
            record.username = names.setdefault(record.username, record.username)
            self.by_token[record.token] = record
            self._add_to_user(record)
        self._expiring = sorted(
            (record for record in self.by_token.values() if record.expires is not None), key=_by_expiry_and_token
        )
        self.next_expiry = self._earliest_expiry()
        self.digest = sum(map(hash_record, self.by_token.values())) % DIGEST_MODULUS

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.by_token)

    def records(self) -> list[BearerTokenRecord]:
        """Return all records."""
        return list(self.by_token.values())

    def of_user(self, username: str) -> list[BearerTokenRecord]:
        """Return a user's records."""
        held = self._by_user.get(username)
        if isinstance(held, dict):
            return list(held.values())
        return [] if held is None else [held]

    def usernames(self) -> list[str]:
        """Return the names of all users."""
        return list(self._by_user)

    def expired(self, now: float, limit: int) -> list[BearerTokenRecord]:
        """Return at most `limit` records that have expired at `now`, in order of expiry."""
        return self._expiring[: min(limit, bisect_right(self._expiring, now, key=_by_expiry))]

    def live_digest(self, now: float) -> int:
        """Return the digest of the records that have not expired at `now`."""
        expired = self.expired(now, len(self))
        return (self.digest - sum(map(self._hash_record, expired))) % DIGEST_MODULUS

    def put(self, record: BearerTokenRecord) -> None:
        """Add a record, replacing an older one of the same token."""
        old = self.by_token.get(record.token)
        if record.expires is not None:
            insort(self._expiring, record, key=_by_expiry_and_token)
            self.next_expiry = min(self.next_expiry, record.expires)
        if old is not None and old.username != record.username:
            self._remove_from_user(old)
        self._add_to_user(record)
        self.by_token[record.token] = record
        change = self._hash_record(record)
        if old is not None:
            self._remove_from_expiring([old])
            change -= self._hash_record(old)
        self.digest = (self.digest + change) % DIGEST_MODULUS

    def remove(self, records: Sequence[BearerTokenRecord]) -> None:
        """Remove records, all of which are in the index."""
        for record in records:
            del self.by_token[record.token]
            self._remove_from_user(record)
        self._remove_from_expiring(records)
        self.digest = (self.digest - sum(map(self._hash_record, records))) % DIGEST_MODULUS

    def _add_to_user(self, record: BearerTokenRecord) -> None:
        held = self._by_user.get(record.username)
        if isinstance(held, dict):
            held[record.token] = record
        elif held is None or held.token == record.token:
            self._by_user[record.username] = record
        else:
            self._by_user[record.username] = {held.token: held, record.token: record}

    def _remove_from_user(self, record: BearerTokenRecord) -> None:
        held = self._by_user[record.username]
        if isinstance(held, dict):
            del held[record.token]
        if not isinstance(held, dict) or not held:
            del self._by_user[record.username]

    def _remove_from_expiring(self, records: Sequence[BearerTokenRecord]) -> None:
        if len(records) * _REBUILD_FRACTION > len(self._expiring):
            # Each removal from a list shifts its tail: many at once are removed in one pass.
            gone = set(map(id, records))
            self._expiring = [record for record in self._expiring if id(record) not in gone]
        else:
            for record in records:
                if record.expires is not None:
                    # A renewal with the same expiry comes after it.
                    del self._expiring[
                        bisect_left(self._expiring, _by_expiry_and_token(record), key=_by_expiry_and_token)
                    ]
        self.next_expiry = self._earliest_expiry()

    def _earliest_expiry(self) -> float:
        return math.inf if not self._expiring else self._expiring[0].expires or 0.0
