"""The bearer tokens of one worker: their rules, an exact index in memory, and a durable copy on disk.

The worker is the only owner of the database, so the index tells the whole truth: a look-up never touches the disk. All
disk work runs in one thread that the store owns, one operation at a time; the index changes in that thread, and only
after the disk has the change. Records are never altered, only replaced, so other threads may read at any time.

Nothing here knows of MCP or ZeroMQ.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from pydantic import ValidationError

from ...models.errors import TaskError, TokenOwnerError, TokenStoreError, validation_messages
from ...models.tasks.auth import BearerTokenStoreInput
from ...models.tokens import BearerTokenRecord
from . import bulk as batches
from .changes import BeforeCommit, ImportResult, ReplaceResult, TokenChange, bind_hook
from .clock import MonotonicWallClock
from .database import LOCK_TIMEOUT_SECONDS, TokenDatabase
from .index import TokenIndex
from .rows import LoadedTokens
from .startup_report import log_open_report

__all__ = ["SWEEP_AGAIN_SECONDS", "SWEEP_BATCH_TOKENS", "BeforeCommit", "ReplaceResult", "TokenChange", "TokenStore"]

log = logging.getLogger(__name__)

SWEEP_BATCH_TOKENS = 500
SWEEP_AGAIN_SECONDS = 10.0
"""How long the disk is left alone after a sweep that nobody asked for has failed."""

_UNASKED_WAIT_SECONDS = 1.0

_Parameters = ParamSpec("_Parameters")
_Value = TypeVar("_Value")


class TokenStore:
    """Bearer tokens by token and by user; open it with `TokenStore.open`.

    Any thread may call any method. Instants are epoch seconds (UTC). A token is live until the very moment it expires;
    one that isn't live counts as absent everywhere. Time never goes back here and never stands still (`clock`), nor
    does it begin earlier than the latest time that the database has seen: what was found expired stays expired.

    `on_revoked` holds functions called once for each change with all tokens that it removed, after their removal is
    durable and no look-up finds them, in the thread that asked and before its call returns; after a sweep that nobody
    asked for, in the store's own. They may block briefly, and change nothing in the store.

    `pickled_rows` and `invalid_rows` count the rows that opening passed over.
    """

    def __init__(
        self,
        database: TokenDatabase,
        executor: ThreadPoolExecutor,
        loaded: LoadedTokens,
        clock: MonotonicWallClock,
        *,
        ticks: Callable[[], float],
        lock_timeout_seconds: float,
    ) -> None:
        self._database = database
        self._executor = executor
        self._now = clock.now
        self._ticks = ticks
        self._lock_timeout_seconds = lock_timeout_seconds
        self._is_closed = False
        self._index = TokenIndex(loaded.records)
        self._next_own_sweep = -math.inf
        self.pickled_rows = loaded.pickled
        self.invalid_rows = loaded.invalid
        self.on_revoked: list[Callable[[Sequence[str]], None]] = []

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
    ) -> TokenStore:
        """Open the database in `directory` (made when missing), load its tokens and sweep the expired ones.

        The caller makes sure that no other process has it open. An operation gives up `lock_timeout_seconds` after it
        was asked for if somebody holds the database's lock nevertheless. `clock` and `ticks` are those of a
        `MonotonicWallClock`.

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
            loaded = executor.submit(database.load).result()
            log_open_report(loaded, directory, clock())
            steady = MonotonicWallClock(clock, ticks, latest=-math.inf if loaded.latest is None else loaded.latest)
            store = cls(database, executor, loaded, steady, ticks=ticks, lock_timeout_seconds=lock_timeout_seconds)
            store.sweep()
        except BaseException:
            if database is not None:
                executor.submit(database.close)
            executor.shutdown()
            raise
        return store

    def close(self) -> None:
        """Sweep if that can be done at once, and close the database. Safe to repeat.

        Look-ups find nothing afterwards, all else raises `TokenStoreError`.
        """
        if self._is_closed:
            return
        self._is_closed = True
        removed = self._executor.submit(self._finish).result()
        self._executor.shutdown()
        self._index = TokenIndex()
        self._tell_revoked(removed)

    def _finish(self) -> list[str]:
        removed: list[str] = []
        now = self.now()
        try:
            self._database.limit_wait(min(_UNASKED_WAIT_SECONDS, self._lock_timeout_seconds))
            while batch := self._sweep(now):
                removed += batch
            self._database.save_high_water_mark(now)
        except TokenStoreError as error:
            log.warning("expired tokens were not swept: %s", error)
        finally:
            self._database.close()
        return removed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def now(self) -> float:
        """Return what time it is for the store: never earlier than at any call before."""
        return self._now()

    def lookup(self, token: str) -> BearerTokenRecord | None:
        """Return the record of a live token, else None; never touches the disk or waits for it, never raises."""
        record = self._index.by_token.get(token)
        if record is None or record.expires is None or self._now() < record.expires:
            return record
        self._sweep_soon()
        return None

    def records(self, username: str | None = None) -> list[BearerTokenRecord]:
        """Return the live tokens, or those of one user, by user name and then by creation."""
        index = self._index
        users = sorted(index.usernames()) if username is None else [username]
        now = self.now()
        return [
            record
            for user in users
            for record in sorted(index.of_user(user), key=attrgetter("created"))
            if record.expires is None or now < record.expires
        ]

    def usernames(self) -> list[str]:
        """Return the names of the users that have a live token, sorted."""
        index, now = self._index, self.now()
        users = index.usernames()
        if now >= index.next_expiry:
            users = [user for user in users if any(record.is_live(now) for record in index.of_user(user))]
        return sorted(users)

    def __len__(self) -> int:
        """Return the number of live tokens."""
        index, now = self._index, self.now()
        if now < index.next_expiry:
            return len(index)
        return sum(record.is_live(now) for record in index.records())

    def has_expired(self) -> bool:
        """Whether there is something to sweep; takes no time."""
        return self.now() >= self._index.next_expiry

    def store(
        self, username: str, token: str, expire_seconds: int | None, *, before_commit: BeforeCommit | None = None
    ) -> BearerTokenRecord:
        """Store a token, or renew the expiry of one that the same user has; on disk (fsync) when this returns.

        Args:
            username: whose token it is.
            token: an RFC 6750 `b64token`.
            expire_seconds: whole seconds from now until it dies; None for never, also where it had an expiry before.
            before_commit: is told of the change before it is committed, and may refuse it.

        Raises:
            TaskError: an argument breaks its rule (`models/fields.py`).
            TokenOwnerError: a live token of that value is another user's.
            TokenStoreError: the disk refused; nothing changed.
        """
        try:
            BearerTokenStoreInput(username=username, token=token, expire=expire_seconds)
        except ValidationError as error:
            raise TaskError("; ".join(validation_messages(error))) from None
        record, has_replaced_expired = self._run(self._store, username, token, expire_seconds, before_commit)
        if has_replaced_expired:
            self._tell_revoked([token])
        return record

    def _store(
        self, username: str, token: str, expire_seconds: int | None, before_commit: BeforeCommit | None
    ) -> tuple[BearerTokenRecord, bool]:
        # Microseconds are what the database keeps of a creation; the expiry shows the same fraction.
        now = round(self.now(), 6)
        old = self._index.by_token.get(token)
        live = old if old is not None and old.is_live(now) else None
        if live is not None and live.username != username:
            raise TokenOwnerError("token is stored for another user, nothing changed: delete it there first")
        created = now if live is None else live.created
        expires = None if expire_seconds is None else now + expire_seconds
        record = BearerTokenRecord(token, username, created, expires)
        change = TokenChange("create" if live is None else "renew", (record,))
        self._database.put(record, now=self.now(), before_commit=bind_hook(before_commit, change))
        self._index.put(record)
        return record, old is not None and live is None

    def delete(
        self, *, username: str | None = None, token: str | None = None, before_commit: BeforeCommit | None = None
    ) -> int:
        """Remove a token, a user's tokens, or a token if it is that user's, all in one transaction.

        `witness` is told of the live ones before the removal is committed, and may refuse it; it isn't asked when
        there are none.

        Returns:
            How many live tokens were removed; they are gone from disk (fsync) when this returns. 0 when neither
            argument is given.

        Raises:
            TokenStoreError: the disk refused; nothing changed.
        """
        removed, live = self._run(self._delete, username, token, before_commit)
        self._tell_revoked(removed)
        return live

    def _delete(
        self, username: str | None, token: str | None, before_commit: BeforeCommit | None
    ) -> tuple[list[str], int]:
        if token is not None:
            found = self._index.by_token.get(token)
            records = [found] if found is not None and username in (None, found.username) else []
        else:
            records = self._index.of_user(username) if username is not None else []
        if not records:
            return [], 0
        now = self.now()
        live = tuple(record for record in records if record.is_live(now))
        hook = bind_hook(before_commit, TokenChange("delete", live)) if live else None
        return self._remove(records, now, hook), len(live)

    def replace(
        self, records: Iterable[BearerTokenRecord], *, before_commit: BeforeCommit | None = None
    ) -> ReplaceResult:
        """Put tokens in the place of all that are stored, with their creation and expiry, in one transaction.

        The tokens come from `read_backup`, or obey the same rules. Those that have expired are passed over. `witness`
        is told of the others before they are committed, and may refuse. Tokens that aren't among them, or are another
        user's now, are revoked.

        Raises:
            TokenStoreError: the disk refused; nothing changed.
        """
        replaced, revoked = self._run(self._replace, list(records), before_commit)
        self._tell_revoked(revoked)
        return replaced

    def _replace(
        self, given: list[BearerTokenRecord], before_commit: BeforeCommit | None
    ) -> tuple[ReplaceResult, list[str]]:
        self._index, replaced, revoked = batches.replace(self._database, self._index, given, self.now(), before_commit)
        return replaced, revoked

    def import_tokens(
        self, records: Sequence[BearerTokenRecord], *, before_commit: BeforeCommit | None = None
    ) -> ImportResult:
        """Store tokens that nobody has here, with their creation and expiry, in one transaction.

        They obey the rules of `models/fields.py`. Those that have expired or are stored are passed over. `witness` is
        told of the others before they are committed, and may refuse; it isn't asked when there are none.

        Raises:
            TokenStoreError: the disk refused; nothing changed.
        """
        adopted, revoked = self._run(
            lambda: batches.import_tokens(self._database, self._index, records, self.now(), before_commit)
        )
        self._tell_revoked(revoked)
        return adopted

    def backup(self, path: Path) -> int:
        """Copy the database, as it is at one moment, into a new file with mode 0600; return the number of live tokens.

        The copy is checked, and on disk (fsync), when this returns; of one that fails nothing is left.

        Raises:
            TaskError: there is a file of that name.
            TokenStoreError: its subclasses say what is wrong with the copy's disk, or with the database.
        """
        return self._run(self._backup, path)

    def _backup(self, path: Path) -> int:
        self._database.backup(path)
        return len(self)

    def check(self) -> None:
        """See that the database on disk is whole.

        Raises:
            TokenStoreDamagedError: it isn't.
        """
        self._run(self._database.check)

    def sweep(self) -> int:
        """Remove expired tokens from memory and disk, in transactions of bounded size; return how many.

        Other operations may come in between two transactions. Safe to repeat.

        Raises:
            TokenStoreError: the disk refused; what earlier transactions removed stays removed.
        """
        now = self.now()
        count = 0
        while removed := self._run(self._sweep, now):
            self._tell_revoked(removed)
            count += len(removed)
        return count

    def _sweep(self, now: float) -> list[str]:
        return self._remove(self._index.expired(now, SWEEP_BATCH_TOKENS), self.now())

    def _sweep_soon(self) -> None:
        """Have the store's thread sweep: once for all look-ups that ask before it has, and not soon after a failure."""
        if self._ticks() >= self._next_own_sweep:
            self._next_own_sweep = math.inf
            with suppress(RuntimeError):  # the store is closed
                self._executor.submit(self._sweep_unasked)

    def _sweep_unasked(self) -> None:
        now = self.now()
        next_one = -math.inf
        try:
            self._database.limit_wait(min(_UNASKED_WAIT_SECONDS, self._lock_timeout_seconds))
            while removed := self._sweep(now):
                self._tell_revoked(removed)
        except TokenStoreError as error:
            log.warning("expired tokens were not swept: %s", error)
            next_one = self._ticks() + SWEEP_AGAIN_SECONDS
        self._next_own_sweep = next_one

    def _remove(
        self, records: Sequence[BearerTokenRecord], now: float, before_commit: Callable[[], None] | None = None
    ) -> list[str]:
        """Take records off the disk and then out of the index; return their tokens."""
        tokens = [record.token for record in records]
        if tokens:
            self._database.remove(tokens, now=now, before_commit=before_commit)
            self._index.remove(records)
        return tokens

    def _run(
        self, function: Callable[_Parameters, _Value], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Value:
        """Run a function in the store's own thread and wait for it."""
        asked = time.monotonic()

        def run() -> _Value:
            # What comes before may have waited for a lock as well: all of them together must not wait longer than one.
            self._database.limit_wait(self._lock_timeout_seconds - (time.monotonic() - asked))
            return function(*args, **kwargs)

        try:
            if self._is_closed:
                raise TokenStoreError("token store is closed, nothing changed")
            future = self._executor.submit(run)
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
