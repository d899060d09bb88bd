"""The token database on disk: `diskcache.Cache`, opened so that what was written stays written and nothing runs.

One row of table `Cache` in `cache.db` is one token:

    key          text, `bearer_token::TOKEN`                            raw   1
    tag          text, the user name                                    mode  1
    value        JSON text, `{"token": …, "username": …, "created": "2026-05-31T10:08:51.914919+00:00"}`
    expire_time  epoch seconds, null for never

diskcache is made to be a cache; its defaults drop rows, unpickle what they find and trust the settings in the file.
`TokenDatabase` turns each of these off and turns every failure into one of the `TokenStore…Error` classes. All calls
on one database come from the thread that opened it.
"""

# diskcache has no type hints; its calls are all in this file.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import json
import shlex
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import diskcache
from pydantic import BaseModel, ValidationError

from ..models.errors import (
    TokenStoreBusyError,
    TokenStoreDamagedError,
    TokenStoreError,
    TokenStoreFullError,
    TokenStoreReadOnlyError,
)
from ..models.fields import Token, Username
from ..models.private_files import make_private_folder, open_private, sync_folder
from ..models.tokens import BearerTokenRecord

LOCK_TIMEOUT_SECONDS = 5.0
KEY_PREFIX = "bearer_token::"

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
_LAST_INSTANT = 253_370_764_800.0  # 9999-01-01 UTC: later ones can't be shown in local time

_SELECT = f"""
    SELECT key, tag, value, expire_time,
           raw = 1 AND mode = {diskcache.core.MODE_RAW} AND filename IS NULL AND typeof(value) = 'text'
               AND typeof(tag) = 'text' AND typeof(expire_time) IN ('real', 'null'),
           raw IS NOT 1 OR mode = {diskcache.core.MODE_PICKLE},
           typeof(key) = 'text' AND substr(key, 1, {len(KEY_PREFIX)}) = '{KEY_PREFIX}'
    FROM Cache ORDER BY rowid
"""  # noqa: S608  only constants of this module go in


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

    def settings_in_force(self) -> dict[str, Any]:
        """Return the settings as the connection and the file have them now."""
        found = {name: self.reset(name) for name in _SETTINGS}
        return found | {name: self._sql(f"PRAGMA {name}").fetchone()[0] for name in _PRAGMAS}

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield all rows of one read; texts come as bytes, since planted ones need not be UTF-8."""
        self._con.text_factory = bytes
        try:
            yield from self._sql(_SELECT)
        finally:
            self._con.text_factory = str

    def put(self, key: str, value: str, tag: str, expires: float | None, before_commit: Callable[[], None]) -> None:
        """Write one row in one transaction."""
        with self.writing():
            self.set(key, value, tag=tag)
            # `set` counts the lifetime from its own look at the clock. That the row is there is seen as well.
            statement = "UPDATE Cache SET expire_time = ? WHERE key = ? AND raw = 1"
            if self._sql(statement, (expires, key)).rowcount != 1:
                raise TokenStoreDamagedError("the token database doesn't keep rows that are written to it")
            before_commit()

    def remove(self, keys: Iterable[str], before_commit: Callable[[], None]) -> None:
        """Remove rows, expired ones as well, in one transaction."""
        with self.writing():
            self._con.executemany("DELETE FROM Cache WHERE key = ? AND raw = 1", ((key,) for key in keys))
            before_commit()

    def shrink(self) -> None:
        """Fold the write-ahead log into the database file and give its room back."""
        self._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold a transaction, and none when it is over: `transact` leaves it open when its COMMIT fails."""
        try:
            with self.transact(retry=False):
                yield
        finally:
            if self._con.in_transaction:
                self._con.rollback()


class _StoredToken(BaseModel):
    """The JSON in a row's value; `created` without an offset is local time, as NorFab's workers write it."""

    token: Token
    username: Username
    created: datetime


@dataclass(frozen=True)
class LoadedTokens:
    """What a database held: its tokens in the order they were first stored, and how many rows were passed over."""

    records: list[BearerTokenRecord]
    pickled: int
    invalid: int


