"""What could stand at a place in a line: the text behind `?`, `??` and `help`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...models.commands.base import Entry
from ..syntax.lexer import PIPE
from ..syntax.parser import Parser

_GAP = "    "
_SHOWN_VALUES = 20
_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "names, by commas"}


def help_text(
    parser: Parser,
    *,
    prefix: str = "",
    is_verbose: bool = False,
    shell_words: Mapping[str, str] | None = None,
    values: Sequence[str] = (),
) -> str:
    """Return a line for each thing that may come next.

    Args:
        parser: has read the words before the place.
        prefix: tell only of words that begin so.
        is_verbose: add type, default, and whether it must be given.
        shell_words: words of the shell itself that may stand here, with descriptions.
        values: values to choose from, where a value must come next.
    """
    if parser.expected_value is not None:
        return _aligned(_value_lines(parser, parser.expected_value, values, is_verbose=is_verbose))
    rows = []
    for name, entry in parser.scope.choices().items():
        if name.startswith(prefix):
            mark = "*" if _is_required(entry) else ""
            rows.append((f"{mark}{name}", _described(parser, entry, is_verbose=is_verbose)))
    positional = parser.scope.positional()
    if positional is not None:
        rows.append((f"<{positional.name}>", _described(parser, positional, is_verbose=is_verbose)))
    rows += [(name, text) for name, text in (shell_words or {}).items() if name.startswith(prefix)]
    if not prefix:
        rows += _ending(parser)
    return _aligned(rows) if rows else f" nothing begins with {prefix} here"


def _value_lines(parser: Parser, entry: Entry, values: Sequence[str], *, is_verbose: bool) -> list[tuple[str, str]]:
    rows = [(f"<{entry.name}>", _described(parser, entry, is_verbose=is_verbose))]
    if entry.is_secret:
        rows.append(("-", "Ask for it, so that it is not shown"))
    if values:
        more = [f"and {len(values) - _SHOWN_VALUES} more"] if len(values) > _SHOWN_VALUES else []
        rows.append(("", ", ".join([*values[:_SHOWN_VALUES], *more])))
    return rows


def _ending(parser: Parser) -> list[tuple[str, str]]:
    rows = [(PIPE, "Send the result through a pipe function")] if parser.can_pipe() else []
    if parser.command is None:
        return [*rows, ("<ENTER>", f"Enter {parser.scope.name}")] if parser.has_entered() else rows
    from_command = [entry for entry in parser.command.choices().values() if _is_required(entry)]
    open_pipe = parser.scope.is_single and not parser.scope.values
    return rows if from_command or open_pipe else [*rows, ("<ENTER>", "Run the command")]


def _is_required(entry: Entry) -> bool:
    return entry.model is None and entry.field.is_required()


def _described(parser: Parser, entry: Entry, *, is_verbose: bool) -> str:
    text = entry.field.description or ""
    if not is_verbose or entry.model is not None:
        return text
    facts = [_type(parser, entry), "required" if _is_required(entry) else "", _default(entry)]
    return f"{text} ({', '.join(filter(None, facts))})"


def _type(parser: Parser, entry: Entry) -> str:
    """Put the field's JSON Schema into words."""
    document = parser.scope.model.model_json_schema()
    schema = document["properties"][entry.name]
    options = [schema, *schema.get("anyOf", ())]
    options += [document.get("$defs", {}).get(str(part.get("$ref", "")).rsplit("/", 1)[-1], {}) for part in options]
    kind: dict[str, Any] = next((part for part in options if part.get("type", "null") != "null"), {})
    words = _TYPES.get(str(kind.get("type")), "text")
    limits = [str(kind[key]) for key in ("minimum", "maximum") if key in kind]
    return f"{words} {' to '.join(limits)}" if len(limits) > 1 else words


def _default(entry: Entry) -> str:
    is_made = entry.field.is_required() or entry.field.default_factory is not None
    default = None if is_made else entry.field.get_default()
    return "" if default is None else f"default '{getattr(default, 'value', default)}'"


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f" {name.ljust(width)}{_GAP}{text}".rstrip() for name, text in rows)
