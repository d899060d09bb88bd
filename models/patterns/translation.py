r"""From patterns as `re` understands them to such that the package `regex` understands the same way.

Only what the two take differently is rewritten:

    \w \W \s \S \b \B    `regex` follows Unicode's definitions, `re` those of `str.isalnum` and `str.isspace`
    [[:alpha:]]          a class of POSIX, in `re` a set with [ in it and a ] behind it
    [^\d\D]              any character, in `re` none
    a{e<=1}              matches what is almost the same, in `re` these characters
    i and its forms      with letter case ignored, `re` takes the dotted and the dotless forms for the same

Patterns that would take long to compile are refused: `regex` writes a counted repeat out.
"""

from __future__ import annotations

import re
import threading
import warnings
from dataclasses import dataclass, field

DEPTH_MAX = 50
# Items of a pattern, each taken as often as it is repeated at least.
ITEMS_MAX = 10_000
WRITTEN_MAX_CHARACTERS = 20_000
# Each takes `re` some milliseconds when letter case is ignored.
WIDE_RANGES_MAX = 4
_WIDE_RANGE = re.compile(r"-(?:\\[UN]|[\U00010000-\U0010ffff])")

_WORD = r"\p{L}\p{N}_"
_SPACE = r"\s\x1c-\x1f"
# In a set no complement can be written, and `regex` forgets the ^ of [^\d\D]: they stand as the other categories.
_NO_WORD = r"\p{M}\p{S}\p{Z}\p{C}\p{Pd}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Po}\u203f\u2040\u2054\ufe33\ufe34\ufe4d-\ufe4f\uff3f"
_NO_SPACE = r"\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Cs}\p{Co}\p{Cn}\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
_NO_DIGIT = r"\p{L}\p{M}\p{Nl}\p{No}\p{P}\p{S}\p{Z}\p{C}"
_IN_ASCII_SET = {
    "[": r"\[",
    r"\W": r"\x00-/:-@\[-\^`{-\U0010ffff",
    r"\D": r"\x00-/:-\U0010ffff",
    r"\S": r"\x00-\x08\x0e-\x1f!-\U0010ffff",
}
_IN_SET = {r"\w": _WORD, r"\W": _NO_WORD, r"\s": _SPACE, r"\S": _NO_SPACE, r"\D": _NO_DIGIT, "[": r"\["}
# Before Python 3.14, \B doesn't match in an empty text.
_IN_A_TEXT = "" if re.search(r"\B", "") else r"(?!\A\Z)"
_OUTSIDE_ASCII = {"{": r"\{", r"\B": rf"(?:{_IN_A_TEXT}\B)"}
_OUTSIDE = {
    r"\w": f"[{_WORD}]",
    r"\W": f"[^{_WORD}]",
    r"\s": f"[{_SPACE}]",
    r"\S": f"[^{_SPACE}]",
    r"\b": f"(?<=[{_WORD}])(?![{_WORD}])|(?<![{_WORD}])(?=[{_WORD}])",
    r"\B": f"{_IN_A_TEXT}(?:(?<=[{_WORD}])(?=[{_WORD}])|(?<![{_WORD}])(?![{_WORD}]))",
}
_FORMS_OF_I = "Ii\u0130\u0131"
_BLANKS = " \t\n\r\f\v"

_ESCAPE = r"\\(?:N\{[^}]*\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|0[0-7]{0,2}|[1-3][0-7]{2}|[1-9][0-9]?|.)"
_TOKEN = re.compile(
    rf"""(?P<escape>{_ESCAPE})
    |(?P<set>\[\^?\]?(?:{_ESCAPE}|[^\]\\])*\])
    |(?P<comment>\(\?\#[^)]*\))
    |(?P<scope>\(\?(?P<on>[aiLmsux]*)(?:-(?P<off>[imsx]+))?(?P<end>[:)]))
    |(?P<group>\((?:\?(?:P<\w+>|P=\w+(?=\))|\(\w+\)|<?[=!]|>))?)
    |(?P<close>\))
    |(?P<repeat>\{{(?=[^}}])(?P<low>[0-9]*)(?P<to>,(?P<high>[0-9]*))?\}}|[*+?])
    |(?P<character>.)""",
    re.VERBOSE | re.DOTALL,
)
_IN_SET_TOKEN = re.compile(rf"{_ESCAPE}|.", re.DOTALL)
_warnings = threading.Lock()  # what is ignored is a matter of the whole process
_NUMBERED = re.compile(r"\\(?:[NxuU0]|[1-3][0-7]{2})")


class PatternError(ValueError):
    """A text is no pattern, or one that is too large; the message doesn't hold it."""


