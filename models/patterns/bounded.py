"""Regular expressions that end: they mean what Python's `re` has them mean, and give up when their time is over.

Patterns come from an inventory, or from other services in a fabric, and run on what strangers send. `re` can't be
stopped once it backtracks without end, and holds the interpreter's lock meanwhile; the package `regex` gives up after a
time and lets go of the lock. Where it would understand a pattern in its own way, the pattern is rewritten.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import regex

from .translation import PatternError, check, translate

__all__ = ["Budget", "OverBudgetError", "Pattern", "PatternError", "Template", "compile_pattern", "compile_template"]

PATTERN_MAX_CHARACTERS = 2_000
# What replacements may add to texts, in characters, all of a budget together.
GROWTH_MAX_CHARACTERS = 16_000_000
# A short text is mostly done with in microseconds: handing the interpreter's lock over would take longer.
_SHORT_CHARACTERS = 10_000
_QUICK_SECONDS = 0.005
_CACHED_PATTERNS = 4_096

_FIRST_MARK = 0xF0000  # private use, plane 15

_T = TypeVar("_T")


class OverBudgetError(Exception):
    """Takes too long or too much memory; `str(error)` completes a sentence: `took longer than 1 s`."""


class Budget:
    """What a number of searches and replacements may take together: a deadline, and how much texts may grow.

    Args:
        seconds: the time from now on.
        growth: characters that replacements may add.
        clock: seconds that never go back.
    """

    def __init__(
        self, seconds: float, *, growth: int = GROWTH_MAX_CHARACTERS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._growth = growth
        self._clock = clock
        self._deadline = clock() + seconds

    def seconds_left(self) -> float:
        """Return the time that is left, more than 0.

        Raises:
            OverBudgetError: there is none.
        """
        left = self._deadline - self._clock()
        if left <= 0:
            raise self.out_of_time()
        return left

    def out_of_time(self) -> OverBudgetError:
        """Return the error that says so."""
        return OverBudgetError(f"took longer than {self._seconds:g} s")

    def grow(self, characters: int) -> None:
        """Take note that a text grows by that many characters; fewer than 0 count as 0.

        Raises:
            OverBudgetError: all together have grown too much.
        """
        self._growth -= max(0, characters)
        if self._growth < 0:
            raise OverBudgetError("made it too large")


@dataclass(frozen=True)
class Template:
    """What stands in place of a match: texts, and numbers of groups whose text is put there."""

    parts: tuple[str | int, ...]

    def expand(self, groups: Sequence[str | None], budget: Budget) -> str:
        """Return the text for a match; `groups` has the whole match first, None for a group that took no part."""
        texts = [part if isinstance(part, str) else groups[part] or "" for part in self.parts]
        budget.grow(sum(map(len, texts)) - len(groups[0] or ""))
        return "".join(texts)


class Pattern:
    """A compiled pattern. All threads may use one at the same time; made by `compile_pattern`."""

    def __init__(self, compiled: regex.Pattern[str]) -> None:
        self._compiled = compiled

    def is_in(self, text: str, budget: Budget) -> bool:
        """Whether the pattern matches anywhere in `text`.

        Raises:
            OverBudgetError: that takes too long, or more memory than there is.
        """

        def search(seconds: float, concurrent: bool) -> bool:
            return self._compiled.search(text, timeout=seconds, concurrent=concurrent) is not None

        return _run(search, text, budget)

    def replace(self, template: Template, text: str, budget: Budget) -> str:
        """Return `text` with all matches replaced, as `re.sub` does.

        Raises:
            OverBudgetError: that takes too long, or more memory than there is, or the text grows too large.
        """

        def expand(match: regex.Match[str]) -> str:
            budget.seconds_left()
            return template.expand((match.group(), *match.groups()), budget)

        def substitute(seconds: float, concurrent: bool) -> str:
            return self._compiled.sub(expand, text, timeout=seconds, concurrent=concurrent)

        return _run(substitute, text, budget)


def _run(work: Callable[[float, bool], _T], text: str, budget: Budget) -> _T:
    """Return what `work` does within seconds and, or not, without the interpreter's lock."""
    try:
        if len(text) <= _SHORT_CHARACTERS:
            with contextlib.suppress(TimeoutError):
                return work(min(_QUICK_SECONDS, budget.seconds_left()), False)
        return work(budget.seconds_left(), True)
    except TimeoutError:
        raise budget.out_of_time() from None
    except (MemoryError, RuntimeError):
        raise OverBudgetError("took too much memory") from None


@lru_cache(_CACHED_PATTERNS)
def compile_pattern(text: str) -> Pattern:
    """Return the pattern that `re` would make of `text`; that takes some milliseconds at most.

    Raises:
        PatternError: it is none, or too large; the message doesn't hold it.
    """
    if len(text) > PATTERN_MAX_CHARACTERS:
        raise PatternError(f"longer than {PATTERN_MAX_CHARACTERS} characters")
    checked = check(text)
    translated = translate(text, checked.flags)
    try:
        compiled = regex.compile(translated, regex.VERSION0, cache_pattern=False)
    except (regex.error, RecursionError, MemoryError, OverflowError, ValueError) as error:
        raise PatternError(f"not supported here: {str(error)[:120]}") from None
    return Pattern(compiled)


def compile_template(pattern: str, template: str) -> Template:
    """Return the template for replacements of `pattern`'s matches that `re` would make of `template`.

    Raises:
        PatternError: it is none, or names a group that the pattern doesn't have.
    """
    if len(template) > PATTERN_MAX_CHARACTERS:
        raise PatternError(f"longer than {PATTERN_MAX_CHARACTERS} characters")
    checked = check(pattern)
    # `re` itself puts marks in place of the groups: a pattern with the same groups, each of which matches its mark.
    marks = [chr(_FIRST_MARK + number) for number in range(checked.groups + 1)]
    if any(ord(character) >= _FIRST_MARK for character in template):
        raise PatternError("characters from U+F0000 on can't be used")
    names = {number: name for name, number in checked.groupindex.items()}
    groups = [f"(?P<{names[number]}>{mark})" if number in names else f"({mark})" for number, mark in enumerate(marks)]
    try:
        expanded = re.sub(marks[0] + "".join(groups[1:]), template, "".join(marks))
    except (re.error, IndexError) as error:
        raise PatternError(str(error)[:120]) from None
    whole = "".join(marks)
    parts = re.split(f"({whole}|[{marks[0]}-{marks[-1]}])", expanded)
    return Template(
        tuple(
            part if number % 2 == 0 else 0 if part == whole else ord(part) - _FIRST_MARK
            for number, part in enumerate(parts)
            if part
        )
    )
