"""The manual's pages: Markdown files beside this module, printed as they are: `man page [topic]`.

A line that is nothing but an HTML comment is a note to machines and is not printed. The line `<!-- inventory-keys -->`
stands for the table of inventory keys, which is made from the descriptions in the schema so that the two can't differ.
"""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable

from ..models.errors import UsageError
from ..models.inventory import describe_schema
from .choices import unknown
from .columns import aligned

_SUFFIX = ".md"
_COMMENT_LINE = re.compile(r"\s*<!--.*-->\s*")
_KEYS_MARKER = "<!-- inventory-keys -->"
_INDENT = "    "


def list_pages(folder: Traversable | None = None) -> list[tuple[str, str]]:
    """Return topic and title of each page, by topic. The title is the page's first heading.

    Args:
        folder: where the pages lie; None means the ones that are part of this package.
    """
    pages = _pages(folder)
    return [(topic, _title(pages[topic].read_text(encoding="utf-8")) or topic) for topic in sorted(pages)]


def read_page(topic: str, folder: Traversable | None = None) -> str:
    """Return the page's text, its lines neither cut nor wrapped, the last without a newline.

    Raises:
        UsageError: there is no such page; lists the topics, those that resemble `topic` first.
    """
    pages = _pages(folder)
    if topic not in pages:
        raise UsageError(unknown("page", topic, sorted(pages)))
    lines: list[str] = []
    for line in pages[topic].read_text(encoding="utf-8").splitlines():
        if line.strip() == _KEYS_MARKER:
            lines.extend(inventory_keys())
        elif not _COMMENT_LINE.fullmatch(line):
            lines.append(line.rstrip())
    return "\n".join(lines).strip("\n")


def inventory_keys() -> list[str]:
    """Return the table of inventory keys: key, type and default in columns, the description indented below each."""
    keys = describe_schema()
    header, *rows = aligned(
        [("key", "type", "default"), *((key, kind, default or "must be given") for key, kind, default, _ in keys)]
    )
    lines = [header]
    for row, (_, _, _, description) in zip(rows, keys, strict=True):
        lines += [row, f"{_INDENT}{' '.join(description.split())}".rstrip()]
    return lines


def _pages(folder: Traversable | None) -> dict[str, Traversable]:
    here = folder or files("nfcli.man").joinpath("pages")
    found = here.iterdir() if here.is_dir() else ()
    return {entry.name.removesuffix(_SUFFIX): entry for entry in found if entry.name.endswith(_SUFFIX)}


def _title(text: str) -> str:
    return next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), "")
