"""Error message for an unknown name: one line with the known names, those first that it begins or resembles."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_QUOTED_CHARACTERS = 64
_LISTED_NAMES = 100


def unknown_name(kind: str, word: str, names: Iterable[str], *, where: str = "") -> str:
    """Return `unknown page 'tokns': expected tokens, inventory, …` for a word that is none of the names.

    `word` is what a user typed: it is cut to 64 characters, and its control characters are escaped. `where` follows it
    where names depend on the place: `below fastmcp.auth`.
    """
    known = list(names)
    begun = [name for name in known if word and name.startswith(word)]
    close = [*begun, *(name for name in difflib.get_close_matches(word, known, n=3) if name not in begun)]
    ordered = [*close, *(name for name in known if name not in close)]
    place = f" {where}" if where else ""
    listed = list_names(ordered, _LISTED_NAMES) or "nothing"
    return f"unknown {kind} {word[:_QUOTED_CHARACTERS]!r}{place}: expected {listed}"


def list_names(names: Sequence[str], limit: int) -> str:
    """Return names for a message, separated by commas: the first `limit`, and how many others there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
