"""An index of the tokens in memory: by token, by user, and by expiry.

One thread changes an index, any thread reads it: each read is one dictionary look-up, or one copy of its values, which
are atomic in Python.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from ...models.tokens import BearerTokenRecord
from .replication.hashing import DIGEST_MODULUS

_REBUILD_FRACTION = 256

_by_creation = attrgetter("created", "token")
_by_expiry = attrgetter("expires")
_by_expiry_and_token = attrgetter("expires", "token")


class Position(NamedTuple):
    """The place of a record in the order of lists."""

    username: str
    created: float
    token: str


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
        self._users_version = 0
        self._sorted: tuple[int, list[str]] = (-1, [])
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

    def in_order(
        self, now: float, username: str | None = None, *, after: Position | None = None, limit: int | None = None
    ) -> list[BearerTokenRecord]:
        """Return the records that are live at `now`, of all users or of one, by user name, creation and token.

        At most `limit`, those that follow the position `after`, whether or not a record is there.
        """
        users: Sequence[str] = self._sorted_usernames() if username is None else [username]
        first = 0 if after is None else bisect_left(users, after.username)
        found: list[BearerTokenRecord] = []
        for user in islice(users, first, None):
            records = sorted(self.of_user(user), key=_by_creation)
            if after is not None and user == after.username:
                records = records[bisect_right(records, (after.created, after.token), key=_by_creation) :]
            found += [record for record in records if record.expires is None or now < record.expires]
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    def _sorted_usernames(self) -> list[str]:
        # Kept for the next page, until a user comes or goes: the version is read before the names.
        version = self._users_version
        known_version, names = self._sorted
        if known_version != version:
            names = sorted(self.usernames())
            self._sorted = version, names
        return names

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
            self._users_version += 1
        else:
            self._by_user[record.username] = {held.token: held, record.token: record}

    def _remove_from_user(self, record: BearerTokenRecord) -> None:
        held = self._by_user[record.username]
        if isinstance(held, dict):
            del held[record.token]
        if not isinstance(held, dict) or not held:
            del self._by_user[record.username]
            self._users_version += 1

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
