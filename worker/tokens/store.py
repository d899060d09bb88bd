"""The token store of one worker: rules, an index in memory, and a durable copy on disk.

The worker is the only owner of the database, so the index is authoritative: a look-up never touches the disk. All disk
work runs in one thread that the store owns, one operation at a time; the index changes in that thread, and only after
the change is on disk. Records are never altered, only replaced, so other threads may read at any time.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ...models.environment.fleet_key import FleetKey
from ...models.errors import AuditError, TokenOwnerError, TokenStoreError
from ...models.tasks.auth import BearerTokenStoreInput
from ...models.tasks.token_sync import Merged, TokenMerge
from ...models.tokens import BearerTokenRecord
from .changes import BeforeCommit, ImportResult, ReplaceResult, TokenChange, bind_once
from .clock import MonotonicWallClock
from .database import LOCK_TIMEOUT_SECONDS
from .fallback.revocations import Revocation, Revocations, open_database
from .index import Position, TokenIndex
from .replication.hashing import TokenHasher
from .replication.plans import MergePlanner, find_differences, plan_import
from .replication.stamps import make_record
from .replication.states import TokenStates
from .replication.tombstones import Tombstones
from .startup_report import log_open_report
from .store_thread import StoreThread

log = logging.getLogger(__name__)

SWEEP_BATCH_TOKENS = 500
CLOSE_SWEEP_SECONDS = 1.0
SWEEP_AGAIN_SECONDS = 10.0  # after a background sweep that failed
_BACKGROUND_WAIT_SECONDS = 1.0

Records = Sequence[BearerTokenRecord]


class TokenStore:
    """Bearer tokens by token and by user.

    Any thread may call any method. Instants are epoch seconds (UTC). A token is live until the exact moment it expires;
    one that isn't live counts as absent everywhere. `now` reads the store's clock, which never goes back, never stands
    still (`clock`), and starts no earlier than the database's high-water mark: what was found expired stays expired.
    A method that changes something raises `TokenStoreError` if the disk refuses, pydantic's `ValidationError` for a
    record that breaks a rule; then nothing changed. Each takes a commit hook, None for a change that isn't audited.

    `on_revoked` holds functions called once for each change with all tokens that it removed, after their removal is
    durable and no look-up finds them, in the caller's thread and before its call returns; after a background sweep, in
    the store's own. They may block briefly, and must not change anything in the store. For `on_operation` see
    `StoreThread`.

    `revocations` completes deletions that the disk refused; until it has, every other change is refused. `pickled_rows`
    and `invalid_rows` are counts of rows skipped while opening. `run` runs a function in the store's own thread, the
    only one that uses the database, and waits for its result.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
        fleet_key: FleetKey | None = None,
        recovery: BeforeCommit | None = None,
    ) -> None:
        """Open the database in `directory` (created when missing), load its tokens and sweep the first expired ones.

        The caller makes sure that no other process has it open. An operation fails `lock_timeout_seconds` after the
        call if another process holds the database's lock nevertheless. `clock` and `ticks` are those of a
        `MonotonicWallClock`. Digests and tombstones are made with `fleet_key`; None: with one of this object's own.
        `recovery` is the commit hook for tokens that an earlier process revoked and could not remove.

        Raises:
            EnvironmentFolderError: the folder or a file in it is accessible to other users.
            TokenStoreError: its subclasses say whether the database is busy, read-only, full or damaged.
        """
        self._thread = thread = StoreThread(lock_timeout_seconds)
        self.run, self._change = thread.run, thread.change
        self._ticks = ticks
        self._lock_timeout_seconds = lock_timeout_seconds
        self._next_background_sweep = -math.inf
        self.on_revoked, self.on_operation = thread.on_revoked, thread.on_operation
        with ExitStack() as undo:
            undo.callback(thread.shutdown)
            self.database = thread.run_unchecked(open_database, directory, lock_timeout_seconds)
            undo.callback(thread.submit, self.database.close)
            thread.limit_wait = self.database.limit_wait
            loaded = self.run(self.database.load)
            log_open_report(loaded, directory, clock())
            self.now = MonotonicWallClock(clock, ticks, latest=loaded.latest or -math.inf).now
            self.hasher = TokenHasher(fleet_key or FleetKey(secrets.token_bytes(32)))
            self.tombstones = Tombstones(self.hasher, loaded.tombstones)
            self.revocations = Revocations(self.database, self.now, self.tombstones)
            records = self.run(self.revocations.resume, loaded.records, recovery)
            self.index = TokenIndex(records, self.hasher.record_hash)
            self.states = TokenStates(self.hasher, lambda: self.index.by_token, self.tombstones, self.now)
            self.pickled_rows, self.invalid_rows = loaded.pickled, loaded.invalid
            self._thread.notify_revoked(self.run(self._sweep, self.now()))  # hundreds of thousands are swept later
            undo.pop_all()

    def close(self) -> None:
        """Sweep for a second unless the database is locked, and close it. Safe to repeat.

        Look-ups find nothing afterwards, everything else raises `TokenStoreError`.
        """
        if self._thread.is_closed:
            return
        self._thread.is_closed = True
        removed = self._thread.run_unchecked(self._sweep_and_close)
        self._thread.shutdown()
        self.index = TokenIndex()
        self._thread.notify_revoked(removed)

    def _sweep_and_close(self) -> list[str]:
        removed: list[str] = []
        now, deadline = self.now(), time.monotonic() + CLOSE_SWEEP_SECONDS
        try:
            self.database.limit_wait(min(_BACKGROUND_WAIT_SECONDS, self._lock_timeout_seconds))
            self.revocations.settle()
            while time.monotonic() < deadline and (batch := self._sweep(now)):
                removed += batch
            self.database.save_high_water_mark(now)
        except (TokenStoreError, AuditError) as error:
            log.warning("expired tokens were not swept: %s", error)
        finally:
            self.database.close()
        return removed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lookup(self, token: str) -> BearerTokenRecord | None:
        """Return the record of a live token, else None; never waits for the disk and never raises."""
        record = self.index.by_token.get(token)
        if record is None or record.expires is None or self.now() < record.expires:
            return record
        self._schedule_sweep()
        return None

    def records(
        self, username: str | None = None, *, after: Position | None = None, limit: int | None = None
    ) -> list[BearerTokenRecord]:
        """Return the live tokens of all users or of one, by user name, creation and token (`TokenIndex.in_order`)."""
        return self.index.in_order(self.now(), username, after=after, limit=limit)

    def usernames(self) -> list[str]:
        """Return the names of users who have a live token, sorted."""
        index = self.index
        now = self.now()
        users = index.usernames()
        if now >= index.next_expiry:
            users = [user for user in users if any(record.is_live(now) for record in index.of_user(user))]
        return sorted(users)

    def __len__(self) -> int:
        """Return the number of live tokens."""
        index = self.index
        now = self.now()
        if now < index.next_expiry:
            return len(index)
        return sum(record.is_live(now) for record in index.records())

    def has_expired(self) -> bool:
        """Whether there are expired tokens or tombstones to sweep; takes constant time."""
        return self.now() >= min(self.index.next_expiry, self.tombstones.next_sweep)

    def digest(self) -> int:
        """Return the digest of the live tokens, users and expiries, comparable between stores with one fleet key."""
        return self.index.live_digest(self.now())

    def store(
        self, given: BearerTokenStoreInput, *, before_commit: BeforeCommit | None, issued: float | None = None
    ) -> BearerTokenRecord:
        """Store a token, or renew one that the same user has; on disk (fsync) when this returns.

        The lifetime is counted in seconds from now; None means no expiry, also where the token had one before. `issued`
        is when the client sent the job, by its clock: within ten seconds from now it takes the place of now, so that
        all workers store the same. `before_commit` may raise to refuse the change.

        Raises:
            TokenOwnerError: a live token of that value is another user's.
        """

        def store() -> tuple[BearerTokenRecord, list[str]]:
            now = self.now()
            old = self.index.by_token.get(given.token)
            live = old if old is not None and old.is_live(now) else None
            if live is not None and live.username != given.username:
                raise TokenOwnerError("token is stored for another user, nothing changed: delete it there first")
            deleted = self.tombstones.latest_for(given.token, given.username)
            record = make_record(given, now, live, issued=issued, deleted=deleted)
            change = TokenChange("create" if live is None else "renew", (record,))
            self._put((record,), now, bind_once(before_commit, change))
            return record, [] if old is None or live is not None else [given.token]

        return self._change(store)

    def delete(
        self, *, username: str | None = None, token: str | None = None, before_commit: BeforeCommit | None
    ) -> int:
        """Remove a token, a user's tokens, or a token if it is that user's, all in one transaction.

        `before_commit` gets the live ones and may raise to refuse the removal; it isn't called when there are none.

        Returns:
            How many live tokens were removed; they are gone from disk (fsync) when this returns, and tombstones keep
            older copies on other workers from coming back. 0 when neither argument is given.

        Raises:
            RevocationPendingError: they are revoked, and the disk refuses to remove them.
        """
        return self._change(self._delete, username, token, before_commit)

    def _delete(self, username: str | None, token: str | None, hook: BeforeCommit | None) -> tuple[int, list[str]]:
        if token is not None:
            found = self.index.by_token.get(token)
            records = [found] if found is not None and username in (None, found.username) else []
        else:
            records = self.index.of_user(username) if username is not None else []
        now = self.now()
        # A token and a user together say nothing about the same token of another user.
        named = {"token": token, "username": username} if None in {token, username} else {}
        tombstones = self.tombstones.plan(now, records=records, **named)
        live = tuple(record for record in records if record.is_live(now))
        deletion = Revocation(records, bind_once(hook, TokenChange("delete", live)) if live else None, tombstones)
        self.revocations.remove(deletion, lambda: self.index.remove(records), username=username, token=token)
        return len(live), deletion.tokens

    def replace(
        self,
        records: Iterable[BearerTokenRecord],
        *,
        before_commit: BeforeCommit | None,
        tombstones: Mapping[str, str] | None = None,
    ) -> ReplaceResult:
        """Replace all stored tokens by these, with their creation and expiry, in one transaction.

        Expired ones are skipped. `before_commit` gets the difference and may raise to refuse the change. Tokens that
        aren't among them, or change their user, are revoked. `tombstones`, rows of the backup, are added to those
        stored here; the tokens that are stored now have none.
        """
        return self._change(self._replace, list(records), before_commit, tombstones or {})

    def _replace(
        self, given: list[BearerTokenRecord], hook: BeforeCommit | None, tombstones: Mapping[str, str]
    ) -> tuple[ReplaceResult, list[str]]:
        now = self.now()
        old = self.index
        live = [record for record in given if record.is_live(now)]
        index = TokenIndex(live, self.hasher.record_hash)
        records = index.records()
        changed = self.tombstones.restored(tombstones, records, now)
        gone, added = find_differences(old.records(), records)
        removed = tuple(record for record in gone if record.is_live(now))
        self.revocations.settle()
        before_commit = bind_once(hook, TokenChange("restore", tuple(added), removed, count=len(records)))
        self.database.replace(records, now=now, before_commit=before_commit, tombstones=changed)
        self.index = index
        self.states.ranges.drop()
        self.tombstones.apply(changed)
        return ReplaceResult(len(records), len(removed), len(given) - len(live)), [record.token for record in gone]

    def import_tokens(self, records: Records, *, before_commit: BeforeCommit | None) -> ImportResult:
        """Add tokens that aren't stored here, with their creation and expiry, in one transaction.

        Those that have expired, were deleted here since they were created, or are stored already are skipped.
        `before_commit` gets the others and may raise to refuse the change; it isn't called when there are none.
        """
        return self._change(self._import_tokens, records, before_commit)

    def _import_tokens(self, given: Records, hook: BeforeCommit | None) -> tuple[ImportResult, list[str]]:
        now = self.now()
        plan = plan_import(given, self.index.by_token, self.tombstones, now)
        if plan.records:
            self._put(plan.records, now, bind_once(hook, TokenChange("import", plan.records)))
        return plan.result, plan.revoked

    def merge(self, changes: TokenMerge, *, before_commit: BeforeCommit | None) -> Merged:
        """Take over what other workers have, in one transaction; what changed here meanwhile or is newer is kept.

        `before_commit` gets the tokens that are deleted or stored, and may raise to refuse that.
        """
        return self._change(self._merge, changes, before_commit)

    def _merge(self, changes: TokenMerge, hook: BeforeCommit | None) -> tuple[Merged, list[str]]:
        now = self.now()
        plan = MergePlanner(self.states, self.index.by_token, self.tombstones, now).plan(changes)
        before_commit = bind_once(hook, TokenChange(plan.operation, tuple(plan.records))) if plan.records else None
        if plan.operation == "delete":
            self.revocations.settle()
            deletion = Revocation(plan.records, before_commit, self.tombstones.rows(plan.deletions))
            return plan.result(), self._remove(deletion, now)
        if plan.records:
            self._put(plan.records, now, before_commit)
        return plan.result(), plan.revoked

    def backup(self, path: Path) -> int:
        """Copy a consistent snapshot into a new file with mode 0600; return the number of live tokens.

        The copy has passed SQLite's integrity check and is on disk (fsync) when this returns; a failed one is removed.

        Raises:
            TaskError: the file exists already.
            TokenStoreError: its subclasses say what is wrong with the copy's disk, or with the database.
        """
        count = self.run(self._backup, path)
        self.database.finish_backup(path)  # in this thread: the store's own has revocations to do
        return count

    def _backup(self, path: Path) -> int:
        self.revocations.settle()  # a copy must not bring revoked tokens back
        self.database.backup(path)
        return len(self)

    def check(self) -> None:
        """Check the integrity of the database on disk; TokenStoreDamagedError if damaged, moved or replaced."""
        self.run(self.database.verify_files)
        self.database.check_integrity()

    def sweep(self) -> int:
        """Remove expired tokens from memory and disk, in transactions of bounded size; return how many.

        Other operations may run between two transactions. Safe to repeat.

        Raises:
            TokenStoreError: the disk refused; what earlier transactions removed stays removed.
        """
        now = self.now()
        count = 0
        while removed := self.run(self._sweep, now):
            self._thread.notify_revoked(removed)
            count += len(removed)
        return count

    def _sweep(self, now: float) -> list[str]:
        expired = self.index.expired(now, SWEEP_BATCH_TOKENS)
        # The older version of a token that was renewed may live longer elsewhere.
        tombstones = self.tombstones.rows_of_renewed(expired) if expired else self.tombstones.expired(now)
        removed = self._remove(Revocation(expired, None, tombstones), self.now())
        if not expired and now >= self.tombstones.next_sweep:
            self.tombstones.update_next_sweep()
        return removed

    def _schedule_sweep(self) -> None:
        """Schedule one background sweep, unless one is pending or failed less than `SWEEP_AGAIN_SECONDS` ago."""
        if self._ticks() >= self._next_background_sweep:
            self._next_background_sweep = math.inf
            self._thread.submit(self._background_sweep)

    def _background_sweep(self) -> None:
        try:
            self.database.limit_wait(min(_BACKGROUND_WAIT_SECONDS, self._lock_timeout_seconds))
            while removed := self._sweep(self.now()):
                self._thread.notify_revoked(removed)
                if len(removed) >= SWEEP_BATCH_TOKENS:
                    self._thread.submit(self._background_sweep)  # other operations may run between two transactions
                    return
            self._next_background_sweep = -math.inf
        except TokenStoreError as error:
            log.warning("expired tokens were not swept: %s", error)
            self._next_background_sweep = self._ticks() + SWEEP_AGAIN_SECONDS

    def _put(self, records: Sequence[BearerTokenRecord], now: float, before_commit: Callable[[], None] | None) -> None:
        """Write records to disk, without tombstones of their tokens, then to the index."""
        self.revocations.settle()
        tombstones = self.tombstones.without(records)
        self.database.put(*records, now=now, before_commit=before_commit, tombstones=tombstones)
        for record in records:
            self.index.put(record)
        self.states.ranges.add(record.token for record in records)
        self.tombstones.apply(tombstones)

    def _remove(self, change: Revocation, now: float) -> list[str]:
        """Remove records from disk, then from the index, and change tombstones; return their tokens."""
        tokens, tombstones = change.tokens, change.tombstones
        if tokens or tombstones:
            self.database.remove(tokens, now=now, before_commit=change.before_commit, tombstones=tombstones)
            self.index.remove(change.records)
            self.tombstones.apply(tombstones)
        return tokens
