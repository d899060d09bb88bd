"""Texts that tasks declare or return, for MCP clients: bounded, without characters that only models read."""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

from ...models.invisible import strip_invisible

MAX_DESCRIPTION_CHARACTERS = 4_000
MAX_TITLE_CHARACTERS = 256

# Path to an item of a nested value: the path to its container, and its key or index there; None for the value itself.
# Linked, because a tuple for each item would cost a copy a level.
Path = tuple[Any, str | int] | None


def clean_text(value: object, limit: int | None = MAX_DESCRIPTION_CHARACTERS) -> str:
    """Return a text without indentation and invisible characters, truncated to `limit` characters; "" if not a text.

    None: it is not truncated. The invisible characters that scripts and emoji need stay, see `models/invisible.py`.
    """
    if not isinstance(value, str):
        return ""
    kept = "".join(
        character
        for character in strip_invisible(value if limit is None else value[: 4 * limit]).expandtabs(4)
        if character == "\n" or unicodedata.category(character) not in {"Cc", "Cs"}
    )
    text = inspect.cleandoc(kept)
    return text if limit is None or len(text) <= limit else f"{text[: limit - 1]}…"


def clean_line(value: object, limit: int | None = MAX_TITLE_CHARACTERS) -> str:
    """Return the same as `clean_text`, on one line."""
    return " ".join(clean_text(value, limit).split())


def iter_mappings(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each mapping in a nested value, the value itself included."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from iter_mappings(each)


def iter_scalars(value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield each string, number and boolean in a nested value, keys included, with its path.

    A key has the path of its mapping.
    """
    stack: list[tuple[Path, Any]] = [(None, value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, dict):
            yield from ((path, str(key)) for key in item)
            stack.extend(((path, str(key)), item[key]) for key in reversed(item))
        elif isinstance(item, (list, tuple)):
            stack.extend(((path, index), item[index]) for index in range(len(item) - 1, -1, -1))
        elif item is not None:
            yield path, item


def map_scalars(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a nested value with all strings, numbers and booleans changed, keys included.

    Keys that become equal get a number.
    """
    if isinstance(value, (list, tuple)):
        return [map_scalars(item, change) for item in value]
    if not isinstance(value, dict):
        return value if value is None else change(value)
    changed: dict[str, Any] = {}
    for key, item in value.items():
        changed[free_name(str(change(str(key))), changed)] = map_scalars(item, change)
    return changed


def free_name(name: str, taken: dict[str, Any]) -> str:
    """Return a name that is not taken: the given one, or with a number."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name} ({number})"
    return found


def scalar_texts(item: Any) -> Iterator[str]:
    """Yield the notations of a string, number or boolean that rules compare with.

    Booleans are written as in JSON and as in Python. An integral float is written with and without its fraction,
    because a task that expects an integer accepts it.
    """
    yield str(item)
    if isinstance(item, bool):
        yield str(item).lower()
    elif isinstance(item, float) and item.is_integer():
        yield str(int(item))


def clean_strings(value: Any) -> Any:
    """Return a nested value without the invisible characters that its strings and keys don't need."""
    return map_scalars(value, lambda item: strip_invisible(item) if isinstance(item, str) else item)