class _CarriedError(Exception):
    """Carries what `before_commit` raised past those who translate errors of the database."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class _Once:
    """Calls a function the first time it is called itself, and never again."""

    def __init__(self, function: Callable[[], None] | None) -> None:
        self._function = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            try:
                function()
            except BaseException as error:  # carried to the caller, whatever it is
                raise _CarriedError(error) from error


class TokenDatabase:
    """The rows of one token database; every method raises `TokenStoreError` or a subclass, and then nothing changed.

    `before_commit` is called once, when a write's rows are written and not yet committed; what it raises undoes the
    write and is raised as it is.
    """

    def __init__(self, folder: Path, cache: _Cache) -> None:
        self._folder = folder
        self._cache = cache
        self._file_identity = _identity(folder)

    @classmethod
    def open(cls, folder: Path, *, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS) -> TokenDatabase:
        """Open the database in `folder`, making both when they don't exist.

        The caller owns the folder (a lock of its own): two owners would not see each other's tokens.

        Raises:
            EnvironmentFolderError: the folder is open to others or isn't this user's.
            TokenStoreBusyError: another process held the database for `lock_timeout_seconds`.
            TokenStoreError: its subclasses say whether it is read-only, full or damaged.
        """
        with _translated(folder):
            _prepare_folder(folder)
            _check_file(folder, lock_timeout_seconds)
            cache = _Cache(folder, lock_timeout_seconds)
        database = cls(folder, cache)
        try:
            database._assert_settings()
        except BaseException:
            database.close()
            raise
        return database

    def _assert_settings(self) -> None:
        with _translated(self._folder):
            found = self._cache.settings_in_force()
        for name, value in (_SETTINGS | _PRAGMAS).items():
            if found[name] != value:
                raise TokenStoreError(
                    f"the token database in {self._folder} can't be used safely: {name} is {found[name]} where {value} "
                    "is needed; keep it on a local disk"
                )

    def load(self) -> LoadedTokens:
        """Read every token; rows that are pickled or break a rule are counted, never read further."""
        records: list[BearerTokenRecord] = []
        pickled = invalid = 0
        with _translated(self._folder):
            for key, tag, value, expires, is_plain, is_pickled, is_token in self._cache.rows():
                if is_pickled:
                    pickled += 1
                elif is_token:
                    record = _record(key, tag, value, expires) if is_plain else None
                    if record is None:
                        invalid += 1
                    else:
                        records.append(record)
        return LoadedTokens(records, pickled, invalid)

    def put(self, record: BearerTokenRecord, *, before_commit: Callable[[], None] | None = None) -> None:
        """Write a token, in place of an older row of the same token; on disk (fsync) when this returns."""
        created = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        value = json.dumps({"token": record.token, "username": record.username, "created": created})
        row = (KEY_PREFIX + record.token, value, record.username, record.expires)
        self._write(partial(self._cache.put, *row), before_commit)

    def remove(self, tokens: Iterable[str], *, before_commit: Callable[[], None] | None = None) -> None:
        """Remove tokens, all or none; gone from disk (fsync) when this returns."""
        keys = [KEY_PREFIX + token for token in tokens]
        self._write(partial(self._cache.remove, keys), before_commit)

    def _write(self, write: Callable[[Callable[[], None]], None], before_commit: Callable[[], None] | None) -> None:
        if _identity(self._folder) != self._file_identity:
            # SQLite would go on writing, with success, to a file that no longer has a name.
            raise TokenStoreDamagedError(
                f"the token database in {self._folder} was moved or replaced, nothing changed: restart the worker"
            )
        once = _Once(before_commit)
        try:
            self._write_or_make_room(partial(write, once))
        except _CarriedError as carried:
            refused = carried.error
        else:
            return
        raise refused

    def _write_or_make_room(self, write: Callable[[], None]) -> None:
        try:
            with _translated(self._folder):
                write()
        except TokenStoreFullError:
            # The write-ahead log holds megabytes that folding it in gives back. A token must not outlive its
            # revocation because a disk is full.
            with _translated(self._folder):
                self._cache.shrink()
                write()

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it. Safe to repeat."""
        self._cache.close()


