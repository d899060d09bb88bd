"""Annotated types that all models share: user names, tokens, numbers of seconds, instants.

Each rule is defined here once; its message has the rule and, unless it is a token, the value.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from .invisible import find_ineffective_joiner, find_invisible, strip_variation_selectors

MAX_USERNAME_CHARACTERS = 256
MAX_TOKEN_CHARACTERS = 1024
MAX_EXPIRE_SECONDS = 100 * 365 * 86_400 + 25 * 86_400  # 100 years of 365.25 days
MAX_TIMEOUT_SECONDS = 86_400
LAST_INSTANT = 253_370_764_800.0  # 9999-01-01 UTC: later instants can't be shown in local time

# The alphabet of ZeroMQ RFC 32; 40 characters encode 32 bytes.
Z85_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")
_DURATION = re.compile(r"([0-9]{1,10})([smhdw])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
NEVER: Final = "never"
"""The lifetime of a token that doesn't expire, whatever the default is."""
# Characters that terminals interpret, or that can make one name look like another: controls, line separators, lone
# surrogates, bidirectional overrides.
_REFUSED_CATEGORIES = frozenset({"Cc", "Zl", "Zp", "Cs"})
_BRAILLE_BLANK = "\u2800"
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _validate_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise PydanticCustomError("not_text", "must be text")
    return value


def _check_length(value: str, limit: int) -> None:
    if not 1 <= len(value) <= limit:
        raise PydanticCustomError(
            "length", "must be 1 to {limit} characters, got {count}", {"limit": limit, "count": len(value)}
        )


def canonical_username(value: str) -> str:
    """Return the form in which a user's name is stored and compared.

    That is Unicode's form NFC, without selectors of variants of a character, which many fonts don't show.
    """
    return unicodedata.normalize("NFC", strip_variation_selectors(value))


def _validate_stored_username(value: str) -> str:
    value = canonical_username(value)
    _check_length(value, MAX_USERNAME_CHARACTERS)
    if value != value.strip():
        raise PydanticCustomError("username_blanks", "must not begin or end with a blank")
    for position, character in enumerate(value, start=1):
        if unicodedata.category(character) in _REFUSED_CATEGORIES or character in _BIDIRECTIONAL:
            raise PydanticCustomError(
                "username_control",
                "must not hold control characters, character {position} is U+{code}",
                {"position": position, "code": f"{ord(character):04X}"},
            )
    return value


def _validate_username(value: str) -> str:
    value = _validate_stored_username(value)
    position = find_invisible(value)
    if position is None:
        position = find_ineffective_joiner(value)
    kind = "invisible characters that its script doesn't need"
    if position is None:
        position = next((each for each, character in enumerate(value) if _is_odd_blank(character)), None)
        kind = "blanks other than the space"
    if position is not None:
        raise PydanticCustomError(
            "username_invisible",
            "must not hold {kind}, character {position} is U+{code} ({name})",
            {
                "kind": kind,
                "position": position + 1,
                "code": f"{ord(value[position]):04X}",
                "name": unicodedata.name(value[position], "no name"),
            },
        )
    return value


def _is_odd_blank(character: str) -> bool:
    is_blank = unicodedata.category(character) == "Zs" or character == _BRAILLE_BLANK
    return is_blank and character != " "


def _validate_token(value: str) -> str:
    _check_length(value, MAX_TOKEN_CHARACTERS)
    if not _B64TOKEN.fullmatch(value):
        matched = _B64TOKEN.match(value)
        raise PydanticCustomError(
            "token_alphabet",
            "must be made of A-Z a-z 0-9 - . _ ~ + / and may end with = (RFC 6750 b64token): "
            "character {position} could never be sent in an Authorization header",
            {"position": (matched.end() if matched else 0) + 1},
        )
    return value


def _validate_whole_number(value: Any, limit: int, others: str = "") -> int:
    """Return `value` as an int from 1 to `limit`; text must be plain digits: `1e3` and `1_0` are refused.

    `others` is what else may be given, for the error.
    """
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        value = int(value)
    if type(value) is not int or not 1 <= value <= limit:
        raise PydanticCustomError(
            "whole_seconds",
            "must be 1 to {limit} whole seconds{others}, got {value}",
            {"limit": limit, "others": "" if isinstance(value, int) else others, "value": quote_value(value)},
        )
    return value


def _validate_lifetime(value: Any) -> Any:
    return value if value == NEVER else _validate_whole_number(value, MAX_EXPIRE_SECONDS)


def seconds_of(value: Any) -> Any:
    """Return a duration such as `30m`, `12h`, `7d` or `2w` in seconds, any other value as it is."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return value if found is None else int(found[1]) * _UNIT_SECONDS[found[2]]


def _validate_duration(value: Any) -> int:
    return _validate_whole_number(seconds_of(value), MAX_EXPIRE_SECONDS, ", or with a unit: 30m, 12h, 7d, 2w")


def _validate_instant(value: Any) -> float:
    if type(value) not in {int, float} or not 0 <= value < LAST_INSTANT:
        raise PydanticCustomError(
            "instant",
            "must be an instant in seconds since the epoch, 0 or more and below {limit}, got {value}",
            {"limit": int(LAST_INSTANT), "value": quote_value(value)},
        )
    return float(value)


def quote_value(value: Any) -> str:
    """Return a refused value for a message: short and printable; of JSON's three words the word."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else str(value)[:40]
    return text if text.isprintable() and text else repr(text)


Username = Annotated[str, BeforeValidator(_validate_text), AfterValidator(_validate_username)]
"""1 to 256 characters in their canonical form, no blank at either end, none that can't be seen or look like a space."""

StoredUsername = Annotated[str, BeforeValidator(_validate_text), AfterValidator(_validate_stored_username)]
"""The same for a name that is stored already: earlier versions took invisible characters, and other blanks."""

Token = Annotated[str, BeforeValidator(_validate_text), AfterValidator(_validate_token)]
"""RFC 6750 section 2.1 `b64token`, 1 to 1024 characters: what an `Authorization: Bearer` header can carry."""

Seconds = Annotated[
    int,
    BeforeValidator(partial(_validate_whole_number, limit=MAX_EXPIRE_SECONDS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_EXPIRE_SECONDS}),
]
"""A lifetime: whole seconds, from 1 to 100 years."""

Lifetime = Annotated[
    int | Literal["never"],
    BeforeValidator(_validate_lifetime),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_EXPIRE_SECONDS}),
]
"""The same, or `never`; the schema is that of NorFab's workers, which take numbers only."""

Duration = Annotated[
    int,
    BeforeValidator(_validate_duration),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_EXPIRE_SECONDS}),
]
"""A lifetime in whole seconds, or with a unit: `30m`, `12h`, `7d`, `2w`."""

TimeoutSeconds = Annotated[
    int,
    BeforeValidator(partial(_validate_whole_number, limit=MAX_TIMEOUT_SECONDS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_SECONDS}),
]
"""How long a job may take: whole seconds, from 1 to one day."""

Instant = Annotated[
    float,
    BeforeValidator(_validate_instant),
    WithJsonSchema({"type": "number", "minimum": 0, "exclusiveMaximum": LAST_INSTANT}),
]
"""A moment: seconds since the epoch (UTC), before the year 9999."""
