"""The floors under a durable change: one row that SQLite itself commits, and one line at the end of a file.

SQLite has the settings of the token database; the line is as long as one of the audit trail.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_SETTINGS = ("journal_mode = wal", "synchronous = full", "secure_delete = on")
_CREATE = "CREATE TABLE tokens (key TEXT PRIMARY KEY, tag TEXT, value TEXT, expire_time REAL)"
_VALUE = "x" * 120
"""About as long as a token's record."""

_LINE = b"x" * 300 + b"\n"


@contextlib.contextmanager
def durable_commits(folder: Path) -> Iterator[Callable[[str], float]]:
    """Open a database in `folder`; yields a function that stores a row under a new key and returns the seconds."""
    with contextlib.closing(sqlite3.connect(folder / "floor.db", isolation_level=None)) as database:
        for setting in _SETTINGS:
            database.execute(f"PRAGMA {setting}")
        database.execute(_CREATE)

        def commit(key: str) -> float:
            start = time.perf_counter()
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO tokens VALUES (?, 'bench', ?, NULL)", (key, _VALUE))
            database.execute("COMMIT")
            return time.perf_counter() - start

        yield commit


@contextlib.contextmanager
def durable_lines(folder: Path) -> Iterator[Callable[[], float]]:
    """Open a file in `folder`; yields a function that appends a line and returns the seconds until it was on disk."""
    with (folder / "floor.jsonl").open("ab", buffering=0) as file:

        def append() -> float:
            start = time.perf_counter()
            file.write(_LINE)
            os.fdatasync(file.fileno())
            return time.perf_counter() - start

        yield append