def _record(key: bytes, tag: bytes, value: bytes, expires: float | None) -> BearerTokenRecord | None:
    """Return the token of a row, None if its columns break a rule or contradict each other."""
    with suppress(ValidationError, ValueError, OverflowError, OSError):  # the latter ones: instants out of range
        stored = _StoredToken.model_validate_json(value)
        created = stored.created.timestamp()
        if (
            key == (KEY_PREFIX + stored.token).encode()
            and tag == stored.username.encode()
            and 0 <= created < _LAST_INSTANT
            and (expires is None or 0 <= expires < _LAST_INSTANT)
        ):
            return BearerTokenRecord(stored.token, stored.username, created, expires)
    return None


def foreign_databases(folder: Path) -> list[Path]:
    """Return the databases that a NorFab worker has left in folders of their own; nothing of them is opened here."""
    return sorted(folder.glob(f"[0-9][0-9][0-9]/{diskcache.core.DBNAME}"))


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = (folder / diskcache.core.DBNAME).stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _prepare_folder(folder: Path) -> None:
    """Make the folder and an empty database file in it, or verify that the folder there is private."""
    is_new = not folder.exists()
    make_private_folder(folder, parents=True)
    if is_new:
        sync_folder(folder.parent)
    # SQLite gives its write-ahead log and shared memory the mode of the database file. A file that is there is not
    # opened: closing it would drop the locks that SQLite may have on it in this process (sqlite.org/howtocorrupt.html).
    file = folder / diskcache.core.DBNAME
    with suppress(FileExistsError):
        open_private(file, "xb").close()
    # With a database file that it can't write SQLite makes companions that it can't write either, and leaves them.
    for path in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        if path.exists() and not path.stat().st_mode & stat.S_IWUSR:
            raise TokenStoreReadOnlyError(
                f"{path} can't be written, nothing changed: run chmod 600 {shlex.quote(str(path))}"
            )


def _check_file(folder: Path, lock_timeout_seconds: float) -> None:
    """See that the file is whole and can be written, and forget the settings in it.

    diskcache retries for a minute on a lock while it opens, runs the settings it finds as PRAGMA statements and as
    attributes of itself, and notices damage only where it stumbles over it.
    """
    file = folder / diskcache.core.DBNAME
    with closing(sqlite3.connect(file, timeout=lock_timeout_seconds, isolation_level=None)) as connection:
        report = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if report != "ok":
            raise sqlite3.DatabaseError(report)
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Settings'").fetchone():
            connection.execute("DELETE FROM Settings WHERE key NOT IN ('count', 'size', 'hits', 'misses')")
        connection.execute("COMMIT")


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Turn what SQLite, diskcache and the system raise into this package's errors."""
    try:
        yield
    except (sqlite3.Error, diskcache.Timeout) as error:
        _raise_for(folder, error)
    except OSError as error:
        raise TokenStoreReadOnlyError(
            f"the token database in {folder} can't be reached ({error.strerror}), nothing changed: "
            "see to the folder's owner, mode and mount"
        ) from error


def _raise_for(folder: Path, error: BaseException) -> NoReturn:
    # diskcache turns whatever stops a BEGIN into a Timeout, and a failed ROLLBACK hides what made it necessary.
    while isinstance(error.__context__, sqlite3.Error):
        error = error.__context__
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    match code & 0xFF:  # the upper bits refine the cause
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            raise TokenStoreBusyError(
                "token store busy, nothing changed: another process holds its database"
            ) from error
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            raise TokenStoreReadOnlyError(
                f"the token database in {folder} can't be written, nothing changed: see to its owner, mode and mount"
            ) from error
        case sqlite3.SQLITE_FULL:
            raise TokenStoreFullError(f"the disk of {folder} is full, nothing changed: make room on it") from error
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            raise TokenStoreError(
                f"the token database in {folder} reports a {error}, nothing changed: see to that disk"
            ) from error
        case _:
            raise TokenStoreDamagedError(
                f"{folder / diskcache.core.DBNAME} is damaged or no token database, nothing changed: "
                "restore it from a backup, or move it away to begin with no tokens"
            ) from error
