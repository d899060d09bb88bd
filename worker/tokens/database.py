"""The token database on disk: `diskcache.Cache`, opened so that what was written stays written and nothing runs.

diskcache is made to be a cache; its defaults drop rows, unpickle what they find and trust the settings in the file.
`TokenDatabase` turns each of these off and turns every failure into one of the `TokenStore…Error` classes. All calls
on one database come from the thread that opened it. `token_rows` says what the rows are.
"""

# diskcache has no type hints; its calls are all in this file.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import diskcache

from ...models.errors import TokenStoreDamagedError, TokenStoreError, TokenStoreFullError
from ...models.tokens import BearerTokenRecord
from .backup import read_backup, write_backup
from .errors import convert_errors, damaged
from .files import DATABASE_NAME, DatabaseFiles, check_file, prepare_folder
from .rows import KEY_PREFIX, LATEST_TIME_KEY, LoadedTokens, columns, read_rows

__all__ = ["KEY_PREFIX", "LOCK_TIMEOUT_SECONDS", "LoadedTokens", "NoPickleDisk", "TokenDatabase", "read_backup"]

LOCK_TIMEOUT_SECONDS = 5.0

_SETTINGS: dict[str, Any] = {
    "eviction_policy": "none",
    "cull_limit": 0,  # "none" alone still drops up to ten expired rows at each write
    "tag_index": 1,
    "statistics": 0,
}
_PRAGMAS: dict[str, Any] = {
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
    """Keys and values are text, in both directions: unpickling a planted row would run its author's code."""

    def put(self, key: object) -> tuple[str, bool]:
        """Return the columns of a key; refuses what diskcache would pickle."""
        if type(key) is not str:
            raise TypeError("keys of the token database are text")
        return key, True

    def get(self, key: object, raw: object) -> str:
        """Return the key of a row; refuses one that diskcache would unpickle."""
        if not raw or type(key) is not str:
            raise TokenStoreDamagedError("a key in the token database is not text")
        return key

    def store(self, value: object, read: object, key: object = None) -> tuple[int, int, None, str]:  # noqa: ARG002
        """Return the columns of a value; refuses what diskcache would pickle or put into a file of its own."""
        if read or type(value) is not str:
            raise TypeError("values of the token database are text")
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: object) -> str:
        """Return the value of a row; refuses one that diskcache would unpickle or read from a file."""
        if mode != diskcache.core.MODE_RAW or filename or read or type(value) is not str:
            raise TokenStoreDamagedError("a value in the token database is not text")
        return value


