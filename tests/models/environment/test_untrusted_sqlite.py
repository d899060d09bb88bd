"""Databases from untrusted sources: time limits, and what counts as intact."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nfcli.models.environment.untrusted_sqlite import is_intact, open_untrusted

READ_ONLY = "mode=ro&immutable=1"


def database(folder: Path, *statements: str) -> Path:
    """Return a database made by statements."""
    file = folder / "cache.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return file


def test_a_statement_that_does_not_end_is_interrupted(tmp_path: Path) -> None:
    """As a page tree with cycles or a recursive view would make one."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with (
        pytest.raises(sqlite3.OperationalError) as caught,
        open_untrusted(database(tmp_path, "CREATE TABLE Cache(key)"), READ_ONLY, 0.0) as connection,
    ):
        connection.execute(endless).fetchone()
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["CREATE TABLE Cache(key)"], True),
        (["CREATE TABLE other(key)"], False),
        (["CREATE VIEW Cache AS SELECT 1"], False),
        (["CREATE TABLE other(key)", "CREATE VIEW cache AS SELECT key FROM other"], False),
        (["CREATE TABLE Cache(key, doubled GENERATED ALWAYS AS (key * 2))"], False),
    ],
)
def test_only_a_plain_table_is_intact(tmp_path: Path, statements: list[str], expected: bool) -> None:
    """A view or a generated column would compute what is read."""
    with open_untrusted(database(tmp_path, *statements), READ_ONLY, 10.0) as connection:
        assert is_intact(connection) is expected
