"""What SQLite and the system raise about a token database, turned into this package's errors."""

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
    """Turn errors of the database `file` into `TokenStoreError` and its subclasses.

    With `backup`, what can't be written is that file, which is made of the database.
    """
    try:
        yield
    except sqlite3.Error as error:
        _raise_for(error, file, backup)
    except UnicodeDecodeError as error:  # Python's own, when SQLite quotes bytes of a damaged schema
        raise damaged(file) from error
    except OSError as error:
        raise TokenStoreReadOnlyError(
            f"{_name(file, backup)} can't be reached ({error.strerror}), nothing changed: "
            "see to the folder's owner, mode and mount"
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
                f"{name} can't be written, nothing changed: see to its owner, mode and mount"
            ) from error
        case sqlite3.SQLITE_FULL:
            folder = (backup or file).parent
            raise TokenStoreFullError(f"the disk of {folder} is full, nothing changed: make room on it") from error
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            raise TokenStoreError(f"{name} reports a {error}, nothing changed: see to that disk") from error
        case _:
            raise damaged(file) from error


def damaged(file: Path) -> TokenStoreDamagedError:
    """Return the error that says that a database is damaged, or isn't one."""
    return TokenStoreDamagedError(
        f"{file} is damaged or no token database, nothing changed: "
        "restore it from a backup, or move it away to begin with no tokens"
    )
