"""Globs for names: `*`, `?` and `[…]`, case-sensitive."""

from __future__ import annotations

from fnmatch import fnmatchcase


def matches_glob(glob: str, name: str) -> bool:
    """Return whether a glob matches a name; it also matches itself literally, for names that contain its characters."""
    return name == glob or fnmatchcase(name, glob)
