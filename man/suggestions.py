"""What to say about a name that isn't there: one line that lists the names that are, the likely ones first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN_CHARACTERS = 64


def unknown(kind: str, word: str, names: Iterable[str], *, where: str = "") -> str:
    """Return `unknown page 'tokns': there is tokens, inventory, …` for a `word` that isn't one of `names`.

    `where` follows the word, for kinds that have names in several places: `below fastmcp.auth`.

    `word` comes from a user, so it is cut to 64 characters, and what a terminal would act on is escaped.
    """
    listed = closest_first(word, names)
    there = f"there is {', '.join(listed)}" if listed else "there is nothing"
    place = f" {where}" if where else ""
    return f"unknown {kind} {word[:_SHOWN_CHARACTERS]!r}{place}: {there}"


def closest_first(word: str, names: Iterable[str]) -> list[str]:
    """Return `names`, those that resemble `word` in front and the rest in their given order."""
    remaining = list(names)
    close = difflib.get_close_matches(word, remaining, n=3)
    return close + [name for name in remaining if name not in close]
