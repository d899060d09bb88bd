"""What a row of the token database is: one token, or the latest time that the database has seen.

One row of table `Cache` is one token:

    key          text, `bearer_token::TOKEN`                            raw   1
    tag          text, the user name                                    mode  1
    value        JSON text, `{"token": …, "username": …, "created": "2026-05-31T10:08:51.914919+00:00"}`
    expire_time  epoch seconds, null for never

The row `latest_time` has epoch seconds as text in `value`, an empty `tag`, and the other columns as above.

Rows are read as whatever bytes they are: others may have written to the file.
"""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ValidationError

from ...models.fields import LAST_INSTANT, Token, Username
from ...models.tokens import BearerTokenRecord

KEY_PREFIX = "bearer_token::"
LATEST_TIME_KEY = "latest_time"

# How diskcache marks a value that it has pickled, or kept as it is.
_PICKLED, _AS_IT_IS = 4, 1

_SELECT = f"""
    SELECT key, tag, value, expire_time,
           raw = 1 AND mode = {_AS_IT_IS} AND filename IS NULL AND typeof(value) = 'text'
               AND typeof(tag) = 'text' AND typeof(expire_time) IN ('real', 'null'),
           raw IS NOT 1 OR mode = {_PICKLED},
           typeof(key) = 'text' AND substr(key, 1, {len(KEY_PREFIX)}) = '{KEY_PREFIX}',
           raw = 1 AND typeof(key) = 'text' AND key = '{LATEST_TIME_KEY}'
    FROM Cache ORDER BY rowid
"""  # noqa: S608  only constants of this module go in


class _StoredToken(BaseModel):
    """The JSON in a row's value; `created` without an offset is local time, as NorFab's workers write it."""

    token: Token
    username: Username
    created: datetime


@dataclass(frozen=True)
class LoadedTokens:
    """What a database held: its tokens in the order they were first stored, and how many rows were passed over.

    `latest` is the latest time that the database has seen, in epoch seconds; None where it has none, or (and then
    `has_invalid_latest`) one that is no time.
    """

    records: list[BearerTokenRecord]
    pickled: int
    invalid: int
    latest: float | None = None
    has_invalid_latest: bool = False


def read_rows(connection: sqlite3.Connection) -> LoadedTokens:
    """Read every token; rows that are pickled, break a rule or repeat a token are counted, never read further.

    Raises:
        sqlite3.Error: as SQLite does.
    """
    found: dict[str, BearerTokenRecord] = {}
    pickled = invalid = 0
    latest: float | None = None
    has_invalid_latest = False
    connection.text_factory = bytes  # planted texts need not be UTF-8
    try:
        for key, tag, value, expires, is_plain, is_pickled, is_token, is_latest in connection.execute(_SELECT):
            if is_latest:
                latest = _instant(value) if is_plain else None
                has_invalid_latest = latest is None
            elif is_pickled:
                pickled += 1
            elif is_token:
                record = _record(key, tag, value, expires) if is_plain else None
                if record is None or record.token in found:
                    invalid += 1
                else:
                    found[record.token] = record
    finally:
        connection.text_factory = str
    return LoadedTokens(list(found.values()), pickled, invalid, latest, has_invalid_latest)


def columns(record: BearerTokenRecord) -> tuple[str, str, str, float | None]:
    """Return key, tag, value and expire_time of a token's row."""
    created = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
    value = json.dumps({"token": record.token, "username": record.username, "created": created})
    return KEY_PREFIX + record.token, record.username, value, record.expires


def _record(key: bytes, tag: bytes, value: bytes, expires: float | None) -> BearerTokenRecord | None:
    """Return the token of a row, None if its columns break a rule or contradict each other."""
    with suppress(ValidationError, ValueError, OverflowError, OSError):  # the latter ones: instants out of range
        stored = _StoredToken.model_validate_json(value)
        created = stored.created.timestamp()
        if (
            key == (KEY_PREFIX + stored.token).encode()
            and tag == stored.username.encode()
            and 0 <= created < LAST_INSTANT
            and (expires is None or 0 <= expires < LAST_INSTANT)
        ):
            return BearerTokenRecord(stored.token, stored.username, created, expires)
    return None


def _instant(value: bytes) -> float | None:
    with suppress(ValueError):
        instant = float(value)
        if math.isfinite(instant) and 0 <= instant < LAST_INSTANT:
            return instant
    return None
