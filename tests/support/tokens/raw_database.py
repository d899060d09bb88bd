"""Access to a token database that bypasses the store and its rules."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


class RawDatabase:
    """A connection to the database file beside the store's own."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "cache.db"

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """Open the database for the length of a `with` block; each statement is a transaction."""
        with closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
            yield connection

    def run(self, statement: str) -> None:
        """Run one statement."""
        with self.connect() as connection:
            connection.execute(statement)

    def keys(self) -> list[str]:
        """Return the keys of all rows but that of the time and tombstones, in the order they were first written."""
        with self.connect() as connection:
            statement = (
                "SELECT key FROM Cache WHERE key IS NOT 'latest_time' AND key NOT GLOB 'tombstone::*' ORDER BY rowid"
            )
            return [key for (key,) in connection.execute(statement)]

    def plant(self, **columns: object) -> None:
        """Write a row; columns that aren't given, `token` aside, are those of a good token of alice's."""
        token = columns.pop("token", "planted")
        value = json.dumps({"token": token, "username": "alice", "created": "2026-05-31T12:08:51+00:00"})
        row = {"key": f"bearer_token::{token}", "raw": 1, "tag": "alice", "mode": 1, "value": value, **columns}
        marks = ", ".join("?" * len(row))
        with self.connect() as connection:
            connection.execute(f"INSERT INTO Cache({', '.join(row)}) VALUES({marks})", tuple(row.values()))
