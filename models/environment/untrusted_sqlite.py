"""Reading diskcache databases of others: who can write to one may have put anything into it.

Views and triggers that run when it is read, a damaged tree that leads in circles, rows without an end.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

_MAX_ROW_BYTES = 1024 * 1024
_STEPS_BETWEEN_LOOKS = 100_000


@contextmanager
def open_foreign(file: Path, parameters: str, seconds: float) -> Iterator[sqlite3.Connection]:
    """Open a database for the length of a `with` block, so that nothing in it runs and no statement takes for ever.

    Args:
        file: the database.
        parameters: those of SQLite's URI: `mode=ro&immutable=1`.
        seconds: how long SQLite may be at work on it, in all.

    Raises:
        sqlite3.Error: as SQLite does, in the block too; `SQLITE_INTERRUPT` when the time is over.
    """
    uri = f"{file.absolute().as_uri()}?{parameters}"
    deadline = time.monotonic() + seconds
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")  # no function with effects from views, triggers or the schema
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA mmap_size = 0")  # a file that gets shorter would end the process
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_ROW_BYTES)
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
        yield connection


def is_whole(connection: sqlite3.Connection) -> bool:
    """Whether every page is as it should be, and `Cache` is one table, no column of which is computed.

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