@dataclass
class _Group:
    """An open group: its flags, how many items it has so far, and how many of them the last one stands for."""

    flags: int
    items: int = 0
    last: int = 0

    def add(self, items: int) -> None:
        self.items += items
        self.last = items

    def repeat(self, low: int) -> None:
        self.add(self.last * max(0, low - 1))


@dataclass
class _Translation:
    """A pattern on its way."""

    open: list[_Group]
    written: list[str] = field(default_factory=list)

    def take(self, token: re.Match[str]) -> str:
        """Return what a token becomes."""
        text = token.group()
        inner = self.open[-1]
        if token["comment"] or (inner.flags & re.VERBOSE and text in _BLANKS):
            return text
        if token["scope"] or token["group"]:
            return self._opened(token)
        if token["close"]:
            return self._closed()
        if token["repeat"]:
            return self._repeated(token)
        inner.add(1)
        if token["set"]:
            return _set(text, inner.flags)
        return _character(text, inner.flags)

    def _opened(self, token: re.Match[str]) -> str:
        flags = self.open[-1].flags
        if token["end"] == ")":  # for the whole pattern, known already
            return token.group()
        for letter in token["on"] or "":
            flags = flags & ~re.ASCII if letter == "u" else flags | re.RegexFlag[letter.upper()]
        if (flags ^ self.open[0].flags) & re.ASCII:
            raise PatternError("(?a: and (?u: for a part are not supported, give the flag for the whole")
        for letter in token["off"] or "":
            flags &= ~re.RegexFlag[letter.upper()]
        self.open.append(_Group(flags))
        if len(self.open) > DEPTH_MAX:
            raise PatternError(f"groups nested deeper than {DEPTH_MAX}")
        return token.group()

    def _closed(self) -> str:
        group = self.open.pop()
        self.open[-1].add(max(1, group.items))
        return ")"

    def _repeated(self, token: re.Match[str]) -> str:
        text = token.group()
        if not text.startswith("{"):
            return text
        low = int(token["low"] or 0)
        self.open[-1].repeat(low)
        return f"{{{low},{token['high']}}}" if token["to"] else f"{{{low}}}"


def translate(text: str, flags: int) -> str:
    """Return a pattern for `regex` that means what `text`, which `re` accepts with these flags, means there.

    Raises:
        PatternError: it is too large.
    """
    translation = _Translation([_Group(flags)])
    position = 0
    while position < len(text):
        if translation.open[-1].flags & re.VERBOSE and text[position] == "#":
            position = text.find("\n", position) + 1 or len(text)
            translation.written.append("\n")
            continue
        token = _TOKEN.match(text, position)
        if token is None or (token["close"] and len(translation.open) == 1):
            raise PatternError("not supported here")
        translation.written.append(translation.take(token))
        position = token.end()
        if sum(group.items for group in translation.open) > ITEMS_MAX:
            raise PatternError(f"repeats make it longer than {ITEMS_MAX} items")
    written = "".join(translation.written)
    if len(written) > WRITTEN_MAX_CHARACTERS:
        raise PatternError("too many classes of characters")
    return written


def _character(text: str, flags: int) -> str:
    if text in _OUTSIDE and not flags & re.ASCII:
        return f"(?-i:{_OUTSIDE[text]})"
    if flags & re.IGNORECASE and not flags & re.ASCII and (text in _FORMS_OF_I or _NUMBERED.match(text)):
        return _set(f"[{text}]", flags)
    return _OUTSIDE_ASCII.get(text, text)


def _set(text: str, flags: int) -> str:
    start = "[^" if text.startswith("[^") else "["
    inner = text[len(start) : -1]
    tokens = ["\\]"] if inner.startswith("]") else []
    tokens += _IN_SET_TOKEN.findall(inner, len(tokens))
    if flags & re.ASCII:
        return f"{start}{''.join(_IN_ASCII_SET.get(token, token) for token in tokens)}]"
    written = "".join(_IN_SET.get(token, token) for token in tokens)
    if flags & re.IGNORECASE and (check(text, re.IGNORECASE).match("i") is None) == (start == "[^"):
        # In front of a dash, that dash would become a range's.
        written = _FORMS_OF_I + (f"\\{written}" if written.startswith("-") else written)
    return f"{start}{written}]"


def check(text: str, flags: int = 0) -> re.Pattern[str]:
    """Return what `re` makes of a pattern.

    Raises:
        PatternError: nothing.
    """
    if len(_WIDE_RANGE.findall(text)) > WIDE_RANGES_MAX:
        raise PatternError(f"more than {WIDE_RANGES_MAX} ranges of characters beyond U+FFFF")
    try:
        # What looks like a set in a set is one character in `re`, which warns that this may change.
        with _warnings, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(text, flags)
    except RecursionError:
        raise PatternError("nested too deep") from None
    except (re.error, OverflowError, ValueError) as error:
        raise PatternError(str(error)[:120]) from None
