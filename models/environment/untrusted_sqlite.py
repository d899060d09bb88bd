"""Safe reading of SQLite databases from untrusted sources.

Whoever could write to such a file may have put views and triggers into it that run when it is read, a page tree with
cycles, or rows of any size.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

_MAX_ROW_BYTES = 1024 * 1024
_STEPS_BETWEEN_DEADLINE_CHECKS = 100_000


@contextmanager
def open_untrusted(file: Path, parameters: str, seconds: float) -> Iterator[sqlite3.Connection]:
    """Open a database for the length of a `with` block; nothing stored in it is executed.

    `parameters` are those of SQLite's URI, as `mode=ro&immutable=1`; `seconds` limits all statements together.

    Raises:
        sqlite3.Error: as SQLite does, in the block too; `SQLITE_INTERRUPT` once the time is up.
    """
    uri = f"{file.absolute().as_uri()}?{parameters}"
    deadline = time.monotonic() + seconds
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")  # no function with effects from views, triggers or the schema
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA mmap_size = 0")  # reading beyond the end of a file that was truncated would be fatal
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_ROW_BYTES)
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_DEADLINE_CHECKS)
        yield connection


def is_intact(connection: sqlite3.Connection) -> bool:
    """Whether the database passes SQLite's integrity check, and `Cache` is a plain table without generated columns.

    Raises:
        sqlite3.Error: as SQLite does.
    """
    statement = (
        "SELECT type, name, rootpage > 0 AND sql LIKE 'CREATE TABLE %' FROM sqlite_master WHERE name LIKE 'cache'"
    )
    if connection.execute(statement).fetchall() != [("table", "Cache", 1)]:
        return False
    if any(hidden for *_, hidden in connection.execute("PRAGMA table_xinfo(Cache)")):
        return False
    return bool(connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
