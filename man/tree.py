"""The command tree as text and as JSON Schema: `man tree [path]` and `man json-schema <path>`.

A path has the words of a command, joined by dots; a field's name in Python is accepted in place of its word.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..models.commands.base import Entry, entries, find_entry
from ..models.errors import UsageError
from .suggestions import unknown_name

_ROOT = "root"
_TEE, _CORNER, _BAR, _BLANK = "├── ", "└── ", "│   ", "    "


def tree_lines(root: type[BaseModel], path: str | None = None, *, has_options: bool = False) -> list[str]:
    """Draw the tree below `root`, or only its branch at `path` (words joined by dots, `show.fastmcp`).

    A line is `word:    description`; `*` before the word marks a required field, `, default '…'` ends the line of a
    field that has a default other than null. Lines are never cut or wrapped. The options that every job command has are
    drawn where `has_options`, or where the path ends at one.

    Raises:
        UsageError: no such path; names the first unknown word and lists the words that are valid there.
    """
    lines, indent, model = [_ROOT], "", root
    for entry in _walk(root, path):
        lines.append(f"{indent}{_CORNER}{_label(entry)}")
        indent += _BLANK
        if (below := entry.model) is None:
            return lines
        model = below
    return lines + list(_draw(model, indent, has_options=has_options))


def json_schema(root: type[BaseModel], path: str | None = None) -> dict[str, Any]:
    """Return the JSON Schema of the model at `path`, or of the single field where `path` ends at one.

    Raises:
        UsageError: no such path; names the first unknown word and lists the words that are valid there.
    """
    model = root
    for entry in _walk(root, path):
        if (below := entry.model) is None:
            return _leaf_schema(model, entry.name)
        model = below
    return model.model_json_schema()


def _leaf_schema(model: type[BaseModel], word: str) -> dict[str, Any]:
    schema = model.model_json_schema()
    leaf: dict[str, Any] = schema["properties"][word]
    return leaf | {"$defs": schema["$defs"]} if "#/$defs/" in str(leaf) else leaf


def _walk(root: type[BaseModel], path: str | None) -> list[Entry]:
    """Return the entry of each step of `path`, from the root down."""
    model: type[BaseModel] | None = root
    steps: list[Entry] = []
    for part in path.split(".") if path else ():
        choices = entries(model) if model else {}
        step = find_entry(model, part) if model else None
        step = step or next((entry for entry in choices.values() if entry.key == part), None)
        if step is None:
            above = ".".join(entry.name for entry in steps)
            raise UsageError(unknown_name("path", part, choices, where=f"below {above}" if above else ""))
        steps.append(step)
        model = step.model
    return steps


def _draw(model: type[BaseModel], indent: str, *, has_options: bool) -> Iterator[str]:
    choices = [entry for entry in entries(model).values() if has_options or not entry.is_option]
    for entry in choices:
        is_last = entry is choices[-1]
        yield f"{indent}{_CORNER if is_last else _TEE}{_label(entry)}"
        # Drawn from above, a group whose commands are known only by asking workers stays closed.
        if (below := entry.fixed_model) is not None:
            yield from _draw(below, indent + (_BLANK if is_last else _BAR), has_options=has_options)


def _label(entry: Entry) -> str:
    # Only a leaf can be missing: a branch is entered, not given a value.
    mark = "*" if entry.field.is_required() and not entry.is_branch else ""
    description = " ".join((entry.field.description or "").split())
    text = ", ".join(part for part in (description, _describe_default(entry.field)) if part)
    return f"{mark}{entry.name}:    {text}".rstrip()


def _describe_default(field: FieldInfo) -> str:
    """Return the text for a field's default, empty where that is null or computed."""
    default = None if field.is_required() or field.default_factory else field.default
    if default is None:
        return ""
    if isinstance(default, Enum):
        default = default.value
    return f"default '{str(default).lower() if isinstance(default, bool) else default}'"
