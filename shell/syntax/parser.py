"""Words to a command: which group or command they lead to, which field each value belongs to, which pipes follow.

One parser serves running, help, completion and history alike, so that they can't disagree. After a field that takes a
value the next word is the value, whatever it looks like.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

from pydantic import BaseModel

from ...models.commands.base import Command, CommandGroup, Entry, entries
from ...models.errors import UsageError
from ..text import quote_for_message
from .lexer import HELP, PIPE, VERBOSE_HELP, Word

_SWITCH_VALUES = {"true", "false"}


@dataclass
class Scope:
    """A place where words are chosen from: a group, a command's fields, the pipe functions, or the options of one.

    `values` has the values by the fields' names in Python. `is_single`: one choice ends it.
    """

    name: str
    model: type[BaseModel]
    values: dict[str, str] = field(default_factory=dict)
    is_single: bool = False

    def choices(self) -> dict[str, Entry]:
        """Return what can still be said here, by the word to type; values without a name left out."""
        if self.is_single and self.values:
            return {}
        return {
            name: entry
            for name, entry in entries(self.model).items()
            if entry.key not in self.values and not entry.is_positional
        }

    def positional(self) -> Entry | None:
        """Return the field that a word which is no name is the value of, if there is one left."""
        waiting = (entry for entry in entries(self.model).values() if entry.is_positional)
        return next((entry for entry in waiting if entry.key not in self.values), None)


@dataclass(frozen=True)
class Stage:
    """A pipe function to run: its field's name in `Pipes`, its options' model (None: the value itself), its values."""

    name: str
    key: str
    options: type[BaseModel] | None
    values: dict[str, str]


class Parser:
    """Reads words one after the other; between words it tells what may come next.

    `groups` are the groups passed so far, outermost first; `expected_value` is the field whose value must come next;
    `secrets` maps positions of words that are values of secret fields to the fields' names in Python.
    """

    def __init__(self, groups: Sequence[Scope]) -> None:
        self.groups = [Scope(group.name, group.model) for group in groups]
        self._depth = len(self.groups)
        self.command: Scope | None = None
        self.scope = self.groups[-1]
        self.expected_value: Entry | None = None
        self.secrets: dict[int, str] = {}
        self._stages: list[tuple[Scope, Scope | None]] = []
        self._switch: Entry | None = None
        self._count = 0

    def feed_all(self, words: Iterable[Word]) -> None:
        """Read several words.

        Raises:
            UsageError: a word can't stand where it does; the message names it and what could.
        """
        for word in words:
            self.feed(word)

    def feed(self, word: Word) -> None:
        """Read one word; raises as `read` does and is then where it was before."""
        switch, self._switch = self._switch, None
        if self.expected_value is not None:
            self._feed_value(self.expected_value, word)
        elif switch is not None and word.text in _SWITCH_VALUES:
            self.scope.values[switch.key] = word.text
        elif word.is_pipe:
            self._open_pipe()
        else:
            self._feed_name(word)
        self._count += 1

    def finish(self) -> None:
        """Check that nothing is missing at the end.

        Raises:
            UsageError: a value or a pipe function is missing.
        """
        if self.expected_value is not None:
            raise UsageError(self._in_scope(f"{self.expected_value.name}: a value must follow"))
        if self._stages and not self._stages[-1][0].values:
            raise UsageError(f"a pipe function must follow the |: {_listed(self.scope.choices())}")

    def stages(self) -> list[Stage]:
        """Return the pipe functions read, in order."""
        found = []
        for menu, options in self._stages:
            key, value = next(iter(menu.values.items()))
            entry = next(entry for entry in entries(menu.model).values() if entry.key == key)
            given = {key: value} if options is None else options.values
            found.append(Stage(entry.name, key, entry.model, given))
        return found

    def has_entered(self) -> bool:
        """Whether the words so far lead to a group below the one where reading began, and to no command."""
        return self.command is None and len(self.groups) > self._depth

    def can_pipe(self) -> bool:
        """Whether a `|` may come next."""
        if self.expected_value is not None or self.command is None:
            return False
        return not self._stages or bool(self._stages[-1][0].values)

    def _feed_value(self, entry: Entry, word: Word) -> None:
        if word.is_operator:
            what = "quote it to have it as the value"
            raise UsageError(self._in_scope(f"{entry.name}: a value must follow, not {word.text}: {what}"))
        self.scope.values[entry.key] = word.text
        self.expected_value = None
        if entry.is_secret:
            self.secrets[self._count] = entry.key

    def _feed_name(self, word: Word) -> None:
        entry = entries(self.scope.model).get(word.text)
        if entry is None or entry.is_positional:
            entry = self.scope.positional()
            if entry is None or word.is_operator:
                raise self._unknown(word)
            self.scope.values[entry.key] = word.text
        elif entry.key in self.scope.values:
            raise UsageError(self._in_scope(f"{entry.name} is given twice: say it once"))
        elif entry.name not in self.scope.choices():
            raise self._unknown(word)
        elif entry.model is not None:
            self._enter(entry, entry.model)
        elif entry.is_switch:
            self.scope.values[entry.key] = "true"
            self._switch = entry
        else:
            self.expected_value = entry

    def _enter(self, entry: Entry, model: type[BaseModel]) -> None:
        below = Scope(entry.name, model)
        if issubclass(model, CommandGroup):
            self.groups.append(below)
        elif issubclass(model, Command):
            self.command = below
        else:
            menu = self.scope
            menu.values[entry.key] = ""
            self._stages[-1] = (menu, below)
        self.scope = below

    def _open_pipe(self) -> None:
        if self.command is None:
            raise UsageError(self._in_scope(f"a command must come before the |: {_listed(self.scope.choices())}"))
        if not self.can_pipe():
            raise UsageError(f"a pipe function must follow the |: {_listed(self.scope.choices())}")
        self.scope = Scope(PIPE, _pipes(self.command.model), is_single=True)
        self._stages.append((self.scope, None))

    def _unknown(self, word: Word) -> UsageError:
        choices = self.scope.choices()
        completions = [name for name in choices if name.startswith(word.text)]
        if completions and word.text:
            return UsageError(
                self._in_scope(
                    f"incomplete command {quote_for_message(word.text)}, possible completions: {_listed(completions)}"
                )
            )
        names = [*choices, *([PIPE] if self.can_pipe() else [])]
        expected = f"expected {_listed(names)}" if names else "expected nothing more"
        close = difflib.get_close_matches(word.text, names, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        if not hint and self.command is None and self._depth > 1 and word.text in entries(self.groups[0].model):
            hint = " (go to the top first: top)"
        return UsageError(self._in_scope(f"{quote_for_message(word.text)} can't stand here: {expected}{hint}"))

    def _in_scope(self, text: str) -> str:
        """Put the name of the place before a message, where it has one."""
        at_root = self.scope is self.groups[0] and len(self.groups) == 1
        return text if at_root else f"{self.scope.name}: {text}"


def split_help(groups: Sequence[Scope], words: list[Word]) -> tuple[list[Word], str, str] | None:
    """Return the words before a request for help, the beginning of the name asked for, and the mark; None if it isn't.

    A request is a last word `?` or `??`, or one of them at the end of the last word, `fast?`, unless that is a value.
    `groups` is where reading begins, as in `Parser`.
    """
    if not words or words[-1].is_quoted:
        return None
    before, last = words[:-1], words[-1]
    if last.is_operator and last.is_help:
        return before, "", last.text
    name = last.text.rstrip(HELP)
    mark = last.text[len(name) :]
    if mark not in {HELP, VERBOSE_HELP}:
        return None
    parser = Parser(groups)
    try:
        parser.feed_all(before)
    except UsageError:
        return None
    return None if parser.expected_value else (before, name, mark)


@cache
def vocabulary(model: type[BaseModel]) -> frozenset[str]:
    """Return every word of the tree below a group: commands and fields."""
    below = [vocabulary(entry.model) for entry in entries(model).values() if entry.model is not None]
    return frozenset(entries(model)).union(*below)


@cache
def secret_words(model: type[BaseModel]) -> frozenset[str]:
    """Return the fields below a group, or of a command, whose values must not be shown."""
    own = frozenset(entry.name for entry in entries(model).values() if entry.is_secret)
    return own.union(*(secret_words(entry.model) for entry in entries(model).values() if entry.model is not None))


def _pipes(command: type[BaseModel]) -> type[BaseModel]:
    """Load the model of pipe functions that a command's `PicleConfig.pipe` names, as picle does: when it is used."""
    module, _, name = command.PicleConfig.pipe.rpartition(".")  # type: ignore[attr-defined]
    model: type[BaseModel] = getattr(import_module(module), name)
    return model


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
