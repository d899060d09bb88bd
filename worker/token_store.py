"""The bearer tokens of one worker: their rules, an exact index in memory, and a durable copy on disk.

The worker is the only owner of the database, so the index tells the whole truth: a look-up never touches the disk. All
disk work runs in one thread that the store owns, one operation at a time; the index changes in that thread, and only
after the disk has the change. Records are never altered, only replaced, so other threads may read at any time.

Nothing here knows of MCP or ZeroMQ.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Literal, ParamSpec, Self, TypeVar

from pydantic import ValidationError

from ..models.errors import TaskError, TokenOwnerError, TokenStoreError, sentences
from ..models.tokens import BearerTokenRecord, BearerTokenStoreInput
from .token_disk import LOCK_TIMEOUT_SECONDS, LoadedTokens, TokenDatabase, foreign_databases

log = logging.getLogger(__name__)

SWEEP_BATCH_TOKENS = 500

_Parameters = ParamSpec("_Parameters")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Change:
    """What is about to be done to the database: the records that it writes or, for a deletion, those that it removes.

    A token of somebody's that has expired counts as absent: who stores it anew creates it.
    """

    operation: Literal["create", "renew", "delete", "restore"]
    records: tuple[BearerTokenRecord, ...]


Witness = Callable[[Change], None]
"""Called with a change in the store's thread, after its rows are written and before they are committed.

