"""The token database on disk: `diskcache.Cache`, opened durably and without unpickling.

diskcache is a cache: its defaults drop rows, unpickle values and trust the settings in the file. `TokenDatabase` turns
each of these off and converts every failure into one of the `TokenStore…Error` classes. Calls on one database come from
the thread that opened it, unless their docstring says otherwise. `rows.py` describes the rows.
"""

# diskcache has no type hints; its calls are all in this file.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import diskcache

from ...models.errors import TokenStoreDamagedError, TokenStoreError, TokenStoreFullError
from ...models.tokens import BearerTokenRecord
from .backup import finish_backup, start_backup
from .errors import DATABASE_ERRORS, damaged, store_error
from .files import DATABASE_NAME, DatabaseFiles, check_file, prepare_folder
from .replication.tombstones import NO_TOMBSTONES, RowChange
from .rows import KEY_PREFIX, LATEST_TIME_KEY, LoadedTokens, encode, read_rows

LOCK_TIMEOUT_SECONDS = 5.0

SETTINGS: dict[str, Any] = {
    "eviction_policy": "none",
    "cull_limit": 0,  # "none" alone still drops up to ten expired rows at each write
    "tag_index": 1,
    "statistics": 0,
}
PRAGMAS: dict[str, Any] = {
    "journal_mode": "wal",
    "synchronous": 2,  # NORMAL may lose the last commits at power loss: a revoked token would come back
    "mmap_size": 0,
    "cache_size": -2_000,  # KiB; diskcache's 32 MiB would stay filled after the one read of all rows
    "secure_delete": 1,
    "fullfsync": 1,  # macOS: a plain fsync leaves the data in the drive's own cache
}
_MILLISECONDS = 1000
_IS_TOKEN = f"raw = 1 AND substr(key, 1, {len(KEY_PREFIX)}) = '{KEY_PREFIX}'"

Row = tuple[str, str, str, float | None]


class NoPickleDisk(diskcache.Disk):
    """Store and fetch text only: unpickling a planted row would run its author's code."""

    def put(self, key: object) -> tuple[str, bool]:
        """Return the columns of a key; refuses a key that diskcache would pickle."""
        if type(key) is not str:
            raise TypeError("keys of the token database are text")
        return key, True

    def get(self, key: object, raw: object) -> str:
        """Return the key of a row; refuses one that diskcache would unpickle."""
        if not raw or type(key) is not str:
            raise TokenStoreDamagedError("a key in the token database is not text")
        return key

    def store(self, value: object, read: object, key: object = None) -> tuple[int, int, None, str]:  # noqa: ARG002
        """Return the columns of a value; refuses a value that diskcache would pickle or put into a file of its own."""
        if read or type(value) is not str:
            raise TypeError("values of the token database are text")
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: object) -> str:
        """Return the value of a row; refuses one that diskcache would unpickle or read from a file."""
        if mode != diskcache.core.MODE_RAW or filename or read or type(value) is not str:
            raise TokenStoreDamagedError("a value in the token database is not text")
        return value


class _LiteralPath(str):
    """A path in which diskcache replaces no variables: a folder may have `$` in its name."""

    __slots__ = ()

    def __str__(self) -> str:
        return self

    def __contains__(self, text: object) -> bool:
        """Whether the path contains `text`; never a `$`, which is what `os.path.expandvars` asks for first."""
        return text != "$" and isinstance(text, str) and super().__contains__(text)


