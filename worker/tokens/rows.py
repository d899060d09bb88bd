"""Encode and decode rows of the token database.

One row of table `Cache` is one token:

    key          text, `bearer_token::TOKEN`                            raw   1
    tag          text, the user name                                    mode  1
    value        JSON text, `{"token": …, "username": …, "created": "2026-05-31T10:08:51.914919+00:00"}`
    expire_time  epoch seconds, null for never

`value` holds the fields of `BearerTokenRecord` other than `expires`; fields that are None are left out.

The row `latest_time` holds the high-water mark of the clock: epoch seconds as text in `value`, an empty `tag`, and the
other columns as above. `replication/tombstones.py` describes the rows of deleted tokens.

Rows are read as raw bytes: other programs may have written to the file.
"""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from ...models.fields import LAST_INSTANT, canonical_username
from ...models.tokens import BearerTokenRecord
from .replication.tombstones import TOMBSTONE_PREFIX

KEY_PREFIX = "bearer_token::"
LATEST_TIME_KEY = "latest_time"

# How diskcache marks a value that it has pickled, and one that it stored unchanged.
_PICKLED, _RAW = 4, 1

_SELECT = f"""
    SELECT key, tag, value, expire_time,
           raw = 1 AND mode = {_RAW} AND filename IS NULL AND typeof(value) = 'text'
               AND typeof(tag) = 'text' AND typeof(expire_time) IN ('real', 'null'),
           raw IS NOT 1 OR mode = {_PICKLED},
           typeof(key) = 'text' AND substr(key, 1, {len(KEY_PREFIX)}) = '{KEY_PREFIX}',
           raw = 1 AND typeof(key) = 'text' AND key = '{LATEST_TIME_KEY}',
           typeof(key) = 'text' AND substr(key, 1, {len(TOMBSTONE_PREFIX)}) = '{TOMBSTONE_PREFIX}'
    FROM Cache ORDER BY rowid
"""  # noqa: S608  only constants of this module go in

# A tuple: a dataclass takes no configuration from an adapter.
_RECORDS = TypeAdapter(
    tuple[BearerTokenRecord, ...],
    config=ConfigDict(revalidate_instances="always", hide_input_in_errors=True),
)
_TYPES = get_type_hints(BearerTokenRecord, include_extras=True) | {"created": datetime}
_JSON_FIELDS: dict[str, Any] = {
    each.name: (_TYPES[each.name], ... if each.default is MISSING else each.default)
    for each in fields(BearerTokenRecord)
    if each.name != "expires"
}
_JsonValue = create_model("_JsonValue", **_JSON_FIELDS)
"""The JSON in `value`; `created` without an offset is local time, as NorFab's workers write it."""


@dataclass(frozen=True)
class LoadedTokens:
    """The contents of a database: its tokens in the order they were first stored, and counts of skipped rows.

    `latest` is the high-water mark of the clock in epoch seconds; None where there is none, or where it is invalid
    (`has_invalid_latest`). `tombstones` are the values of their rows by key, not validated.
    """

    records: list[BearerTokenRecord]
    pickled: int
    invalid: int
    latest: float | None = None
    has_invalid_latest: bool = False
    tombstones: dict[str, str] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        """The number of skipped rows."""
        return self.pickled + self.invalid


def read_rows(connection: sqlite3.Connection) -> LoadedTokens:
    """Read every token; rows that are pickled, break a rule or repeat a token are counted, never decoded.

    Raises:
        sqlite3.Error: as SQLite does.
    """
    found: dict[str, BearerTokenRecord] = {}
    pickled = invalid = 0
    latest: float | None = None
    has_invalid_latest = False
    tombstones: dict[str, str] = {}
    connection.text_factory = bytes  # planted texts need not be UTF-8
    try:
        rows = connection.execute(_SELECT)
        for key, tag, value, expires, is_plain, is_pickled, is_token, is_latest, is_tombstone in rows:
            if is_latest:
                latest = _decode_instant(value) if is_plain else None
                has_invalid_latest = latest is None
            elif is_pickled:
                pickled += 1
            elif is_tombstone and is_plain:
                tombstones[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
            elif is_token:
                record = _decode(key, tag, value, expires) if is_plain else None
                if record is None or record.token in found:
                    invalid += 1
                else:
                    found[record.token] = record
    finally:
        connection.text_factory = str
    return LoadedTokens(list(found.values()), pickled, invalid, latest, has_invalid_latest, tombstones)


def encode(record: BearerTokenRecord) -> tuple[str, str, str, float | None]:
    """Return key, tag, value and expire_time of a token's row.

    Raises:
        ValidationError: the record breaks a rule: `read_rows` would skip its row.
    """
    _RECORDS.validate_python((record,))
    content: dict[str, Any] = {name: getattr(record, name) for name in _JSON_FIELDS}
    content["created"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
    value = json.dumps({name: each for name, each in content.items() if each is not None})
    return KEY_PREFIX + record.token, record.username, value, record.expires


def _decode(key: bytes, tag: bytes, value: bytes, expires: float | None) -> BearerTokenRecord | None:
    """Return the token of a row, None if its columns break a rule or contradict each other."""
    with suppress(ValidationError, ValueError, OverflowError, OSError):  # the latter ones: instants out of range
        content = vars(_JsonValue.model_validate_json(value))
        content["created"] = content["created"].timestamp()
        record = BearerTokenRecord(**content, expires=expires)
        if (
            key == (KEY_PREFIX + record.token).encode()
            and canonical_username(tag.decode()) == record.username
            and 0 <= record.created < LAST_INSTANT
            and (expires is None or 0 <= expires < LAST_INSTANT)
        ):
            return record
    return None


def _decode_instant(value: bytes) -> float | None:
    with suppress(ValueError):
        instant = float(value)
        if math.isfinite(instant) and 0 <= instant < LAST_INSTANT:
            return instant
    return None