class _Cache(diskcache.Cache):
    """The cache, with the few statements that its methods can't do durably, exactly or at once."""

    def __init__(self, folder: Path, lock_timeout_seconds: float) -> None:
        settings = _SETTINGS | {f"sqlite_{name}": value for name, value in _PRAGMAS.items()}
        try:
            super().__init__(str(folder), timeout=lock_timeout_seconds, disk=NoPickleDisk, **settings)
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
        found = {name: self.reset(name) for name in _SETTINGS}
        return found | {name: self.pragma(name)[0] for name in _PRAGMAS}

    def put(self, key: str, tag: str, value: str, expires: float | None) -> None:
        """Write one row."""
        self.set(key, value, tag=tag)
        # `set` counts the lifetime from its own look at the clock. That the row is there is seen as well.
        statement = "UPDATE Cache SET expire_time = ? WHERE key = ? AND raw = 1"
        if self._sql(statement, (expires, key)).rowcount != 1:
            raise _rows_are_lost()

    def remove(self, keys: Iterable[str]) -> None:
        """Remove rows, expired ones as well."""
        gone = dict.fromkeys(keys)  # not a set: in any other order SQLite would jump through the whole file
        found = self._con.executemany("DELETE FROM Cache WHERE key = ? AND raw = 1", ((key,) for key in gone)).rowcount
        if found < len(gone):
            # A damaged index hides rows that a start would find; those that somebody else has removed are gone.
            rows = self._sql("SELECT key FROM Cache NOT INDEXED WHERE raw = 1")
            if any(key in gone for (key,) in rows):
                raise sqlite3.DatabaseError("an index doesn't lead to a row that is there")

    def replace(self, rows: Iterable[Row]) -> None:
        """Remove all rows of tokens and write others; `set` takes ten times as long for each."""
        self._sql(f"DELETE FROM Cache WHERE {_IS_TOKEN}")  # noqa: S608  a constant of this module
        now = time.time()
        written = self._con.executemany(
            "INSERT INTO Cache(key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, value) "
            f"VALUES(?1, 1, {now!r}, ?4, {now!r}, 0, ?2, 0, {diskcache.core.MODE_RAW}, ?3)",
            rows,
        ).rowcount
        kept = self._sql(f"SELECT count(*) FROM Cache WHERE {_IS_TOKEN}").fetchone()[0]  # noqa: S608  as above
        if kept != max(written, 0):
            raise _rows_are_lost()

    def save_high_water_mark(self, latest: float) -> None:
        """Write the row that says how late it is."""
        # Columns that have an index are left alone: a row where they are wrong is written anew.
        statement = f"""
            UPDATE Cache SET value = ?, mode = {diskcache.core.MODE_RAW}, filename = NULL
            WHERE key = '{LATEST_TIME_KEY}' AND raw = 1 AND tag = '' AND expire_time IS NULL
        """  # noqa: S608  only constants go in
        if not self._sql(statement, (repr(latest),)).rowcount:
            self.remove([LATEST_TIME_KEY])
            self.set(LATEST_TIME_KEY, repr(latest), tag="")

    def shrink(self) -> None:
        """Fold the write-ahead log into the database file and give its room back."""
        self.pragma("wal_checkpoint(TRUNCATE)")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold a transaction, and none when it is over: `transact` leaves it open when its COMMIT fails."""
        try:
            with self.transact(retry=False):
                yield
        except diskcache.Timeout as error:
            # Whatever stopped the BEGIN, a lock or something else.
            raise error.__context__ or error from None
        finally:
            if self._con.in_transaction:
                self._con.rollback()


def _rows_are_lost() -> TokenStoreDamagedError:
    return TokenStoreDamagedError("the token database doesn't keep rows that are written to it")


class _HookError(Exception):
    """Carries what `before_commit` raised past those who translate errors of the database."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class _RunOnce:
    """Calls a function the first time it is called itself, and never again."""

    def __init__(self, function: Callable[[], None] | None) -> None:
        self._function = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            try:
                function()
            except BaseException as error:  # carried to the caller, whatever it is
                raise _HookError(error) from error


