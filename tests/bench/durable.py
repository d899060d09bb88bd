"""The floor under a durable change: one commit of one row by SQLite itself, with the settings of the token database."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_SETTINGS = ("journal_mode = wal", "synchronous = full", "secure_delete = on")
_CREATE = "CREATE TABLE tokens (key TEXT PRIMARY KEY, tag TEXT, value TEXT, expire_time REAL)"
_VALUE = "x" * 120
"""About as long as a token's record."""


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
