"""Parse words: the group or command they lead to, the field that each value belongs to, and the pipes that follow.

One parser serves execution, help, completion and history, so that they agree. After a field that takes a value the next
word is the value, whatever it looks like. Names may be abbreviated to what only one of them begins with.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

from pydantic import BaseModel

from ...man.suggestions import list_names
from ...models.commands.base import CommandGroup, Entry, ShellCommand, entries, find_entry, folds_dashes
from ...models.errors import UsageError
from ...models.inventory.masking import MASK
from ..text import quote_for_message
from .lexer import FILE_MARK, HELP, HELP_OPTION, OPTION_MARK, PIPE, TERMINAL, VERBOSE_HELP, Word

LISTED_WORDS = 60
_COMPARED_CHARACTERS = 200
_MISTYPED = 0.75
"""How alike a word and a name are, from 0 to 1, if one is taken for the other with a typing error."""

_SWITCH_VALUES = {"true", "false"}


@dataclass
class Scope:
    """A group, a command's fields, the pipe functions, or the options of one: what a word is looked up in.

    `values` holds the typed values by the fields' names in Python. `is_single`: one choice completes it.
    """

    name: str
    model: type[BaseModel]
    values: dict[str, str] = field(default_factory=dict)
    is_single: bool = False

    def choices(self) -> dict[str, Entry]:
        """Return what can still be typed here, by its word; positional fields are left out."""
        if self.is_single and self.values:
            return {}
        return {
            name: entry
            for name, entry in entries(self.model).items()
            if entry.key not in self.values and not entry.is_positional
        }

    def positional(self) -> Entry | None:
        """Return the next positional field without a value, None when there is none."""
        waiting = (entry for entry in entries(self.model).values() if entry.is_positional)
        return next((entry for entry in waiting if entry.key not in self.values), None)


@dataclass(frozen=True)
class Stage:
    """A pipe function to run: `key` is its field in `Pipes`, `options` their model, None where it has a value."""

    name: str
    key: str
    options: type[BaseModel] | None
    values: dict[str, str]


@dataclass(frozen=True)
class HelpRequest:
    """A request for help: what may follow `words`; with a prefix, which words that begin with it may."""

    words: Sequence[Word] = ()
    prefix: str = ""
    is_verbose: bool = False


class Parser:
    """Incremental parser: takes words one by one, and knows between them what may come next.

    `groups` are the groups entered so far, outermost first; `stages` the pipe functions, in order; `expected_value` is
    the field whose value must come next; `secrets` are the positions of words that are values of secret fields, `asked`
    those fields for which a `-` stands in; `files` are the fields whose values are the texts of files, with the files'
    names, empty for a text that is to be typed at the terminal. `first_words`, which the caller handles, are valid as
    the first word of a line: errors list them. `is_strict`: names may not be abbreviated.
    """

    def __init__(self, groups: Sequence[Scope], first_words: Iterable[str] = (), *, is_strict: bool = False) -> None:
        self._first_words = tuple(first_words)
        self._is_strict = is_strict
        self.groups = [Scope(group.name, group.model) for group in groups]
        self._depth = len(self.groups)
        self.command: Scope | None = None
        self.scope = self.groups[-1]
        self.expected_value: Entry | None = None
        self.secrets: set[int] = set()
        self.asked: list[Entry] = []
        self.files: list[tuple[Entry, str]] = []
        self.stages: list[Stage] = []
        self._switch: Entry | None = None
        self._list: Entry | None = None
        self._count = 0

    def feed_all(self, words: Iterable[Word]) -> None:
        """Parse several words.

        Raises:
            UsageError: a word is not valid in its place; the message names it and what is.
        """
        for word in words:
            self.feed(word)

    def feed(self, word: Word) -> None:
        """Parse one word; raises as `feed_all` does, and is then unchanged."""
        switch, self._switch = self._switch, None
        several, self._list = self._list, None
        if self.expected_value is not None:
            self._feed_value(self.expected_value, word)
        elif several is not None and self._continues(several, word):
            self._add_value(several, word)
        elif switch is not None and word.text in _SWITCH_VALUES:
            self.scope.values[switch.key] = word.text
        elif word.is_pipe:
            self._open_pipe()
        else:
            self._feed_name(word)
        self._count += 1

    def finish(self) -> None:
        """Check that the end of the line is a valid place to end.

        Raises:
            UsageError: a value or a pipe function is missing.
        """
        if self.expected_value is not None:
            raise UsageError(self._in_scope(f"{self.expected_value.name}: value missing"))
        if self.lacks_function:
            raise UsageError(self._function_missing())

    def has_entered(self) -> bool:
        """Whether the words lead to a group below the one where parsing began, and to no command."""
        return self.command is None and len(self.groups) > self._depth

    @property
    def lacks_function(self) -> bool:
        """Whether a pipe function must come next."""
        return self.scope.is_single and not self.scope.values

    @property
    def open_list(self) -> Entry | None:
        """The field whose value has just been typed, if it takes several: another one may follow."""
        return self._list

    def can_pipe(self) -> bool:
        """Whether a `|` may come next."""
        return self.command is not None and self.expected_value is None and not self.lacks_function

    def _feed_value(self, entry: Entry, word: Word) -> None:
        if word.is_operator:
            remedy = f"to use {word.text} as the value, put it in quotes"
            raise UsageError(self._in_scope(f"{entry.name}: value missing before {word.text}: {remedy}"))
        self._set_value(entry, word)
        self.expected_value = None
        self._list = entry if entry.takes_several else None
        if entry.is_secret:
            self.secrets.add(self._count)
            if word.asks_for_value:
                self.asked.append(entry)

    def _continues(self, entry: Entry, word: Word) -> bool:
        """Whether a word is a further value of a field that takes several: not one that names something, or nearly."""
        value, text = self.scope.values[entry.key], word.text
        if word.is_pipe or (text.startswith(PIPE) and not word.is_quoted):
            return False
        if value.endswith(",") or text.startswith(",") or (value.startswith("[") and not value.endswith("]")):
            return not word.is_operator
        if word.is_operator or word.text == MASK or find_entry(self.scope.model, text) is not None:
            return False
        if self.scope.positional() is not None or (text.startswith(OPTION_MARK) and not word.is_quoted):
            return False
        names = self.scope.choices()
        if not self._is_strict and len(self._completions(text)) > 0:
            return False
        return not difflib.get_close_matches(text[:_COMPARED_CHARACTERS], names, n=1, cutoff=_MISTYPED)

    def _add_value(self, entry: Entry, word: Word) -> None:
        value, text = self.scope.values[entry.key], word.text
        comma = "" if value.endswith(",") or text.startswith(",") else ","
        self.scope.values[entry.key] = f"{value}{comma}{text}"
        self._list = entry

    def _set_value(self, entry: Entry, word: Word) -> None:
        if word.text == MASK:
            raise UsageError(self._in_scope(f"{entry.name}: {MASK} stands for a value that was masked: type the value"))
        if self.scope is self.command and word.text.startswith(OPTION_MARK) and not word.is_quoted:
            remedy = "quote it at the prompt or in a script" if word.is_argument else "put it in quotes"
            problem = f"there are no options, and a value that begins with {OPTION_MARK} has to be quoted: {remedy}"
            raise UsageError(self._in_scope(f"{entry.name}: {problem}"))
        text = word.text
        if entry.reads_files and not word.is_quoted:
            if text.startswith(FILE_MARK * 2):
                text = text[1:]
            elif text.startswith(FILE_MARK) or text == TERMINAL:
                self.files.append((entry, text[1:] if text != TERMINAL else ""))
        self.scope.values[entry.key] = text

    def _feed_name(self, word: Word) -> None:
        is_function = self.scope.is_single
        entry = self._find(word)
        if entry.is_positional:
            self._set_value(entry, word)
        elif entry.key in self.scope.values:
            raise UsageError(self._in_scope(f"{entry.name} is given twice: give it once"))
        elif self.scope.is_single and self.scope.values:
            raise self._unknown_word(word)
        elif (model := entry.model) is not None:
            self._enter(entry, model)
        elif entry.is_switch:
            self.scope.values[entry.key] = "true"
            self._switch = entry
        else:
            self.expected_value = entry
        if is_function:
            self.stages.append(Stage(entry.name, entry.key, entry.model, self.scope.values))

    def _find(self, word: Word) -> Entry:
        """Return what a word names, or the positional field that it is the value of; UsageError if neither."""
        entry = find_entry(self.scope.model, word.text)
        if entry is not None and not entry.is_positional:
            return entry
        positional = self.scope.positional()
        if positional is not None and not word.is_operator:
            return positional
        names = [] if positional or word.is_quoted or self._is_strict else self._completions(word.text)
        entry = entries(self.scope.model).get(names[0]) if len(names) == 1 else None
        if entry is None:
            raise self._unknown_word(word)
        return entry

    def _completions(self, text: str) -> list[str]:
        """Return the names that begin with a text, those of fields that have a value too; none for an empty text."""
        if not text:
            return []
        starts = (text, text.replace("-", "_")) if folds_dashes(self.scope.model) else text
        names = [name for name, entry in entries(self.scope.model).items() if not entry.is_positional]
        return [name for name in (*names, *self._first_names()) if name.startswith(starts)]

    def _first_names(self) -> Sequence[str]:
        return () if self._count else self._first_words

    def _enter(self, entry: Entry, model: type[BaseModel]) -> None:
        below = Scope(entry.name, model)
        if issubclass(model, CommandGroup):
            self.groups.append(below)
        elif issubclass(model, ShellCommand):
            self.command = below
        self.scope = below

    def _open_pipe(self) -> None:
        if self.command is None:
            raise UsageError(self._in_scope(f"expected a command before the |: {listed([*self.scope.choices()])}"))
        if not self.can_pipe():
            raise UsageError(self._function_missing())
        self.scope = Scope(PIPE, _load_pipes(self.command.model), is_single=True)

    def _function_missing(self) -> str:
        return f"expected a pipe function after the |: {listed([*self.scope.choices()])}"

    def _unknown_word(self, word: Word) -> UsageError:
        choices = [*self.scope.choices(), *self._first_names()]
        quoted = quote_for_message(word.text)
        completions = [name for name in self._completions(word.text) if name in choices]
        if completions:
            problem = "ambiguous" if len(completions) > 1 else "incomplete"
            words = listed(completions)
            return UsageError(self._in_scope(f"{problem} command {quoted}, possible completions: {words}"))
        names = [*choices, *([PIPE] if self.can_pipe() else [])]
        close = difflib.get_close_matches(word.text[:_COMPARED_CHARACTERS], names, n=1)
        options = {name for name, entry in self.scope.choices().items() if entry.is_option}
        shown = [name for name in names if name not in options]
        expected = f"expected {listed(shown)}" if shown else "expected nothing more"
        hint = f" (did you mean {close[0]}?)" if close else ""
        if not hint and self.command is None and self._depth > 1 and word.text in entries(self.groups[0].model):
            hint = " (enter top first to leave this subshell)"
        if not hint and word.is_argument and " " in word.text:
            hint = " (each word of a command is an argument of its own: don't quote several together)"
        return UsageError(self._in_scope(f"{quoted} is not valid here: {expected}{hint}"))

    def _in_scope(self, message: str) -> str:
        """Prefix a message with the name of the scope, unless that is the root."""
        is_at_root = self.scope is self.groups[0] and len(self.groups) == 1
        return message if is_at_root else f"{self.scope.name}: {message}"


def find_help_request(groups: Sequence[Scope], words: Sequence[Word]) -> HelpRequest | None:
    """Return the request for help that the last word makes, None where it makes none.

    It does as `?` or `??`, or with one of them at its end, `fast?`, unless that is a value; and as `--help`. `groups`
    is where parsing begins, as in `Parser`.
    """
    if not words or words[-1].is_quoted:
        return None
    *before, last = words
    if last.text == HELP_OPTION and not any(word.is_pipe for word in before):
        return HelpRequest(before)
    prefix = last.text.rstrip(HELP)
    mark = last.text[len(prefix) :]
    if mark not in {HELP, VERBOSE_HELP}:
        return None
    if not last.is_operator:
        parser = Parser(groups)
        try:
            parser.feed_all(before)
        except UsageError:
            return None
        if parser.expected_value is not None:
            return None
    return HelpRequest(before, prefix, mark == VERBOSE_HELP)


@cache
def vocabulary(model: type[BaseModel]) -> frozenset[str]:
    """Return all words of the tree below a group: commands and fields."""
    below = [vocabulary(found) for entry in entries(model).values() if (found := entry.fixed_model) is not None]
    return frozenset(entries(model)).union(*below)


@cache
def secret_words(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of all secret fields below a group or of a command."""
    own = frozenset(entry.name for entry in entries(model).values() if entry.is_secret)
    below = (found for entry in entries(model).values() if (found := entry.fixed_model) is not None)
    return own.union(*map(secret_words, below))


def listed(names: Sequence[str]) -> str:
    """Return words for a message, the first ones where there are many."""
    return list_names(names, LISTED_WORDS)


def _load_pipes(command: type[BaseModel]) -> type[BaseModel]:
    """Import the model of pipe functions that a command's `PicleConfig.pipe` names, when it is first used."""
    module, _, name = command.PicleConfig.pipe.rpartition(".")  # type: ignore[attr-defined]
    model: type[BaseModel] = getattr(import_module(module), name)
    return model