At most once for each call that changes something; it must not call the store. What it raises rolls the change back and
reaches the caller as it is. A change that it let pass may still fail, and then the store raises its own error.
"""


class TokenStore:
    """Bearer tokens by token and by user; open it with `TokenStore.open`.

    Any thread may call any method. Instants are epoch seconds (UTC). A token is live until the very moment it expires;
    one that isn't live counts as absent everywhere. The clock never runs backwards here: after it is set back, time
    stands still until it has caught up, so that what expired stays expired.

    `on_revoked` holds functions called once for each change with all tokens that it removed, in the thread that asked,
    after their removal is durable and no look-up finds them, and before the call returns; they may block briefly.

    `pickled_rows` and `invalid_rows` count the rows that opening passed over.
    """

    def __init__(self, database: TokenDatabase, executor: ThreadPoolExecutor, clock: Callable[[], float]) -> None:
        self._database = database
        self._executor = executor
        self._clock = clock
        self._latest = clock()
        self._is_closed = False
        self._by_token: dict[str, BearerTokenRecord] = {}
        self._by_user: dict[str, tuple[BearerTokenRecord, ...]] = {}
        self.pickled_rows = 0
        self.invalid_rows = 0
        self.on_revoked: list[Callable[[Sequence[str]], None]] = []

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
        lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
    ) -> TokenStore:
        """Open the database in `directory` (made when missing), load its tokens and sweep the expired ones.

        The caller makes sure that no other process has it open. An operation gives up after `lock_timeout_seconds` if
        somebody holds the database's lock nevertheless.

        Raises:
            EnvironmentFolderError: the folder or a file in it is open to others.
            TokenStoreError: its subclasses say whether the database is busy, read-only, full or damaged.
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="token-store")
        database: TokenDatabase | None = None
        try:
            database = executor.submit(
                TokenDatabase.open, directory, lock_timeout_seconds=lock_timeout_seconds
            ).result()
            store = cls(database, executor, clock)
            store._fill(executor.submit(database.load).result(), directory)
            store.sweep()
        except BaseException:
            if database is not None:
                executor.submit(database.close)
            executor.shutdown()
            raise
        return store

    def close(self) -> None:
        """Close the database; look-ups find nothing afterwards, all else raises `TokenStoreError`. Safe to repeat."""
        if self._is_closed:
            return
        self._is_closed = True
        self._executor.submit(self._database.close).result()
        self._executor.shutdown()
        self._by_token, self._by_user = {}, {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def now(self) -> float:
        """Return the clock's highest reading so far."""
        # Two threads may race here: the later reading is then lost for as long as one switch of threads takes.
        now = self._clock()
        if now > self._latest:
            self._latest = now
            return now
        return self._latest

    def lookup(self, token: str) -> BearerTokenRecord | None:
        """Return the record of a live token, else None; takes no lock, never touches the disk, never raises."""
        record = self._by_token.get(token)
        if record is None:
            return None
        return record if record.expires is None or self.now() < record.expires else None

    def records(self, username: str | None = None) -> list[BearerTokenRecord]:
        """Return the live tokens, or those of one user, by user name and then by creation."""
        users = sorted(self._by_user) if username is None else [username]
        now = self.now()
        return [
            record
            for user in users
            for record in sorted(self._by_user.get(user, ()), key=attrgetter("created"))
            if record.expires is None or now < record.expires
        ]

    def usernames(self) -> list[str]:
        """Return the names of the users that have a live token, sorted."""
        now = self.now()
        return sorted(user for user, records in list(self._by_user.items()) if any(r.is_live(now) for r in records))

    def __len__(self) -> int:
        """Return the number of live tokens."""
        now = self.now()
        return sum(record.is_live(now) for record in list(self._by_token.values()))

    def next_expiry(self) -> float | None:
        """Return the earliest expiry of all tokens that weren't swept yet, None when none will expire."""
        moments = (record.expires for record in list(self._by_token.values()))
        return min((moment for moment in moments if moment is not None), default=None)

    def store(
        self, username: str, token: str, expire_seconds: int | None, *, witness: Witness | None = None
    ) -> BearerTokenRecord:
        """Store a token, or renew the expiry of one that the same user has; on disk (fsync) when this returns.

        Args:
            username: whose token it is.
            token: an RFC 6750 `b64token`.
            expire_seconds: whole seconds from now until it dies; None for never, also where it had an expiry before.
            witness: is told of the change before it is committed, and may refuse it.

        Raises:
            TaskError: an argument breaks its rule (`models/fields.py`).
            TokenOwnerError: a live token of that value is another user's.
            TokenStoreError: the disk refused; nothing changed.
        """
        try:
            BearerTokenStoreInput(username=username, token=token, expire=expire_seconds)
        except ValidationError as error:
            raise TaskError("; ".join(sentences(error))) from None
        record, has_replaced_expired = self._run(self._store, username, token, expire_seconds, witness)
        if has_replaced_expired:
            self._tell_revoked([token])
        return record

    def _store(
        self, username: str, token: str, expire_seconds: int | None, witness: Witness | None
    ) -> tuple[BearerTokenRecord, bool]:
        # Microseconds are what the database keeps of a creation; the expiry shows the same fraction.
        now = round(self.now(), 6)
        old = self._by_token.get(token)
        live = old if old is not None and old.is_live(now) else None
        if live is not None and live.username != username:
            raise TokenOwnerError("token is stored for another user, nothing changed: delete it there first")
        created = now if live is None else live.created
        expires = None if expire_seconds is None else now + expire_seconds
        record = BearerTokenRecord(token, username, created, expires)
        change = Change("create" if live is None else "renew", (record,))
        self._database.put(record, before_commit=_told(witness, change))
        if old is not None and old.username == username:
            self._by_user[username] = tuple(record if each is old else each for each in self._by_user[username])
        else:
            self._forget([old] if old is not None else [])
            self._by_user[username] = (*self._by_user.get(username, ()), record)
        self._by_token[token] = record
        return record, old is not None and live is None

    def delete(self, *, username: str | None = None, token: str | None = None, witness: Witness | None = None) -> int:
        """Remove a token, a user's tokens, or a token if it is that user's, all in one transaction.

        `witness` is told of the live ones before the removal is committed, and may refuse it; it isn't asked when
        there are none.

        Returns:
            How many live tokens were removed; they are gone from disk (fsync) when this returns. 0 when neither
            argument is given.

        Raises:
            TokenStoreError: the disk refused; nothing changed.
        """
        removed, live = self._run(self._delete, username, token, witness)
        self._tell_revoked(removed)
        return live

    def _delete(self, username: str | None, token: str | None, witness: Witness | None) -> tuple[list[str], int]:
        if token is not None:
            found = self._by_token.get(token)
            records = [found] if found is not None and username in (None, found.username) else []
        else:
            records = list(self._by_user.get(username, ())) if username is not None else []
        if not records:
            return [], 0
        now = self.now()
        live = tuple(record for record in records if record.is_live(now))
        self._database.remove(
            (record.token for record in records),
            before_commit=_told(witness, Change("delete", live)) if live else None,
        )
        self._forget(records)
        return [record.token for record in records], len(live)

    def sweep(self) -> int:
        """Remove expired tokens from memory and disk, in transactions of bounded size; return how many.

        Other operations may come in between two transactions. Safe to repeat.

        Raises:
            TokenStoreError: the disk refused; what earlier transactions removed stays removed.
        """
        now = self.now()
        expired = [record for record in list(self._by_token.values()) if not record.is_live(now)]
        count = 0
        for start in range(0, len(expired), SWEEP_BATCH_TOKENS):
            removed = self._run(self._sweep, expired[start : start + SWEEP_BATCH_TOKENS])
            self._tell_revoked(removed)
            count += len(removed)
        return count

    def _sweep(self, records: list[BearerTokenRecord]) -> list[str]:
        unchanged = [record for record in records if self._by_token.get(record.token) is record]
        if unchanged:
            self._database.remove(record.token for record in unchanged)
            self._forget(unchanged)
        return [record.token for record in unchanged]

    def _forget(self, records: Iterable[BearerTokenRecord]) -> None:
        """Take records out of the index."""
        gone: dict[str, set[str]] = {}
        for record in records:
            del self._by_token[record.token]
            gone.setdefault(record.username, set()).add(record.token)
        for username, tokens in gone.items():
            kept = tuple(record for record in self._by_user[username] if record.token not in tokens)
            if kept:
                self._by_user[username] = kept
            else:
                del self._by_user[username]

    def _fill(self, loaded: LoadedTokens, directory: Path) -> None:
        by_user: dict[str, list[BearerTokenRecord]] = {}
        for record in loaded.records:
            self._by_token[record.token] = record
            records = by_user.setdefault(record.username, [])
            if records:
                record.username = records[0].username  # one string for all tokens of a user
            records.append(record)
        self._by_user = {username: tuple(records) for username, records in by_user.items()}
        self.pickled_rows, self.invalid_rows = loaded.pickled, loaded.invalid
        if loaded.pickled:
            log.warning(
                "%d rows of the token database in %s are pickled and were not read, since that could run anybody's "
                "code (NorFab workers write such rows): store these tokens again with fastmcp auth create-token",
                loaded.pickled,
                directory,
            )
        if loaded.invalid:
            log.warning(
                "%d rows of the token database in %s hold no valid token and were passed over: "
                "store these tokens again with fastmcp auth create-token",
                loaded.invalid,
                directory,
            )
        if foreign := foreign_databases(directory):
            log.warning(
                "%s holds a NorFab worker's database (%s and so on), which is not read: "
                "store its tokens again with fastmcp auth create-token",
                directory,
                foreign[0].relative_to(directory),
            )

    def _run(
        self, function: Callable[_Parameters, _Value], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Value:
        """Run a function in the store's own thread and wait for it."""
        try:
            if self._is_closed:
                raise TokenStoreError("token store is closed, nothing changed")
            future = self._executor.submit(function, *args, **kwargs)
        except RuntimeError:  # shut down between the two lines above
            raise TokenStoreError("token store is closed, nothing changed") from None
        return future.result()

    def _tell_revoked(self, tokens: Sequence[str]) -> None:
        if not tokens:
            return
        for tell in list(self.on_revoked):
            try:
                tell(tokens)
            except Exception as error:  # noqa: BLE001  the tokens are gone; a listener's fault can't change that
                log.error("a listener for revoked tokens failed: %s", type(error).__name__)


def _told(witness: Witness | None, change: Change) -> Callable[[], None] | None:
    return None if witness is None else partial(witness, change)
