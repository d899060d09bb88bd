"""Merging of an inventory's sources; remembers which source each value came from, for error messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KeyPath = tuple[str | int, ...]
_PLAIN_WORD = re.compile(r"[A-Za-z][A-Za-z_.-]{0,39}[0-9]{0,3}")


@dataclass(frozen=True)
class Source:
    """Origin of data: a file, and the key path of the data in it."""

    file: str
    path: KeyPath = ()

    def label(self, path: KeyPath) -> str:
        """Return how an error message names the value at `path` of this data."""
        return f"{self.file}: {dotted((*self.path, *path))}"


@dataclass
class Merged:
    """Merged data, and the source of the value at each key path."""

    data: dict[str, Any] = field(default_factory=dict)
    sources: dict[KeyPath, Source] = field(default_factory=dict)

    def source(self, path: KeyPath) -> Source | None:
        """Return the source of the value at `path`, None if no source has a value there."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.sources:
                return self.sources[path[:length]]
        return None


def merge(target: Merged, data: Mapping[str, Any], source: Source) -> None:
    """Merge `data` into `target`: mappings are merged, lists appended without repeats, other values replaced.

    `target` keeps parts of `data`, which must not be used elsewhere.
    """
    _merge(target, target.data, data, source, ())


def _merge(target: Merged, mapping: dict[str, Any], data: Mapping[str, Any], source: Source, path: KeyPath) -> None:
    for key, value in data.items():
        here = (*path, key)
        old = mapping.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(target, old, value, source, here)
        elif isinstance(old, list) and isinstance(value, list):
            for item in value:
                if item not in old:
                    target.sources[(*here, len(old))] = source
                    old.append(item)
        else:
            target.sources = {known: kept for known, kept in target.sources.items() if known[: len(here)] != here}
            target.sources[here] = source
            mapping[key] = value


def key_label(key: object) -> str:
    """Return how a message names a key that isn't known: it may be a secret, where another program's file was named."""
    text = str(key)
    return text if _PLAIN_WORD.fullmatch(text) else "(a key that is no plain word)"


def dotted(path: KeyPath) -> str:
    """Return a key path as users write it, on one line: `workers.w1.auth_bearer.required_scopes[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if part.isprintable() else repr(part)
            text += f".{word}" if text else word
    return text
