"""The form of a token's row, which other versions and NorFab's tools read, and the limits of its times."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.rows import encode, read_rows

COLUMNS = "key, raw, expire_time, tag, mode, filename, value"
TIME = "2026-05-31T10:08:51.914919+00:00"
CREATED = 1_780_222_131.914919


def loaded(value: str, expires: float | None) -> list[BearerTokenRecord]:
    """Read a database that has one row."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE Cache({COLUMNS})")
        row = ("bearer_token::t", 1, expires, "ann", 1, None, value)
        connection.execute(f"INSERT INTO Cache({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?)", row)
        return read_rows(connection).records


@pytest.mark.parametrize(
    ("written", "more"), [(None, ""), (CREATED + 1, f', "written": {CREATED + 1!r}')], ids=["new", "renewed"]
)
def test_a_row_has_the_same_form_in_every_version(written: float | None, more: str) -> None:
    """Key, tag, value and expiry; what was written is read back."""
    record = BearerTokenRecord("t", "ann", CREATED, CREATED + 60, written)
    value = f'{{"token": "t", "username": "ann", "created": "{TIME}"{more}}}'
    assert encode(record) == ("bearer_token::t", "ann", value, CREATED + 60)
    assert loaded(value, CREATED + 60) == [record]


@pytest.mark.parametrize(
    ("expires", "is_read"),
    [(None, True), (0.0, True), (-0.5, False), (253_370_764_799.0, True), (253_370_764_800.0, False)],
)
def test_a_row_with_an_expiry_that_is_no_time_is_skipped(expires: float | None, is_read: bool) -> None:
    """Before 1970, or after the year 9998."""
    value = f'{{"token": "t", "username": "ann", "created": "{TIME}"}}'
    assert bool(loaded(value, expires)) is is_read
