"""Text of clients in lines of the audit trail: bounded, and without credentials."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ...models.inventory.masking import MASK
from ..logging import mask_credentials

MAX_TEXT_CHARACTERS = 256
MAX_DETAIL_CHARACTERS = 128
"""Of what a client reports about itself."""
SEPARATOR = "; "

_SHORTEST_RECOGNIZED_TOKEN = 8
_SHOWN_CHARACTERS = 40
_OF_TOKENS = "token: "
_TOKEN_LIKE = re.compile(rf"[A-Za-z0-9._~+/-]{{{_SHORTEST_RECOGNIZED_TOKEN},}}=*")


def as_text(value: object) -> str | None:
    """Return an untrusted value as text, None for None."""
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, (float, bool)) else f"<{type(value).__name__}>"


def redacted(reason: str) -> str:
    """Mask credentials in error lines; the text after `token: ` describes the field and is no credential."""
    return SEPARATOR.join(
        f"{_OF_TOKENS}{mask_credentials(line[len(_OF_TOKENS) :])}"
        if line.startswith(_OF_TOKENS)
        else mask_credentials(line)
        for line in reason.split(SEPARATOR)
    )


def plain(text: str) -> str:
    """Return text of bounded length without lone surrogates."""
    return text.encode("utf-8", "replace").decode()[:MAX_TEXT_CHARACTERS]


def printable(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, `?` in place of those that can't be printed."""
    return "".join(char if char.isprintable() else "?" for char in text[:limit])


def masked(text: str, tokens: Iterable[str], is_token: Callable[[str], object] = lambda _text: False) -> str:
    """Mask tokens in a text: the given ones, and those that `is_token` recognizes.

    A short token is masked only if it is the entire text: it may be part of any word.
    """
    for token in tokens:
        if text == token:
            return MASK
        if len(token) >= _SHORTEST_RECOGNIZED_TOKEN:
            # Error lines show the first 40 characters of a value.
            text = text.replace(token, MASK).replace(token[:_SHOWN_CHARACTERS], MASK)
    if is_token(text):
        return MASK
    return _TOKEN_LIKE.sub(lambda match: MASK if is_token(match[0]) else match[0], text)