class TokenDatabase:
    """The rows of one token database; every method raises `TokenStoreError` or a subclass, and then nothing changed.

    `now`, epoch seconds, is kept with each write as the latest time that the database has seen. `before_commit` is
    called once, when a write's rows are written and not yet committed; what it raises undoes the write and is raised
    as it is.
    """

    def __init__(self, folder: Path, cache: _Cache, lock_timeout_seconds: float) -> None:
        self._folder = folder
        self._file = folder / DATABASE_NAME
        self._cache = cache
        self._wait_ms = round(lock_timeout_seconds * _MILLISECONDS)
        self._files = DatabaseFiles(folder)

    @classmethod
    def open(cls, folder: Path, *, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS) -> TokenDatabase:
        """Open the database in `folder`, making both when they don't exist.

        The caller owns the folder (a lock of its own): two owners would not see each other's tokens.

        Raises:
            EnvironmentFolderError: the folder is open to others or isn't this user's.
            TokenStoreBusyError: another process held the database for `lock_timeout_seconds`.
            TokenStoreError: its subclasses say whether it is read-only, full or damaged.
        """
        file = folder / DATABASE_NAME
        with convert_errors(file):
            prepare_folder(folder)
            check_file(file, lock_timeout_seconds)
            cache = _Cache(folder, lock_timeout_seconds)
        try:
            with convert_errors(file):
                database = cls(folder, cache, lock_timeout_seconds)
                database._assert_settings()
        except BaseException:
            cache.close()
            raise
        return database

    def _assert_settings(self) -> None:
        found = self._cache.settings_in_force()
        for name, value in (_SETTINGS | _PRAGMAS).items():
            if found[name] != value:
                raise TokenStoreError(
                    f"the token database in {self._folder} can't be used safely: {name} is {found[name]} where {value} "
                    "is needed; keep it on a local disk"
                )

    def limit_wait(self, seconds: float) -> None:
        """Set how long the operations that follow wait for a lock, to a tenth of a second."""
        wait_ms = math.ceil(max(seconds, 0.0) * 10) * 100
        if wait_ms != self._wait_ms:
            with convert_errors(self._file):
                self._cache.pragma(f"busy_timeout = {wait_ms}")
            self._wait_ms = wait_ms

    def load(self) -> LoadedTokens:
        """Read every token; rows that are pickled or break a rule are counted, never read further."""
        with convert_errors(self._file):
            return read_rows(self._cache.connection)

    def put(self, *records: BearerTokenRecord, now: float, before_commit: Callable[[], None] | None = None) -> None:
        """Write tokens, all or none, in place of older rows of the same tokens; on disk (fsync) when this returns."""

        def write() -> None:
            for record in records:
                self._cache.put(*columns(record))

        self._write(write, now, before_commit)

    def remove(self, tokens: Iterable[str], *, now: float, before_commit: Callable[[], None] | None = None) -> None:
        """Remove tokens, all or none; gone from disk (fsync) when this returns."""
        keys = [KEY_PREFIX + token for token in tokens]
        self._write(partial(self._cache.remove, keys), now, before_commit)

    def replace(
        self, records: list[BearerTokenRecord], *, now: float, before_commit: Callable[[], None] | None = None
    ) -> None:
        """Put these tokens in the place of all there are, in one transaction; on disk (fsync) when this returns."""
        self._write(lambda: self._cache.replace(map(columns, records)), now, before_commit)
        with suppress(sqlite3.Error):  # else the write-ahead log keeps the size that this took
            self._cache.shrink()
        self._files.record_log_size()

    def save_high_water_mark(self, now: float) -> None:
        """Keep the latest time, and change nothing else."""
        self._write(lambda: None, now, None)

    def _write(self, write: Callable[[], None], now: float, before_commit: Callable[[], None] | None) -> None:
        once = _RunOnce(before_commit)

        def in_a_transaction() -> None:
            with convert_errors(self._file), self._cache.writing():
                write()
                self._cache.save_high_water_mark(now)
                once()

        self._verify_files()
        try:
            self._do_or_make_room(in_a_transaction)
        except _HookError as carried:
            refused = carried.error
        else:
            self._files.record_log_size()
            return
        raise refused

    def _verify_files(self) -> None:
        with convert_errors(self._file):
            self._files.check()
            self._verify_log()

    def _verify_log(self) -> None:
        """See that all of a write-ahead log that got shorter is in the database file, or can be put there."""
        if not self._files.is_log_truncated():
            return
        try:
            is_busy, length, folded = self._cache.pragma("wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            is_busy, length, folded = 1, 0, 0
        if is_busy or length != folded:
            raise TokenStoreDamagedError(
                f"the write-ahead log of the token database in {self._folder} was cut off, nothing changed: "
                "keep a list of the tokens, restart the worker, and see which changes are lost"
            )

    def _do_or_make_room(self, write: Callable[[], None]) -> None:
        try:
            write()
        except TokenStoreFullError:
            # The write-ahead log holds megabytes that folding it in gives back. A token must not outlive its
            # revocation because a disk is full.
            with convert_errors(self._file):
                self._cache.shrink()
                self._files.record_log_size()
            write()

    def backup(self, path: Path) -> None:
        """Copy the database into a new private file: see `token_backup.write_backup`."""
        with convert_errors(self._file):
            self._verify_log()
        write_backup(self._cache.connection, self._file, path, self._wait_ms / _MILLISECONDS)

    def check(self) -> None:
        """See that the file is where it was and whole, as it is on disk.

        Raises:
            TokenStoreDamagedError: it isn't.
        """
        self._verify_files()
        with convert_errors(self._file):
            self._cache.pragma("shrink_memory")  # what is in memory may be better than what is on disk
            if self._cache.pragma("integrity_check(1)")[0] != "ok":
                raise damaged(self._file)

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it. Safe to repeat."""
        self._cache.close()
