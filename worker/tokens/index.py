"""The tokens in memory: by token, by user, and by the moment they expire.

One thread changes an index, any thread reads it: each reading is one look into one dictionary, or one copy of its
values, which Python does in one step.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from operator import attrgetter

from ...models.tokens import BearerTokenRecord

_REBUILD_PART = 256

_moment = attrgetter("expires")
_place = attrgetter("expires", "token")


class TokenIndex:
    """Records by token and by user.

    `by_token` is for reading. `next_expiry` is a moment before which none of the records expires, in epoch seconds.
    """

    def __init__(self, records: Iterable[BearerTokenRecord] = ()) -> None:
        self.by_token: dict[str, BearerTokenRecord] = {}
        # A user's only record stands for itself: a dictionary of one is as large as the record.
        self._by_user: dict[str, BearerTokenRecord | dict[str, BearerTokenRecord]] = {}
        names: dict[str, str] = {}
        for record in records:
            # One string for all tokens of a user.
            record.username = names.setdefault(record.username, record.username)
            self.by_token[record.token] = record
            self._give_to_user(record)
        self._expiring = sorted((record for record in self.by_token.values() if record.expires is not None), key=_place)
        self.next_expiry = self._soonest()

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
        """Return records that have expired at `now`, at most `limit` of them, those first that expired first."""
        return self._expiring[: min(limit, bisect_right(self._expiring, now, key=_moment))]

    def put(self, record: BearerTokenRecord) -> None:
        """Take a record in, in place of an older one of the same token."""
        old = self.by_token.get(record.token)
        if record.expires is not None:
            insort(self._expiring, record, key=_place)
            self.next_expiry = min(self.next_expiry, record.expires)
        if old is not None and old.username != record.username:
            self._take_from_user(old)
        self._give_to_user(record)
        self.by_token[record.token] = record
        if old is not None:
            self._take_from_expiring([old])

    def remove(self, records: Sequence[BearerTokenRecord]) -> None:
        """Take records out that are in."""
        for record in records:
            del self.by_token[record.token]
            self._take_from_user(record)
        self._take_from_expiring(records)

    def _give_to_user(self, record: BearerTokenRecord) -> None:
        held = self._by_user.get(record.username)
        if isinstance(held, dict):
            held[record.token] = record
        elif held is None or held.token == record.token:
            self._by_user[record.username] = record
        else:
            self._by_user[record.username] = {held.token: held, record.token: record}

    def _take_from_user(self, record: BearerTokenRecord) -> None:
        held = self._by_user[record.username]
        if isinstance(held, dict):
            del held[record.token]
        if not isinstance(held, dict) or not held:
            del self._by_user[record.username]

    def _take_from_expiring(self, records: Sequence[BearerTokenRecord]) -> None:
        if len(records) * _REBUILD_PART > len(self._expiring):
            # Each removal moves what is behind it: many at once are done in one pass.
            gone = set(map(id, records))
            self._expiring = [record for record in self._expiring if id(record) not in gone]
        else:
            for record in records:
                if record.expires is not None:
                    # A renewal with the same expiry stands behind it.
                    del self._expiring[bisect_left(self._expiring, _place(record), key=_place)]
        self.next_expiry = self._soonest()

    def _soonest(self) -> float:
        return math.inf if not self._expiring else self._expiring[0].expires or 0.0
