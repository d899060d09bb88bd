"""Which lines of an audit trail are listed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_TIME = re.compile(rb'\{"seq": [0-9]+, "time": "([^"]{1,64})"')
_PART = b', "part": '
"""Quotes within texts are escaped: no client can bring this into a line."""


@dataclass(frozen=True)
class LineFilter:
    """Selects lines by their text, so that most are never parsed.

    `contained` are parts of a line that it must have, `since` the earliest time, empty for any. With `fingerprints` a
    line must have one of them; without, the second and further lines of one change are left out.
    """

    contained: tuple[bytes, ...] = ()
    since: bytes = b""
    fingerprints: frozenset[str] | None = None

    @classmethod
    def of(
        cls, *, username: str | None, operation: str | None, since: str | None, fingerprints: frozenset[str] | None
    ) -> LineFilter:
        """Return the filter for these values of a line, None for any."""
        wanted = {"operation": operation, "username": username}
        fields = {key: value for key, value in wanted.items() if value is not None}
        contained = tuple(f'"{key}": {json.dumps(value)}'.encode() for key, value in fields.items())
        return cls(contained, (since or "").encode(), fingerprints)

    def select(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the lines that match."""
        return (line for line in lines if self._matches(line))

    def _matches(self, line: bytes) -> bool:
        if not all(part in line for part in self.contained) or not self._is_late_enough(line):
            return False
        if self.fingerprints is None:
            return _PART not in line
        return any(each.encode() in line for each in self.fingerprints) and not self.fingerprints.isdisjoint(
            _tokens(line)
        )

    def _is_late_enough(self, line: bytes) -> bool:
        # All times are in UTC and of one form, in which later is greater.
        if not self.since:
            return True
        found = _TIME.match(line)
        return found is not None and found[1] >= self.since


def _tokens(line: bytes) -> list[Any]:
    try:
        tokens = json.loads(line)["tokens"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [each for each in tokens if isinstance(each, str)] if isinstance(tokens, list) else []