class TokenCache(diskcache.Cache):
    """A cache with the statements that diskcache's own methods can't run durably, exactly or in one step."""

    def __init__(self, folder: Path, lock_timeout_seconds: float) -> None:
        settings = SETTINGS | {f"sqlite_{name}": value for name, value in PRAGMAS.items()}
        try:
            super().__init__(_LiteralPath(folder), timeout=lock_timeout_seconds, disk=NoPickleDisk, **settings)
        except BaseException:
            self.close()
            raise

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        connection: sqlite3.Connection = self._con
        return connection

    def pragma(self, text: str) -> tuple[Any, ...]:
        """Run a PRAGMA statement and return its first row."""
        row: tuple[Any, ...] = self._sql(f"PRAGMA {text}").fetchone()
        return row

    def settings_in_force(self) -> dict[str, Any]:
        """Return the settings as the connection and the file have them now."""
        found = {name: self.reset(name) for name in SETTINGS}
        return found | {name: self.pragma(name)[0] for name in PRAGMAS}

    def put(self, key: str, tag: str, value: str, expires: float | None) -> None:
        """Write one row."""
        self.set(key, value, tag=tag)
        # `set` computes the expiry from its own reading of the clock. The row count verifies that the row exists.
        statement = "UPDATE Cache SET expire_time = ? WHERE key = ? AND raw = 1"
        if self._sql(statement, (expires, key)).rowcount != 1:
            raise _rows_lost_error()

    def remove(self, keys: Iterable[str]) -> None:
        """Remove rows, expired ones as well."""
        gone = dict.fromkeys(keys)  # not a set: in random order SQLite would seek through the entire file
        if self._delete(gone) < len(gone):
            # A damaged index hides rows that the next start would load; rows that another process removed are gone.
            rows = self._sql("SELECT key FROM Cache NOT INDEXED WHERE raw = 1")
            if any(key in gone for (key,) in rows):
                raise sqlite3.DatabaseError("an index lacks a stored row")

    def _delete(self, keys: Iterable[str]) -> int:
        statement = "DELETE FROM Cache WHERE key = ? AND raw = 1"
        count: int = self._con.executemany(statement, ((key,) for key in keys)).rowcount
        return count

    def replace(self, rows: Iterable[Row]) -> None:
        """Replace all rows of tokens; `set` takes ten times as long for each."""
        self._sql(f"DELETE FROM Cache WHERE {_IS_TOKEN}")  # noqa: S608  a constant of this module
        written = self._insert(rows)
        kept = self._sql(f"SELECT count(*) FROM Cache WHERE {_IS_TOKEN}").fetchone()[0]  # noqa: S608  as above
        if kept != max(written, 0):
            raise _rows_lost_error()

    def _insert(self, rows: Iterable[Row]) -> int:
        now = time.time()
        count: int = self._con.executemany(
            "INSERT INTO Cache(key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, value) "
            f"VALUES(?1, 1, {now!r}, ?4, {now!r}, 0, ?2, 0, {diskcache.core.MODE_RAW}, ?3)",
            rows,
        ).rowcount
        return count

    def change_tombstones(self, change: RowChange) -> None:
        """Write and remove rows of tombstones."""
        self.remove(change.removed)
        self._delete(change.written)  # most are new: `remove` would look for each of them in the entire table
        self._insert((key, "", value, None) for key, value in change.written.items())

    def save_high_water_mark(self, latest: float) -> None:
        """Write the row with the high-water mark of the clock."""
        # Indexed columns are not updated: a row where they are wrong is deleted and written again.
        statement = f"""
            UPDATE Cache SET value = ?, mode = {diskcache.core.MODE_RAW}, filename = NULL
            WHERE key = '{LATEST_TIME_KEY}' AND raw = 1 AND tag = '' AND expire_time IS NULL
        """  # noqa: S608  only constants go in
        if not self._sql(statement, (repr(latest),)).rowcount:
            self.remove([LATEST_TIME_KEY])
            self.set(LATEST_TIME_KEY, repr(latest), tag="")

    def shrink(self) -> None:
        """Fold the write-ahead log into the database file and truncate it."""
        self.pragma("wal_checkpoint(TRUNCATE)")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold a transaction for the length of a `with` block; `transact` leaves it open when its COMMIT fails."""
        try:
            with self.transact(retry=False):
                yield
        except diskcache.Timeout as error:
            # Whatever made BEGIN fail, a lock or another error.
            raise error.__context__ or error from None
        finally:
            if self._con.in_transaction:
                self._con.rollback()


def _rows_lost_error() -> TokenStoreDamagedError:
    return TokenStoreDamagedError("the token database doesn't keep rows that are written to it")


class _HookError(Exception):
    """Carries an exception of a commit hook past the conversion of database errors."""


class TokenDatabase:
    """The rows of one token database; when a method raises `TokenStoreError` or a subclass, nothing changed.

    `now`, epoch seconds, is saved with each write as the database's high-water mark; `tombstones` are changed in the
    same transaction. `before_commit` is called once, when a write's rows are written and not yet committed; an
    exception that it raises rolls the write back and propagates unchanged.
    """

    def __init__(self, folder: Path, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS) -> None:
        """Open the database in `folder`, creating both when they don't exist.

        The caller holds the worker's lock: two owners would not see each other's tokens.

        Raises:
            EnvironmentFolderError: the folder is accessible to other users or isn't this user's.
            TokenStoreBusyError: another process held the database for `lock_timeout_seconds`.
            TokenStoreError: its subclasses say whether it is read-only, full or damaged.
        """
        self.folder = folder
        self.file = folder / DATABASE_NAME
        self._wait_ms = round(lock_timeout_seconds * _MILLISECONDS)
        with self._converting_errors(), ExitStack() as undo:
            prepare_folder(folder)
            check_file(self.file, lock_timeout_seconds)
            self.cache = TokenCache(folder, lock_timeout_seconds)
            undo.callback(self.cache.close)
            self._files = DatabaseFiles(folder)
            self._assert_settings()
            undo.pop_all()

    @contextmanager
    def _converting_errors(self) -> Iterator[None]:
        try:
            yield
        except DATABASE_ERRORS as error:
            raise store_error(error, self.file) from error

    def _assert_settings(self) -> None:
        found = self.cache.settings_in_force()
        for name, value in (SETTINGS | PRAGMAS).items():
            if found[name] != value:
                raise TokenStoreError(
                    f"the token database in {self.folder} can't be used safely: {name} is {found[name]}, {value} is "
                    "required; keep it on a local disk"
                )

    def limit_wait(self, seconds: float) -> None:
        """Set how long subsequent operations wait for a lock, rounded up to a tenth of a second."""
        wait_ms = math.ceil(max(seconds, 0.0) * 10) * 100
        if wait_ms != self._wait_ms:
            with self._converting_errors():
                self.cache.pragma(f"busy_timeout = {wait_ms}")
            self._wait_ms = wait_ms

    def load(self) -> LoadedTokens:
        """Read every token; rows that are pickled or break a rule are counted, never decoded."""
        with self._converting_errors():
            return read_rows(self.cache.connection)

    def put(
        self,
        *records: BearerTokenRecord,
        now: float,
        before_commit: Callable[[], None] | None,
        tombstones: RowChange = NO_TOMBSTONES,
    ) -> None:
        """Write tokens, all or none, replacing older rows of the same tokens; on disk (fsync) when this returns."""

        def write() -> None:
            for record in records:
                self.cache.put(*encode(record))

        self._write(write, now, before_commit, tombstones)

    def remove(
        self,
        tokens: Iterable[str],
        *,
        now: float,
        before_commit: Callable[[], None] | None,
        tombstones: RowChange = NO_TOMBSTONES,
    ) -> None:
        """Remove tokens, all or none; gone from disk (fsync) when this returns."""
        keys = [KEY_PREFIX + token for token in tokens]
        self._write(partial(self.cache.remove, keys), now, before_commit, tombstones)

    def replace(
        self,
        records: list[BearerTokenRecord],
        *,
        now: float,
        before_commit: Callable[[], None] | None,
        tombstones: RowChange = NO_TOMBSTONES,
    ) -> None:
        """Replace all tokens by these, in one transaction; on disk (fsync) when this returns."""
        self._write(lambda: self.cache.replace(map(encode, records)), now, before_commit, tombstones)
        with suppress(sqlite3.Error):  # else the write-ahead log keeps its peak size
            self.cache.shrink()
        self._files.record_log_size()

    def save_high_water_mark(self, now: float) -> None:
        """Save the high-water mark of the clock, and change nothing else."""
        self._write(lambda: None, now, None)

    def _write(
        self,
        write: Callable[[], None],
        now: float,
        before_commit: Callable[[], None] | None,
        tombstones: RowChange = NO_TOMBSTONES,
    ) -> None:
        def in_a_transaction() -> None:
            nonlocal before_commit
            with self._converting_errors(), self.cache.writing():
                write()
                if tombstones:
                    self.cache.change_tombstones(tombstones)
                self.cache.save_high_water_mark(now)
                if before_commit is not None:
                    hook = before_commit
                    before_commit = None  # a second attempt doesn't call it again
                    try:
                        hook()
                    except BaseException as error:
                        raise _HookError(error) from error

        self.verify_files()
        try:
            self._retry_when_full(in_a_transaction)
        except _HookError as carried:
            refusal: BaseException = carried.args[0]
        else:
            self._files.record_log_size()
            return
        raise refusal

    def _verify_log(self) -> None:
        """Check that a truncated write-ahead log lost nothing: the database file has it all, or it can be folded in."""
        if not self._files.is_log_truncated():
            return
        try:
            is_busy, length, folded = self.cache.pragma("wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            is_busy, length, folded = 1, 0, 0
        if is_busy or length != folded:
            raise TokenStoreDamagedError(
                f"the write-ahead log of the token database in {self.folder} was truncated by another "
                "program, nothing changed: save the output of list-tokens, restart the worker and compare"
            )

    def _retry_when_full(self, write: Callable[[], None]) -> None:
        try:
            write()
        except TokenStoreFullError:
            # Folding in the write-ahead log frees megabytes: a full disk must not keep a token from being revoked.
            with self._converting_errors():
                self.cache.shrink()
                self._files.record_log_size()
            write()

    def backup(self, path: Path) -> None:
        """Copy the database into a new private file: see `backup.start_backup`."""
        with self._converting_errors():
            self._verify_log()
        start_backup(self.cache.connection, self.file, path, self._wait_ms / _MILLISECONDS)

    def finish_backup(self, path: Path) -> None:
        """Complete a copy, in any thread: see `backup.finish_backup`."""
        finish_backup(self.file, path)

    def verify_files(self) -> None:
        """Check that the files are in place.

        Raises:
            TokenStoreDamagedError: the database was moved or replaced, or its log truncated.
        """
        with self._converting_errors():
            self._files.check()
            self._verify_log()

    def check_integrity(self) -> None:
        """Check the integrity of the database on disk; in any thread: it has a connection of its own.

        Raises:
            TokenStoreDamagedError: it is damaged.
        """
        uri, seconds = f"{self.file.absolute().as_uri()}?mode=ro", self._wait_ms / _MILLISECONDS
        with self._converting_errors(), closing(sqlite3.connect(uri, uri=True, timeout=seconds)) as connection:
            if connection.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                raise damaged(self.file)

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it. Safe to repeat."""
        self.cache.close()
