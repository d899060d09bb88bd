"""The pages of the manual, Markdown files in this package: `man page [topic]`.

A line that is an HTML comment is not printed. `<!-- inventory-keys -->` is replaced by the list of inventory keys,
generated from the schema so that the two can't differ.
"""

from __future__ import annotations

import re
import textwrap
from importlib.resources import files
from importlib.resources.abc import Traversable

from ..models.errors import UsageError
from ..models.inventory.schema import Inventory
from ..models.inventory.validation import describe
from .suggestions import unknown_name

_SUFFIX = ".md"
_COMMENT_LINE = re.compile(r"\s*<!--.*-->\s*")
_KEYS_MARKER = "<!-- inventory-keys -->"
_EXAMPLES = ("pages", "examples")
_INDENT = "    "
_COLUMNS = 80


def list_pages(folder: Traversable | None = None) -> list[tuple[str, str]]:
    """Return topic and title of each page, by topic. The title is the page's first heading.

    Args:
        folder: the folder with the pages; None means the ones in this package.
    """
    pages = _pages(folder)
    return [(topic, _title(pages[topic].read_text(encoding="utf-8")) or topic) for topic in sorted(pages)]


def read_page(topic: str, folder: Traversable | None = None) -> str:
    """Return a page's text, its lines neither cut nor wrapped, the last without a newline.

    Raises:
        UsageError: no page has that topic; lists the topics, those that resemble it first.
    """
    pages = _pages(folder)
    if topic not in pages:
        raise UsageError(unknown_name("page", topic, sorted(pages)))
    lines: list[str] = []
    for line in pages[topic].read_text(encoding="utf-8").splitlines():
        if line.strip() == _KEYS_MARKER:
            lines.extend(inventory_keys())
        elif not _COMMENT_LINE.fullmatch(line):
            lines.append(line.rstrip())
    return "\n".join(lines).strip("\n")


def list_examples(folder: Traversable | None = None) -> list[str]:
    """Return the names of the example files that the pages refer to, sorted."""
    return sorted(entry.name for entry in _examples(folder).iterdir() if entry.is_file())


def read_example(name: str, folder: Traversable | None = None) -> str:
    """Return the text of an example file, without its last newline.

    Raises:
        UsageError: there is no such file; lists the files, those that resemble it first.
    """
    names = list_examples(folder)
    if name not in names:
        raise UsageError(unknown_name("example", name, names))
    return _examples(folder).joinpath(name).read_text(encoding="utf-8").removesuffix("\n")


def inventory_keys() -> list[str]:
    """Return the path of each inventory key, and indented below it its type, default and meaning.

    No line is longer than 80 characters, unless a single word is.
    """
    lines: list[str] = []
    for key, kind, default, description in describe(Inventory):
        lines.append(key)
        for text in (f"{kind}; {f'default: {default}' if default else 'required'}", description):
            lines += textwrap.wrap(text, _COLUMNS, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return lines


def _pages(folder: Traversable | None) -> dict[str, Traversable]:
    here = folder or files("nfcli.man").joinpath("pages")
    found = here.iterdir() if here.is_dir() else ()
    return {entry.name.removesuffix(_SUFFIX): entry for entry in found if entry.name.endswith(_SUFFIX)}


def _examples(folder: Traversable | None) -> Traversable:
    return folder or files("nfcli.man").joinpath(*_EXAMPLES)


def _title(text: str) -> str:
    return next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), "")
