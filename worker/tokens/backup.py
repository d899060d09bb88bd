"""Backups of a token database: written while it is in use, and read as untrusted input.

A backup is one file, a complete SQLite database without companions; `models/environment/untrusted_sqlite.py` opens it.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ...models.environment.private_files import open_private, sync_folder
from ...models.environment.untrusted_sqlite import is_intact, open_untrusted
from ...models.errors import TaskError, TokenStoreBusyError, TokenStoreDamagedError, TokenStoreError
from .errors import DATABASE_ERRORS, damaged, store_error
from .files import companion
from .rows import LoadedTokens, read_rows

READ_SECONDS = 30.0
"""Time limit for SQLite on an untrusted file; 100,000 tokens take one second."""

_COMPANIONS = ("-journal", "-wal", "-shm")


def start_backup(source: sqlite3.Connection, database: Path, path: Path, lock_timeout_seconds: float) -> None:
    """Copy the database of an open connection, in that connection's thread, into a new file with mode 0600.

    The copy is a consistent snapshot, for `finish_backup` to complete. A failed copy is removed.

    Raises:
        TaskError: the file exists already.
        TokenStoreError: its subclasses say what is wrong, with the copy's disk or with the database.
    """
    deadline = time.monotonic() + lock_timeout_seconds

    def wait(status: int, _remaining: int, _total: int) -> None:
        # `backup` itself has no time-out.
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} and time.monotonic() > deadline:
            raise TokenStoreBusyError("token store busy, nothing changed: another process holds its database")

    try:
        open_private(path, "xb").close()
    except FileExistsError:
        raise TaskError(f"{path} exists already, nothing changed: name another file for the backup") from None
    except DATABASE_ERRORS as error:
        raise store_error(error, database, backup=path) from error
    with _removed_on_failure(database, path), closing(sqlite3.connect(path, isolation_level=None)) as copy:
        source.backup(copy, progress=wait)


def finish_backup(database: Path, path: Path) -> None:
    """Check the integrity of a copy and make it one file, which is on disk when this returns; in any thread.

    This takes most of the time, and doesn't use the database. A failed copy is removed.

    Raises:
        TokenStoreError: its subclasses say what is wrong with the copy or its disk.
    """
    with _removed_on_failure(database, path):
        with closing(sqlite3.connect(path, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = DELETE").fetchone()  # the copy's header asks for a write-ahead log
            if copy.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                raise damaged(database)
        sync_folder(path.parent)


@contextmanager
def _removed_on_failure(database: Path, path: Path) -> Iterator[None]:
    try:
        try:
            yield
        except BaseException:
            for leftover in (path, *(companion(path, ending) for ending in _COMPANIONS)):
                with suppress(OSError):
                    leftover.unlink(missing_ok=True)
            raise
    except DATABASE_ERRORS as error:
        raise store_error(error, database, backup=path) from error


def read_backup(path: Path, *, seconds: float = READ_SECONDS) -> LoadedTokens:
    """Read the tokens of an untrusted backup: nothing in the file is run, unpickled or changed.

    Raises:
        TokenStoreDamagedError: it is damaged, is not a backup, or takes longer than `seconds` to read.
        TokenStoreError: it can't be read.
    """
    try:
        status = path.stat()
        is_readable = os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)
    except OSError as error:
        raise TokenStoreError(f"the backup {path} can't be read: {error.strerror}") from error
    if not is_readable:
        raise TokenStoreError(f"the backup {path} can't be read: check its owner and mode")
    if not stat.S_ISREG(status.st_mode):
        raise _not_a_backup(path)
    for ending in _COMPANIONS:
        beside = companion(path, ending)
        if beside.exists():
            raise TokenStoreDamagedError(
                f"{path} is a database in use and no backup, as {beside.name} next to it shows, "
                "nothing changed: use another file"
            )
    # Immutable: SQLite takes no lock and creates no file next to it.
    try:
        with open_untrusted(path, "mode=ro&immutable=1", seconds) as connection:
            if not is_intact(connection):
                raise _not_a_backup(path)
            return read_rows(connection)
    except sqlite3.Error as error:
        raise _not_a_backup(path) from error


def _not_a_backup(path: Path) -> TokenStoreDamagedError:
    return TokenStoreDamagedError(
        f"{path} is damaged or no backup of a token database, nothing changed: use another file"
    )
