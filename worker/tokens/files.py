"""The files of a token database: create them privately, check them before use, and detect replacement while in use.

SQLite goes on writing successfully to files that the next start won't read: a file that was removed or replaced, a
write-ahead log that was truncated. `DatabaseFiles.check` runs before each write.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path

from ...models.environment.private_files import make_private_folder, open_private, sync_folder
from ...models.errors import TokenStoreDamagedError, TokenStoreReadOnlyError
from .errors import DATABASE_ERRORS, store_error
from .rows import LoadedTokens, read_rows

DATABASE_NAME = "cache.db"  # diskcache's


def prepare_folder(folder: Path) -> None:
    """Create the folder and an empty database file in it, or verify that an existing folder is private.

    Raises:
        EnvironmentFolderError: the folder is accessible to other users or isn't this user's.
        TokenStoreReadOnlyError: a file in it can't be written.
    """
    is_new = not folder.exists()
    make_private_folder(folder, parents=True)
    if is_new:
        sync_folder(folder.parent)
    # SQLite gives its write-ahead log and shared memory the mode of the database file. An existing file is not opened:
    # closing it would drop the locks that SQLite may hold on it in this process (sqlite.org/howtocorrupt.html).
    file = folder / DATABASE_NAME
    with suppress(FileExistsError):
        open_private(file, "xb").close()
    # For a read-only database file SQLite would create read-only companions, and leave them behind.
    for path in (file, companion(file, "-wal"), companion(file, "-shm")):
        if path.exists():
            _assert_writable(path, path.stat())


def check_file(file: Path, lock_timeout_seconds: float) -> None:
    """Check that the file is intact and writable, and delete diskcache's settings in it.

    diskcache retries for a minute on a lock while it opens, applies the settings in the file as PRAGMA statements and
    as attributes of its own, and detects damage only in the pages that it happens to read.

    Raises:
        sqlite3.Error: as SQLite does; `DatabaseError` when the file is damaged.
    """
    with closing(sqlite3.connect(file, timeout=lock_timeout_seconds, isolation_level=None)) as connection:
        _assert_integrity(connection)
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Settings'").fetchone():
            connection.execute("DELETE FROM Settings WHERE key NOT IN ('count', 'size', 'hits', 'misses')")
        connection.execute("COMMIT")


def read_closed(file: Path) -> LoadedTokens | None:
    """Check a database that no process has open, and read its rows; nothing is created or changed, not even its log.

    None where that isn't possible: its write-ahead log has to be applied by the next start.

    Raises:
        TokenStoreError: it is damaged, or can't be read.
    """
    try:
        log = companion(file, "-wal")
        has_log = log.exists() and log.stat().st_size > 0
        if has_log and not companion(file, "-shm").exists():
            return None
        # With the log of a worker that was killed, SQLite reads the shared memory too, but doesn't write to it.
        parameters = "mode=ro&readonly_shm=1" if has_log else "immutable=1"
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?{parameters}", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            _assert_integrity(connection)
            return read_rows(connection)
    except DATABASE_ERRORS as error:
        raise store_error(error, file) from error


def _assert_integrity(connection: sqlite3.Connection) -> None:
    report = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if report != "ok":
        raise sqlite3.DatabaseError(report)


def companion(file: Path, ending: str) -> Path:
    """Return the path of a companion file that SQLite keeps next to a database: `-wal`, `-shm`, `-journal`."""
    return file.with_name(file.name + ending)


def foreign_databases(folder: Path) -> list[Path]:
    """Return the databases that a NorFab worker left in subfolders; they are not opened."""
    return sorted(folder.glob(f"[0-9][0-9][0-9]/{DATABASE_NAME}"))


class DatabaseFiles:
    """The identities and sizes of a database's files since it was opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / DATABASE_NAME
        self._log = companion(self._file, "-wal")
        self._identities = _identity(self._file.stat()), _identity(self._log.stat())
        self._log_size = 0

    def record_log_size(self) -> None:
        """Record the size of the write-ahead log, which SQLite never shrinks unasked."""
        with suppress(FileNotFoundError):  # `check` reports it
            self._log_size = self._log.stat().st_size

    def is_log_truncated(self) -> bool:
        """Whether the write-ahead log has shrunk: another program truncated it or folded it in."""
        with suppress(FileNotFoundError):  # `check` reports a missing file
            return self._log.stat().st_size < self._log_size
        return False

    def check(self) -> None:
        """Check that a write would go to the files that the next start reads.

        Raises:
            TokenStoreDamagedError: the folder or a file in it was moved, removed or replaced.
            TokenStoreReadOnlyError: one of them was made read-only, though SQLite could still write to it.
            OSError: they can't be accessed.
        """
        try:
            folder, file, log = self._folder.stat(), self._file.stat(), self._log.stat()
            is_in_place = (_identity(file), _identity(log)) == self._identities
        except FileNotFoundError:
            is_in_place = False
        if not is_in_place:
            raise TokenStoreDamagedError(
                f"the token database in {self._folder} was moved or replaced, nothing changed: restart the worker"
            )
        for path, status in ((self._folder, folder), (self._file, file), (self._log, log)):
            _assert_writable(path, status)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _assert_writable(path: Path, status: os.stat_result) -> None:
    if not status.st_mode & stat.S_IWUSR:
        mode = 700 if stat.S_ISDIR(status.st_mode) else 600
        raise TokenStoreReadOnlyError(
            f"{path} can't be written, nothing changed: run chmod {mode} {shlex.quote(str(path))}"
        )
