"""Token databases as NorFab's workers write them."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import diskcache

CREATION = "2026-05-31 12:08:51.914919"


class NorfabDatabase:
    """The token database of a NorFab worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cache = diskcache.FanoutCache(directory=str(folder), shards=4, timeout=1, size_limit=1024**3)

    def store(self, token: str, username: str, expires: float | None = None, created: str = CREATION) -> None:
        """Store a token as NorFab's workers do; `expires` in epoch seconds."""
        record = {"token": token, "username": username, "created": created}
        self.put(f"bearer_token::{token}", record, username, expires)

    def put(self, key: object, value: object, tag: object = "alice", expires: float | None = None) -> None:
        """Write a row."""
        lifetime = None if expires is None else expires - time.time()
        self._cache.set(key, value, expire=lifetime, tag=tag)

    def plant(self, data: bytes, key: str = "bearer_token::t1", **columns: object) -> None:
        """Write a row with a pickle of the test's making, or whatever columns."""
        row = {"key": key, "raw": 1, "tag": "alice", "mode": 4, "value": data, **columns}
        with closing(sqlite3.connect(self.folder / "000" / "cache.db")) as connection, connection:
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO Cache({', '.join(row)}) VALUES({marks})", tuple(row.values()))

    def close(self) -> None:
        """Close the files: SQLite folds its write-ahead logs in and removes them."""
        self._cache.close()
