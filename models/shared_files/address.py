"""Addresses of shared files: `nf://` and a path in the folder that the file service shares."""

from __future__ import annotations

from typing import Final

from ..errors import UsageError

SCHEME: Final = "nf://"
SERVICE: Final = "filesharing"
MAX_CHARACTERS: Final = 4_096
_NOT_NAMES = frozenset({"", ".", ".."})


def path_parts(url: str) -> tuple[str, ...]:
    """Return the names in a file's address, of which the last one is the file's.

    None of them is `..` or holds a separator of any system, a drive, or a character that can't be seen: each may be
    used as a name on this machine.

    Raises:
        UsageError: it isn't the address of a file.
    """
    problem = _problem(url)
    if problem:
        shown = url if url.isprintable() and len(url) <= MAX_CHARACTERS else ascii(url[:80])
        raise UsageError(f"{shown} {problem}: give {SCHEME} and the path of a shared file")
    return tuple(url.removeprefix(SCHEME).split("/"))


def _problem(url: str) -> str:
    if not url.startswith(SCHEME):
        return f"doesn't begin with {SCHEME}"
    if len(url) > MAX_CHARACTERS:
        return f"… is longer than {MAX_CHARACTERS} characters"
    if url.endswith("/"):
        return "is a folder"
    names = url.removeprefix(SCHEME).split("/")
    if _NOT_NAMES.intersection(names):
        return "has a part that is empty, . or .."
    if "\\" in url or any(":" in name for name in names):
        return "has a backslash or a colon in a name"
    return "" if url.isprintable() else "has characters that can't be seen"
