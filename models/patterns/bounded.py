"""Regular expressions of Python's `re`, run with a time limit.

Patterns come from an inventory, or from other services of a fabric, and run on what clients send. `re` can't be stopped
once it backtracks endlessly, and holds the interpreter's lock meanwhile; the package `regex` stops at a time limit and
releases the lock. What it reads differently is refused, see `syntax`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar

import regex

from .syntax import PatternError, check_pattern, parse

__all__ = ["Budget", "BudgetExceeded", "Pattern", "PatternError", "Template", "compile_pattern", "compile_template"]

MAX_PATTERN_CHARACTERS = 2_000
# Characters that all replacements under one budget may add to texts.
MAX_GROWTH_CHARACTERS = 16_000_000
# Most searches in a short text take microseconds; releasing the interpreter's lock would take longer.
_SHORT_CHARACTERS = 10_000
_QUICK_SECONDS = 0.005
_CACHED_PATTERNS = 4_096

_FIRST_MARK = 0xF0000  # private use, plane 15: stands for the whole match, the next for group 1, and so on

_T = TypeVar("_T")


class BudgetExceeded(Exception):  # noqa: N818  the name says it already
    """A search or replacement ran out of time or memory; `str(error)` completes a sentence: `took longer than 1 s`."""


class Budget:
    """Limit of a number of searches and replacements together: a deadline, and how much texts may grow.

    Args:
        seconds: time from now to the deadline.
        growth: characters that replacements may add.
        clock: monotonic seconds.
    """

    def __init__(
        self, seconds: float, *, growth: int = MAX_GROWTH_CHARACTERS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._growth = growth
        self._clock = clock
        self._deadline = clock() + seconds

    def seconds_left(self) -> float:
        """Return the seconds until the deadline, more than 0.

        Raises:
            BudgetExceeded: the deadline has passed.
        """
        left = self._deadline - self._clock()
        if left <= 0:
            raise self.timeout_error()
        return left

    def timeout_error(self) -> BudgetExceeded:
        """Return the error for a passed deadline."""
        return BudgetExceeded(f"took longer than {self._seconds:g} s")

    def grow(self, characters: int) -> None:
        """Count a text's growth in characters; a negative number counts as 0.

        Raises:
            BudgetExceeded: the growth of all texts together exceeds the limit.
        """
        self._growth -= max(0, characters)
        if self._growth < 0:
            raise BudgetExceeded("made it too large")


@dataclass(frozen=True)
class Template:
    """Replacement for a match: literal texts, and numbers of groups whose text is inserted."""

    parts: tuple[str | int, ...]

    def expand(self, groups: Sequence[str | None], budget: Budget) -> str:
        """Return the text for a match; `groups` starts with the whole match and has None for groups without one."""
        texts = [part if isinstance(part, str) else groups[part] or "" for part in self.parts]
        budget.grow(sum(map(len, texts)) - len(groups[0] or ""))
        return "".join(texts)


class Pattern:
    """A compiled pattern, made by `compile_pattern`; thread-safe."""

    def __init__(self, compiled: regex.Pattern[str]) -> None:
        self._compiled = compiled

    def search(self, text: str, budget: Budget) -> bool:
        """Return whether the pattern matches anywhere in `text`.

        Raises:
            BudgetExceeded: the search takes too long or too much memory.
        """
        return _run(partial(self._compiled.search, text), text, budget) is not None

    def replace(self, template: Template, text: str, budget: Budget) -> str:
        """Return `text` with all matches replaced, as `re.sub` does.

        Raises:
            BudgetExceeded: this takes too long or too much memory, or the text grows too large.
        """

        def expand(match: regex.Match[str]) -> str:
            budget.seconds_left()
            return template.expand((match.group(), *match.groups()), budget)

        return _run(partial(self._compiled.sub, expand, text), text, budget)


def _run(work: Callable[..., _T], text: str, budget: Budget) -> _T:
    """Return what `work` returns within the budget's time; a long run doesn't hold the interpreter's lock."""
    try:
        if len(text) <= _SHORT_CHARACTERS:
            with contextlib.suppress(TimeoutError):
                return work(timeout=min(_QUICK_SECONDS, budget.seconds_left()), concurrent=False)
        return work(timeout=budget.seconds_left(), concurrent=True)
    except TimeoutError:
        raise budget.timeout_error() from None
    except (MemoryError, RuntimeError):
        raise BudgetExceeded("took too much memory") from None


@lru_cache(_CACHED_PATTERNS)
def compile_pattern(text: str) -> Pattern:
    """Return the pattern for `text`, in the syntax of `re`; takes some milliseconds at most.

    Raises:
        PatternError: it is not valid, too large, or uses what is not supported; the message doesn't quote it.
    """
    if len(text) > MAX_PATTERN_CHARACTERS:
        raise PatternError(f"longer than {MAX_PATTERN_CHARACTERS} characters")
    check_pattern(text, parse(text).flags)
    try:
        compiled = regex.compile(text, regex.VERSION0, cache_pattern=False)
    except (regex.error, RecursionError, MemoryError, OverflowError, ValueError) as error:
        raise PatternError(f"not supported: {str(error)[:120]}") from None
    return Pattern(compiled)


def compile_template(pattern: str, template: str) -> Template:
    """Return the template for replacing `pattern`'s matches, in the syntax of `re.sub`.

    Raises:
        PatternError: it is not valid, or names a group that the pattern doesn't have.
    """
    if len(template) > MAX_PATTERN_CHARACTERS:
        raise PatternError(f"longer than {MAX_PATTERN_CHARACTERS} characters")
    checked = parse(pattern)
    # Let `re.sub` expand the template with a pattern that has the same groups, each matching one mark.
    marks = [chr(_FIRST_MARK + number) for number in range(checked.groups + 1)]
    if any(ord(character) >= _FIRST_MARK for character in template):
        raise PatternError("characters from U+F0000 on are not supported")
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
