"""Convert errors of SQLite and the operating system into `TokenStoreError` and its subclasses."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ...models.errors import (
    TokenStoreBusyError,
    TokenStoreDamagedError,
    TokenStoreDiskError,
    TokenStoreError,
    TokenStoreFullError,
    TokenStoreReadOnlyError,
)

# UnicodeDecodeError is Python's own, when SQLite quotes bytes of a damaged schema.
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError, OSError)
"""The errors that `store_error` converts."""


def store_error(error: BaseException, file: Path, *, backup: Path | None = None) -> TokenStoreError:
    """Return the `TokenStoreError`, or its subclass, for an error of the database `file`.

    With `backup`, the file being written is that copy of the database.
    """
    name = f"the token database in {file.parent}" if backup is None else f"the backup {backup}"
    if isinstance(error, OSError):
        return TokenStoreReadOnlyError(
            f"{name} can't be accessed ({error.strerror}), nothing changed: check the folder's owner, mode and mount"
        )
    # A failed ROLLBACK hides what made it necessary.
    while isinstance(error.__context__, sqlite3.Error):
        error = error.__context__
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    match code & 0xFF:  # the upper bits refine the cause
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return TokenStoreBusyError("token store busy, nothing changed: another process holds its database")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return TokenStoreReadOnlyError(f"{name} can't be written, nothing changed: check its owner, mode and mount")
        case sqlite3.SQLITE_FULL:
            folder = (backup or file).parent
            return TokenStoreFullError(f"the disk of {folder} is full, nothing changed: make room on it")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            return TokenStoreDiskError(f"{name} failed with {error}, nothing changed: check that disk")
        case _:
            return damaged(file)


def damaged(file: Path) -> TokenStoreDamagedError:
    """Return the error for a file that is damaged or no token database."""
    return TokenStoreDamagedError(
        f"{file} is damaged or no token database, nothing changed: "
        "restore it from a backup, or move it away to start without tokens"
    )
