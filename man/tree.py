"""The command tree as text and as JSON Schema: `man tree [path]` and `man json-schema <path>`.

A command tree is a pydantic model whose fields are branches (fields of a model's type) or leaves (all others). The word
of a field is its alias, `create-token`, or its name where it has none; a path may use either.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..models.errors import UsageError
from .suggestions import unknown_name

_ROOT = "root"
_TEE, _CORNER, _BAR, _BLANK = "├── ", "└── ", "│   ", "    "


def tree_lines(root: type[BaseModel], path: str | None = None) -> list[str]:
    """Draw the tree below `root`, or only its branch at `path` (words joined by dots, `show.fastmcp`).

    A line is `word:    description`; `*` before the word marks a required field, `, default '…'` ends the line of a
    field that has a default other than null. Lines are never cut or wrapped.

    Raises:
        UsageError: no such path; names the first unknown word and lists the words that are valid there.
    """
    lines, indent, model = [_ROOT], "", root
    for word, field in _walk(root, path):
        lines.append(f"{indent}{_CORNER}{_label(word, field)}")
        indent += _BLANK
        branch = _branch(field)
        if branch is None:
            return lines
        model = branch
    return lines + list(_draw(model, indent))


def json_schema(root: type[BaseModel], path: str | None = None) -> dict[str, Any]:
    """Return the JSON Schema of the model at `path`, or of the single field where `path` ends at one.

    Raises:
        UsageError: no such path; names the first unknown word and lists the words that are valid there.
    """
    model = root
    for word, field in _walk(root, path):
        branch = _branch(field)
        if branch is None:
            return _leaf_schema(model, word)
        model = branch
    return model.model_json_schema()


def _leaf_schema(model: type[BaseModel], word: str) -> dict[str, Any]:
    schema = model.model_json_schema()
    leaf: dict[str, Any] = schema["properties"][word]
    return leaf | {"$defs": schema["$defs"]} if "#/$defs/" in str(leaf) else leaf


def _walk(root: type[BaseModel], path: str | None) -> list[tuple[str, FieldInfo]]:
    """Return the word and the field of each step of `path`, from the root down."""
    model: type[BaseModel] | None = root
    steps: list[tuple[str, FieldInfo]] = []
    for part in path.split(".") if path else ():
        fields = _fields(model) if model else {}
        word = part if part in fields else _word_of_name(model, part)
        if word is None:
            passed = ".".join(word for word, _ in steps)
            raise UsageError(unknown_name("path", part, fields, where=f"below {passed}" if passed else ""))
        steps.append((word, fields[word]))
        model = _branch(fields[word])
    return steps


def _word_of_name(model: type[BaseModel] | None, name: str) -> str | None:
    field = model.model_fields.get(name) if model else None
    return _word(name, field) if field else None


def _draw(model: type[BaseModel], indent: str) -> Iterator[str]:
    fields = list(_fields(model).items())
    for position, (word, field) in enumerate(fields, start=1):
        is_last = position == len(fields)
        yield f"{indent}{_CORNER if is_last else _TEE}{_label(word, field)}"
        branch = _branch(field)
        if branch:
            yield from _draw(branch, indent + (_BLANK if is_last else _BAR))


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {_word(name, field): field for name, field in model.model_fields.items()}


def _word(name: str, field: FieldInfo) -> str:
    """Return the word that a user types for the field."""
    return field.alias or name


def _branch(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model that a field leads to, None for a leaf. `Model | None` is a branch like `Model`."""
    annotation: Any = field.annotation
    if get_origin(annotation) in {Union, UnionType}:
        members = [member for member in get_args(annotation) if member is not type(None)]
        annotation = members[0] if len(members) == 1 else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _label(word: str, field: FieldInfo) -> str:
    # Only a leaf can be missing: a branch is entered, not given a value.
    mark = "*" if field.is_required() and _branch(field) is None else ""
    description = " ".join((field.description or "").split())
    text = ", ".join(part for part in (description, _describe_default(field)) if part)
    return f"{mark}{word}:    {text}".rstrip()


def _describe_default(field: FieldInfo) -> str:
    """Return the text for a field's default, empty where that is null or computed."""
    default = None if field.is_required() or field.default_factory else field.default
    if default is None:
        return ""
    if isinstance(default, Enum):
        default = default.value
    return f"default '{str(default).lower() if isinstance(default, bool) else default}'"
