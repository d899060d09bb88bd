r"""Split lines into words and quote words, by the rules of POSIX shells.

Single quotes keep everything, double quotes keep everything but `\"` and `\\`, a backslash keeps the next character.
An unquoted `|` is a word of its own, blanks around it or not. Nothing else is special: no variables, no globs.

What lines are copied with is recognized: a prompt before the line is skipped, and blanks and quotes that only look like
those of a shell are refused by name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...models.errors import UsageError

ASK = "-"
FILE_MARK = "@"
TERMINAL = "load-terminal"
PIPE = "|"
HELP = "?"
VERBOSE_HELP = "??"
HELP_OPTION = "--help"
OPTION_MARK = "--"
COMMENT_MARKS = ("#", "!")

_BLANKS = " \t\r\n\f\v"
_PLAIN = re.compile(r"[^\s'\"\\|]+")
_NEEDS_NO_QUOTES = re.compile(r"[^\s'\"\\|?#!]+")
_QUOTES = "'\""
_PROMPT = re.compile(r"[ \t]*nf(\[[A-Za-z0-9_.-]+\])?#")
_ODD_BLANK = re.compile(r"[\x85\xa0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff]")
_ODD_QUOTES = "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\xab\xbb\xb4`"
_OPERATORS = {PIPE, HELP, VERBOSE_HELP}
_WORD_ENDS = _BLANKS + PIPE


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a line.

    `text` is its value, quotes resolved; `start` and `end` are its bounds in the line, quotes included; `is_quoted`:
    some of it was quoted. `is_argument`: it is an argument of the program, which may have been quoted. `is_pipe`: it is
    a `|` in a place where a command or a field is valid; `is_operator`: an unquoted `|`, `?` or `??` of a line, which
    is never a value.
    """

    text: str
    start: int = 0
    end: int = 0
    is_quoted: bool = False
    is_argument: bool = False
    is_pipe: bool = field(init=False, compare=False, repr=False)
    is_operator: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        is_bare = self.text in _OPERATORS and not self.is_quoted
        object.__setattr__(self, "is_pipe", is_bare and self.text == PIPE)
        object.__setattr__(self, "is_operator", is_bare and not self.is_argument)

    @property
    def is_help(self) -> bool:
        """Whether it asks for help."""
        return self.text in {HELP, VERBOSE_HELP} and not self.is_quoted

    @property
    def asks_for_value(self) -> bool:
        """Whether it is a `-`, in place of a secret that is read from elsewhere."""
        return self.text == ASK and not self.is_quoted


@dataclass(frozen=True, slots=True)
class Tail:
    """The last word of a line that is being typed, empty after a blank, and the quote left open: mark and position.

    `open_quote` is a backslash where the line ends in one, and empty where no quote is open.
    """

    word: Word
    open_quote: str = ""
    open_at: int = 0


def split(line: str) -> list[Word]:
    """Return the words of a line.

    Raises:
        UsageError: a quote isn't closed, the line ends in a backslash, or an unquoted word has another blank than a
            space or tab, or begins or ends with another quote than `'` and `"`.
    """
    words, tail = split_typed(line)
    if tail.open_quote == "\\":
        raise UsageError("the line ends in a backslash: double it or put it in single quotes to use it as a character")
    if tail.open_quote:
        raise UsageError(
            f"unclosed quote {tail.open_quote} in column {tail.open_at + 1}: "
            "close it, or put a backslash before it to use it as a character"
        )
    for word in [*words, tail.word]:
        _check_copied(word, line)
    return [*words, tail.word] if tail.word.text or tail.word.is_quoted else words


def split_typed(line: str) -> tuple[list[Word], Tail]:
    """Return the finished words of a line and its last, unfinished one; never fails."""
    words: list[Word] = []
    prompt = _PROMPT.match(line)
    position = 0 if prompt is None else prompt.end()
    while True:
        while position < len(line) and line[position] in _BLANKS:
            position += 1
        if position < len(line) and line[position] == PIPE:
            words.append(Word(PIPE, position, position + 1))
            position += 1
            continue
        tail = _read_word(line, position)
        position = tail.word.end
        if position >= len(line):
            return words, tail
        words.append(tail.word)


def arguments(words: Iterable[str]) -> list[Word]:
    """Return the arguments of a program as words, none of them split or unquoted; a lone `|` is the pipe."""
    return [Word(text, is_argument=True) for text in words]


def is_comment(line: str) -> bool:
    """Whether the line is blank or a comment, which begins with `#` or `!`, behind a prompt too."""
    text = _PROMPT.sub("", line, count=1).strip(_BLANKS) if _PROMPT.match(line) else line.strip(_BLANKS)
    return not text or text.startswith(COMMENT_MARKS)


def quote(text: str) -> str:
    """Return a word that `split` turns into `text` again, quoted only where it has to be."""
    if text and text != ASK and _NEEDS_NO_QUOTES.fullmatch(text) and not _is_refused(text):
        return text
    if "'" not in text:
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_refused(text: str) -> bool:
    """Whether an unquoted word would be refused in a command, or in any line."""
    looks_copied = text[0] in _ODD_QUOTES or text[-1] in _ODD_QUOTES or _ODD_BLANK.search(text) is not None
    return looks_copied or text.startswith(OPTION_MARK)


def _check_copied(word: Word, line: str) -> None:
    """Refuse an unquoted word with a character that looks like a blank or a quote, as web pages and editors have it."""
    text = line[word.start : word.end]
    if word.is_quoted or not text:
        return
    blank = _ODD_BLANK.search(text)
    if blank is not None:
        raise UsageError(
            f"{_named(line, word.start + blank.start())} is no blank here: type a space, or quote the word"
        )
    for position in (word.start, word.end - 1):
        if line[position] in _ODD_QUOTES:
            raise UsageError(f"{_named(line, position)} is no quote here: type \" or ', or quote the word")


def _named(line: str, position: int) -> str:
    character = line[position]
    name = unicodedata.name(character, "no name")
    return f"column {position + 1}: U+{ord(character):04X} ({name})"


def _read_word(line: str, start: int) -> Tail:
    """Return the word that begins at `start`."""
    parts: list[str] = []
    position, is_quoted, open_at = start, False, None
    while position < len(line) and line[position] not in _WORD_ENDS:
        character = line[position]
        is_closed = True
        if character in _QUOTES:
            text, end, is_closed = _read_quoted(line, position)
        elif character == "\\":
            text, end = line[position + 1 : position + 2], min(position + 2, len(line))
            is_closed = bool(text)
        else:
            plain = _PLAIN.match(line, position)
            end = plain.end() if plain else position + 1
            text = line[position:end]
        is_quoted |= character in _QUOTES or character == "\\"
        open_at = None if is_closed else position
        parts.append(text)
        position = end
    return Tail(
        Word("".join(parts), start, position, is_quoted), "" if open_at is None else line[open_at], open_at or 0
    )


def _read_quoted(line: str, start: int) -> tuple[str, int, bool]:
    """Return the text from an opening quote on, the position behind it, and whether the quote was closed."""
    mark = line[start]
    if mark == "'":
        end = line.find(mark, start + 1)
        return (line[start + 1 :], len(line), False) if end < 0 else (line[start + 1 : end], end + 1, True)
    parts: list[str] = []
    position = start + 1
    while position < len(line):
        character = line[position]
        if character == mark:
            return "".join(parts), position + 1, True
        if character == "\\" and line[position + 1 : position + 2] in {mark, "\\"}:
            position += 1
            character = line[position]
        parts.append(character)
        position += 1
    return "".join(parts), position, False
