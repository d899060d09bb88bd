"""Completion with the Tab key: names of commands and fields, and values where they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...models.commands.base import ALL_WORKERS, ANY_WORKER, Entry, folds_dashes
from ...models.errors import NfcliError
from ..syntax.lexer import FILE_MARK, PIPE, Word, quote, split_typed
from ..syntax.parser import Parser, Scope
from .completion_values import ValueSuggester, service_of
from .services.texts import local_files
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
        names_below = parser.scope.choices()
    except NfcliError:
        return nothing
    entry = parser.expected_value or parser.scope.positional()
    values = _values(suggester, entry, typed, service_of(parser.command)) if entry is not None else []
    if parser.expected_value is not None or typed.is_quoted:
        return Completions(typed.start, values)
    names = [quote(name) for name in names_below]
    if (several := parser.open_list) is not None:
        taken = parser.scope.values[several.key].strip("[]").split(",")
        values += _more_values(suggester, several, typed, service_of(parser.command), taken)
    names += [] if words else [*SHELL_WORDS]
    names += [PIPE] if parser.can_pipe() else []
    starts = {typed.text, typed.text.replace("-", "_")} if folds_dashes(parser.scope.model) else {typed.text}
    found = [f"{name} " for name in names if name.startswith(tuple(starts))]
    return Completions(typed.start, [*sorted(found), *values])


def _more_values(suggester: ValueSuggester, entry: Entry, word: Word, service: str, taken: list[str]) -> list[str]:
    """Return what may follow the values that a field has already; nothing behind `all` and `any`."""
    several = {ALL_WORKERS, ANY_WORKER}
    if several & set(taken):
        return []
    left = [name for name in suggester.suggest(entry, word.text, service) if name not in {*several, *taken}]
    return [f"{quote(name)} " for name in left if name.startswith(word.text)]


def _values(suggester: ValueSuggester, entry: Entry, word: Word, service: str) -> list[str]:
    typed = word.text
    if entry.reads_files and not word.is_quoted and typed.startswith(FILE_MARK):
        names = local_files(typed.removeprefix(FILE_MARK))
        return [f"{FILE_MARK}{name}{'' if name.endswith('/') else ' '}" for name in names if quote(name) == name]
    is_list = entry.key == "workers" or (entry.value_type is not None and entry.value_type.is_list)
    head, comma, last = typed.rpartition(",") if is_list else ("", "", typed)
    taken = {ALL_WORKERS, ANY_WORKER, *(name.strip() for name in head.split(","))} if comma else set()
    suggested = suggester.suggest(entry, typed, service)
    values = [value for value in suggested if value.startswith(last) and value not in taken]
    # A folder is no finished word: what is in it may follow.
    return [quote(head + comma + value) + ("" if value.endswith("/") else " ") for value in values]
