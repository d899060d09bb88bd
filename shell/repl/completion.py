"""Completion with the Tab key: names of commands and fields, and values where they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...models.commands.base import ALL_WORKERS, ANY_WORKER, Entry
from ...models.errors import UsageError
from ..syntax.lexer import PIPE, quote, split_typed
from ..syntax.parser import Parser, Scope
from .completion_values import ValueSuggester
from .shell_words import HELP_WORD, SHELL_WORDS


@dataclass(frozen=True)
class Completions:
    """Texts that can replace the line from `start` on; each ends in a blank where the word is finished."""

    start: int
    texts: list[str]


def complete(line: str, location: Sequence[Scope], suggester: ValueSuggester) -> Completions:
    """Return the completions of the last word of `line`, up to the cursor. Never raises, never offers tokens.

    Values are quoted where they need it, and an open quote is closed. `location` is the open group, as in `Parser`.
    """
    words, tail = split_typed(line)
    typed = tail.word
    nothing = Completions(len(line), [])
    if tail.open_quote == "\\":
        return nothing
    parser = Parser(location)
    try:
        parser.feed_all(words[1:] if words and words[0].text == HELP_WORD else words)
    except UsageError:
        return nothing
    entry = parser.expected_value or parser.scope.positional()
    values = _values(suggester, entry, typed.text) if entry is not None else []
    if parser.expected_value is not None or typed.is_quoted:
        return Completions(typed.start, values)
    names = list(parser.scope.choices())
    names += [] if words else [*SHELL_WORDS]
    names += [PIPE] if parser.can_pipe() else []
    found = [f"{name} " for name in names if name.startswith(typed.text)]
    return Completions(typed.start, [*sorted(found), *values])


def _values(suggester: ValueSuggester, entry: Entry, typed: str) -> list[str]:
    head, comma, last = typed.rpartition(",") if entry.key == "workers" else ("", "", typed)
    taken = {ALL_WORKERS, ANY_WORKER, *(name.strip() for name in head.split(","))} if comma else set()
    values = [value for value in suggester.suggest(entry, typed) if value.startswith(last) and value not in taken]
    return [f"{quote(head + comma + value)} " for value in values]
