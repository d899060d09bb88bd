r"""Check patterns before they are compiled: syntax, size, and constructs that mean something else to `regex`.

Python's `re` decides what is a pattern. Of what it accepts, the package `regex` reads differently, and is refused:

    a{e<=1}          a fuzzy match, in `re` these characters
    [[:alpha:]]      a POSIX class, in `re` a set of characters and a bracket
    [^\s\S]          any character, in `re` none
    (?a:…) (?u:…)    a part with other definitions of \w, \d and \s, which `regex` has for whole patterns only

Four differences stay. \w and \b follow Unicode's definition of words: combining marks are in words, numbers such as ²
are not. \s doesn't match U+001C to U+001F. With letter case ignored, the dotless U+0131 is not a form of i, nor the
dotted U+0130 one of I. \B matches in an empty text, as it does from Python 3.14 on.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator

MAX_DEPTH = 50
# Items of a pattern, each counted as often as it is repeated at least: `regex` writes repeats out.
MAX_ITEMS = 10_000
# Each takes `re` some milliseconds when letter case is ignored.
MAX_WIDE_RANGES = 4

_WIDE_RANGE = re.compile(r"-(?:\\[UN]|[\U00010000-\U0010ffff])")
_ESCAPE = r"\\(?:N\{[^}]*\}|.)"
_TOKEN = rf"""(?P<escape>{_ESCAPE})
    |(?P<set>\[\^?\]?(?:{_ESCAPE}|[^\]\\])*\])
    |(?P<fuzzy>\{{[\d\s<=]*[deis])
    |(?P<repeat>\{{(?=[^}}])(?P<low>[0-9]*)(?:,[0-9]*)?\}}|[*+?])
    |(?P<part>\(\?[imsx]*[aLux][aimLsux]*(?:-[imsx]+)?:|\(\?[ims]*-[ims]*x[imsx]*:)
    |(?P<ignored>\(\?\#[^)]*\)|\(\?[aimLsux]+\)|BLANK)
    |(?P<reference>\(\?P=\w+\))
    |(?P<open>\((?:\?(?:P<\w+>|\(\w+\)|<?[=!]|[>:]|[ims-]+:))?)
    |(?P<close>\))
    |."""
_TOKENS = re.compile(_TOKEN.replace("|BLANK", ""), re.VERBOSE | re.DOTALL)
_VERBOSE_TOKENS = re.compile(_TOKEN.replace("BLANK", r"[\ \t\n\r\f\v]+|\#[^\n]*"), re.VERBOSE | re.DOTALL)
_POSIX_CLASS = re.compile(r".+\[:.*:\]", re.DOTALL)
_COMPLEMENTS = ({r"\d", r"\D"}, {r"\s", r"\S"}, {r"\w", r"\W"})
_warnings = threading.Lock()  # which warnings are ignored is a setting of the process


class PatternError(ValueError):
    """A text is not a pattern, or not one that can be run with a time limit; the message doesn't quote it."""


def parse(text: str, flags: int = 0) -> re.Pattern[str]:
    """Compile a text with `re` and return the pattern.

    Raises:
        PatternError: the text is not a valid pattern, or is too expensive to compile.
    """
    if len(_WIDE_RANGE.findall(text)) > MAX_WIDE_RANGES:
        raise PatternError(f"more than {MAX_WIDE_RANGES} ranges of characters beyond U+FFFF")
    try:
        # What looks like a set in a set is one character to `re`, which warns that this may change.
        with _warnings, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(text, flags)
    except RecursionError:
        raise PatternError("nested too deeply") from None
    except (re.error, OverflowError, ValueError) as error:
        raise PatternError(str(error)[:120]) from None


def check_pattern(text: str, flags: int) -> None:
    """Refuse a pattern that `re` accepts, with these flags, where `regex` reads it differently or needs long for it.

    Raises:
        PatternError: names the construct or the limit.
    """
    tokens = list((_VERBOSE_TOKENS if flags & re.VERBOSE else _TOKENS).finditer(text))
    for token in tokens:
        _refuse_foreign(token)
    for depth, items in _sizes(tokens):
        if depth > MAX_DEPTH:
            raise PatternError(f"groups nested deeper than {MAX_DEPTH}")
        if items > MAX_ITEMS:
            raise PatternError(f"repeats make it longer than {MAX_ITEMS} items")


def _refuse_foreign(token: re.Match[str]) -> None:
    text = token.group()
    if token["fuzzy"]:
        raise PatternError(f"{text} may start a fuzzy match: write \\{{ for the brace")
    if token["part"]:
        raise PatternError("the flags a, u and x are not supported for a part: set them for the whole pattern")
    if not token["set"]:
        return
    if _POSIX_CLASS.match(text):
        raise PatternError("[: may start a POSIX class: write \\[ for the bracket")
    if text.startswith("[^") and any(pair <= set(re.findall(_ESCAPE, text)) for pair in _COMPLEMENTS):
        raise PatternError("a set without any character, such as [^\\s\\S], is not supported: write (?!)")


def _sizes(tokens: list[re.Match[str]]) -> Iterator[tuple[int, int]]:
    """Yield after each token how many groups are open, and how many items there are with repeats written out."""
    groups = [0]
    last = 0  # items of what a repeat would repeat
    for token in tokens:
        if token["ignored"]:
            continue
        if token["open"]:
            groups.append(0)
            last = 0
        elif token["close"]:
            last = max(1, groups.pop())
        elif token["repeat"]:
            last *= max(0, int(token["low"] or 0) - 1)
        else:
            last = 1
        groups[-1] += last
        yield len(groups), sum(groups)
