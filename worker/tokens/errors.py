"""Convert errors of SQLite and the operating system into `TokenStoreError` and its subclasses."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from ...models.errors import (
    TokenStoreBusyError,
    TokenStoreDamagedError,
    TokenStoreError,
    TokenStoreFullError,
    TokenStoreReadOnlyError,
)


@contextmanager
def convert_errors(file: Path, *, backup: Path | None = None) -> Iterator[None]:
    """Convert errors of the database `file` into `TokenStoreError` and its subclasses.

    With `backup`, the file being written is that copy of the database.
    """
    try:
        yield
    except sqlite3.Error as error:
        _raise_for(error, file, backup)
    except UnicodeDecodeError as error:  # Python's own, when SQLite quotes bytes of a damaged schema
        raise damaged(file) from error
    except OSError as error:
        raise TokenStoreReadOnlyError(
            f"{_name(file, backup)} can't be accessed ({error.strerror}), nothing changed: "
            "check the folder's owner, mode and mount"
        ) from error


def _name(file: Path, backup: Path | None) -> str:
    return f"the token database in {file.parent}" if backup is None else f"the backup {backup}"


def _raise_for(error: BaseException, file: Path, backup: Path | None) -> NoReturn:
    # A failed ROLLBACK hides what made it necessary.
    while isinstance(error.__context__, sqlite3.Error):
        error = error.__context__
    name = _name(file, backup)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    match code & 0xFF:  # the upper bits refine the cause
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            raise TokenStoreBusyError(
                "token store busy, nothing changed: another process holds its database"
            ) from error
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            raise TokenStoreReadOnlyError(
                f"{name} can't be written, nothing changed: check its owner, mode and mount"
            ) from error
        case sqlite3.SQLITE_FULL:
            folder = (backup or file).parent
            raise TokenStoreFullError(f"the disk of {folder} is full, nothing changed: make room on it") from error
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            raise TokenStoreError(f"{name} failed with {error}, nothing changed: check that disk") from error
        case _:
            raise damaged(file) from error


def damaged(file: Path) -> TokenStoreDamagedError:
    """Return the error for a file that is damaged or no token database."""
    return TokenStoreDamagedError(
        f"{file} is damaged or no token database, nothing changed: "
        "restore it from a backup, or move it away to start without tokens"
    )
