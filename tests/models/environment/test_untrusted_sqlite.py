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


def test_a_statement_that_ends_in_time_is_not_interrupted(tmp_path: Path) -> None:
    """However many steps it takes."""
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) SELECT count(*) FROM n"
    with open_untrusted(database(tmp_path, "CREATE TABLE Cache(key)"), READ_ONLY, 600.0) as connection:
        assert connection.execute(count).fetchone() == (200_000,)


def test_an_untrusted_database_is_read_with_safe_settings(tmp_path: Path) -> None:
    """Whatever SQLite was built with: see its page "Defense Against The Dark Arts"."""
    names = ("trusted_schema", "cell_size_check", "mmap_size")
    with open_untrusted(database(tmp_path, "CREATE TABLE Cache(key)"), "mode=ro", 10.0) as connection:
        found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
    assert found == {"trusted_schema": 0, "cell_size_check": 1, "mmap_size": 0}


@pytest.mark.parametrize(("size", "is_read"), [(1024 * 1024 - 100, True), (1024 * 1024 + 1, False)])
def test_a_row_of_more_than_a_mebibyte_is_not_read(tmp_path: Path, size: int, is_read: bool) -> None:
    """It would take as much memory, as often as it is there."""
    file = database(tmp_path, "CREATE TABLE Cache(key)", f"INSERT INTO Cache VALUES(zeroblob({size}))")
    with open_untrusted(file, READ_ONLY, 10.0) as connection:
        if is_read:
            assert connection.execute("SELECT key FROM Cache").fetchone() == (bytes(size),)
        else:
            with pytest.raises(sqlite3.DataError, match="too big"):
                connection.execute("SELECT key FROM Cache").fetchone()


def test_a_damaged_table_is_not_intact(tmp_path: Path) -> None:
    """SQLite's own check runs, over indexes too."""
    file = database(
        tmp_path, "CREATE TABLE Cache(key)", "CREATE INDEX by_key ON Cache(key)", "INSERT INTO Cache VALUES('a')"
    )
    with closing(sqlite3.connect(file)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_key'")
        [(size,)] = connection.execute("PRAGMA page_size")
    with file.open("r+b") as stream:
        stream.seek(page * size - 1)
        stream.write(b"b")  # the value in the index, which ends the page
    with open_untrusted(file, READ_ONLY, 10.0) as connection:
        assert is_intact(connection) is False


def test_a_virtual_table_is_not_intact(tmp_path: Path) -> None:
    """Its module computes what is read."""
    try:
        file = database(tmp_path, "CREATE VIRTUAL TABLE Cache USING fts5(key)")
    except sqlite3.OperationalError:
        pytest.skip("this SQLite has no module for a virtual table")
    with open_untrusted(file, READ_ONLY, 10.0) as connection:
        assert is_intact(connection) is False
