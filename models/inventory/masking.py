"""Masking of secrets in the free-form sections of an inventory, for display."""

from __future__ import annotations

import math
import re
from typing import Any

MASK = "***"

_SECRET_KEY = re.compile(r"pass|secret|token|key|cred|auth|private|cookie|session", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\s*(?:bearer|basic|digest)\s+\S", re.IGNORECASE)
_URL_SECRET = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def mask_section(value: Any, key: str = "") -> Any:
    """Return `value` in JSON types, with `***` for each value whose key or form says that it is a secret.

    Everything below a key that sounds like a secret is masked, except true, false and null.
    """
    is_secret = bool(_SECRET_KEY.search(key))
    if isinstance(value, dict):
        return {str(name): mask_section(item, key if is_secret else str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = list(value)
        if not is_secret and len(items) == 2 and isinstance(items[0], str):  # noqa: PLR2004  a header: name and value
            return [mask_section(items[0]), mask_section(items[1], items[0])]
        return [mask_section(item, key) for item in items]
    return _mask_scalar(value, is_secret=is_secret)


def _mask_scalar(value: Any, *, is_secret: bool) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if is_secret or isinstance(value, bytes):
        return MASK
    if isinstance(value, str):
        return MASK if _SECRET_VALUE.match(value) else _URL_SECRET.sub(MASK, value)
    is_json_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_json_number else str(value)
