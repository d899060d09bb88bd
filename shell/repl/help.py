"""Help for a place in a line: the text behind `?`, `??` and `help`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...man.tasks import aligned
from ...models.commands.base import Entry
from ...models.errors import UsageError
from ..syntax.lexer import PIPE, TERMINAL, Word
from ..syntax.parser import HelpRequest, Parser, Scope, find_help_request
from .completion_values import ValueSuggester, service_of
from .shell_words import SHELL_WORDS, find_shell_word, shell_word_help

_GAP = "    "
_LISTED_VALUES = 20
_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "names separated by commas"}

Rows = list[tuple[str, str]]


def help_text(location: Sequence[Scope], request: HelpRequest, suggester: ValueSuggester) -> str:
    """Return a line for each word that may come next; `request.is_verbose` adds type, default, and what is required.

    Raises:
        UsageError: one of the words before the place is not valid.
    """
    shell_word = find_shell_word(request.words[0], location) if request.words else None
    if shell_word is not None:
        return shell_word_help(shell_word)
    parser = Parser(location, SHELL_WORDS)
    parser.feed_all(request.words)
    if parser.expected_value is not None:
        values = suggester.suggest(parser.expected_value, "", service_of(parser.command))
        return _to_text(_value_rows(parser, parser.expected_value, values, is_verbose=request.is_verbose))
    found = []
    for name, entry in parser.scope.choices().items():
        if entry.is_option and not (request.is_verbose or request.prefix):
            continue
        if name.startswith(request.prefix):
            mark = "*" if entry.field.is_required() else ""
            found.append((f"{mark}{name}", _describe(parser, entry, is_verbose=request.is_verbose)))
    if not request.words:
        found += [(name, text) for name, text in SHELL_WORDS.items() if name.startswith(request.prefix)]
    positional = parser.scope.positional()
    if positional is not None:
        found.append((f"<{positional.name}>", _describe(parser, positional, is_verbose=request.is_verbose)))
    if not request.prefix:
        found += _ending_rows(parser)
    return _to_text(found) if found else f" no word that begins with {request.prefix} is valid here"


def help_word_text(location: Sequence[Scope], words: Sequence[Word], suggester: ValueSuggester) -> str:
    """Return what `help WORDS…` prints: help behind the words, or for the last one where it is only a beginning.

    Raises:
        UsageError: one of the words is not valid.
    """
    request = find_help_request(location, words)
    try:
        return help_text(location, request or HelpRequest(words), suggester)
    except UsageError:
        if request is not None or not words:
            raise
        return help_text(location, HelpRequest(words[:-1], words[-1].text), suggester)


def _value_rows(parser: Parser, entry: Entry, values: Sequence[str], *, is_verbose: bool) -> Rows:
    rows = [(f"<{_value_name(entry)}>", _describe(parser, entry, is_verbose=is_verbose))]
    if entry.is_secret:
        rows.append(("-", "Ask for the value without showing it"))
    if entry.reads_files:
        rows.append(("@FILE", "Take the text of a file"))
        rows.append((TERMINAL, "Type a text of several lines at the prompt"))
    if values:
        more = [f"and {len(values) - _LISTED_VALUES} more"] if len(values) > _LISTED_VALUES else []
        rows.append(("", ", ".join([*values[:_LISTED_VALUES], *more])))
    return rows


def _value_name(entry: Entry) -> str:
    extra = entry.field.json_schema_extra
    return str(extra.get("value", entry.name)) if isinstance(extra, dict) else entry.name


def _ending_rows(parser: Parser) -> Rows:
    rows = [(PIPE, "Send the result through a pipe function")] if parser.can_pipe() else []
    if parser.command is None:
        return [*rows, ("<ENTER>", f"Enter {parser.scope.name}")] if parser.has_entered() else rows
    is_incomplete = any(entry.field.is_required() for entry in parser.command.choices().values())
    return rows if is_incomplete or parser.lacks_function else [*rows, ("<ENTER>", "Run the command")]


def _describe(parser: Parser, entry: Entry, *, is_verbose: bool) -> str:
    text = entry.field.description or ""
    if not is_verbose or entry.is_branch or entry.is_option:
        return text
    facts = [_describe_type(parser, entry), "required" if entry.field.is_required() else "", _describe_default(entry)]
    return f"{text} ({', '.join(filter(None, facts))})"


def _describe_type(parser: Parser, entry: Entry) -> str:
    """Return the type in the field's JSON Schema in words, or as a worker has described it."""
    if entry.value_type is not None:
        return entry.value_type.words
    document = parser.scope.model.model_json_schema()
    schema = document["properties"][entry.name]
    options = [schema, *schema.get("anyOf", ())]
    options += [document.get("$defs", {}).get(str(part.get("$ref", "")).rsplit("/", 1)[-1], {}) for part in options]
    kind: dict[str, Any] = next((part for part in options if part.get("type", "null") != "null"), {})
    words = _TYPES.get(str(kind.get("type")), "text")
    limits = [str(kind[key]) for key in ("minimum", "maximum") if key in kind]
    return f"{words} {' to '.join(limits)}" if len(limits) > 1 else words


def _describe_default(entry: Entry) -> str:
    is_computed = entry.field.is_required() or entry.field.default_factory is not None
    default = None if is_computed else entry.field.get_default()
    return "" if default is None else f"default '{getattr(default, 'value', default)}'"


def _to_text(rows: Rows) -> str:
    return "\n".join(f" {line}" for line in aligned(rows, _GAP))
