"""The history file: lines typed at the prompt, kept across runs, their secrets masked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Container, Iterable, Sequence
from pathlib import Path

from ...models.commands.base import JobArguments
from ...models.commands.schemas.documents import is_secret_name
from ...models.environment.private_files import open_private, write_private
from ...models.errors import NfcliError, UsageError
from ...models.inventory.masking import MASK
from ...models.inventory.schema import SERVICE
from ..syntax.lexer import ASK, HELP, PIPE, VERBOSE_HELP, Word, is_comment, split_typed
from ..syntax.parser import Parser, Scope, secret_words, vocabulary
from .shell_words import SHELL_WORDS

KEPT_LINES = 1000
_JSON_KEY = re.compile(r'"([^"\\]{1,200})"\s*:')
_FILTERS = frozenset({"include", "exclude"})
_LIKE_A_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")
# Letters and digits without the dots and dashes that names have, or a UUID.
_RANDOM = re.compile(
    r"(?=.*[0-9])(?=.*[A-Za-z])([A-Za-z0-9_~+/]{16,}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})=*"
)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class HistoryFile:
    """A history file of mode 0600, one line each, oldest first; several shells may append to it. None: no file.

    `lines` are those of earlier runs and of this one; `problem` is why the file cannot be used, None while it can.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.problem: str | None = None
        self.lines: list[str] = []
        if path is not None:
            self._load(path)

    def append(self, line: str) -> None:
        """Add a line without secrets, unless it repeats the last one."""
        if self.lines and self.lines[-1] == line:
            return
        self.lines.append(line)
        if self._path is None or self.problem is not None:
            return
        try:
            with open_private(self._path, "a") as stream:
                stream.write(f"{line}\n")
        except (OSError, NfcliError) as error:
            self.problem = f"history is not saved: {error}"

    def _load(self, path: Path) -> None:
        try:
            with open_private(path, "rb") as stream:
                lines = stream.read().decode("utf-8", "replace").splitlines()
            self.lines = [line for line in lines if line.strip()][-KEPT_LINES:]
            if len(lines) > 2 * KEPT_LINES:
                write_private(path, "".join(f"{line}\n" for line in self.lines).encode())
        except FileNotFoundError:
            pass
        except (OSError, NfcliError) as error:
            self.problem = f"history is not saved: {error}"


def mask_line(line: str, location: Sequence[Scope], tokens: Container[str] = ()) -> str:
    """Return a line with its secrets masked; empty for a comment, which isn't kept.

    In a valid line, the values of secret fields are masked, and what is among the stored `tokens` or looks like one: in
    a command for workers wherever it stands, in others where a filter searches for it. In any other line a secret may
    be anywhere after the first wrong word, so from there on only words of the shell and the command tree stay.
    `location` is the open group.
    """
    if is_comment(line):
        return ""
    words, tail = split_typed(line)
    if tail.word.text or tail.word.is_quoted:
        words = [*words, tail.word]
    parser = Parser(location)
    first = 1 if words and words[0].text in SHELL_WORDS else 0
    position = first
    try:
        for position in range(first, len(words)):
            parser.feed(words[position])
    except UsageError:
        suspects = _suspects(parser, words, position)
    else:
        suspects = {len(words) - 1} if tail.open_quote else set()
    secrets = {first + number for number in parser.secrets if words[first + number].text != ASK}
    filtered = _filtered(words)
    masked = secrets | suspects | {position for position in filtered if _LIKE_A_TOKEN.fullmatch(words[position].text)}
    if parser.command is not None and issubclass(parser.command.model, JobArguments):
        # Only workers of this service have tokens, and only they are to see what was typed for it.
        stored = tokens if parser.command.model.SERVICE == SERVICE else ()
        masked |= _tokens_among(range(len(words)), words, parser, masked, stored) | _json_secrets(words)
    elif parser.command is not None:
        masked |= _tokens_among(filtered, words, parser, masked, tokens)
    return _with_masks(line, words, masked)


def _json_secrets(words: Sequence[Word]) -> set[int]:
    """Return the positions of values in JSON that name a secret: `{"password": …}`."""
    return {
        position
        for position, word in enumerate(words)
        if word.text[:1] in {"{", "["} and any(map(is_secret_name, _JSON_KEY.findall(word.text)))
    }


def _filtered(words: Sequence[Word]) -> set[int]:
    """Return the positions of words that a filter, abbreviated or not, searches for: `| include 888945f9…`."""
    return {position for position in range(1, len(words)) if _abbreviates(words[position - 1].text, _FILTERS)}


def _abbreviates(text: str, names: Collection[str]) -> bool:
    return bool(text) and any(name.startswith(text) for name in names)


def _tokens_among(
    positions: Iterable[int], words: Sequence[Word], parser: Parser, masked: Collection[int], tokens: Container[str]
) -> set[int]:
    """Return those of the positions whose words are tokens or look like one, and aren't masked yet."""
    known = vocabulary(parser.groups[0].model) | SHELL_WORDS.keys()
    texts = {position: words[position].text for position in positions if position not in masked}
    return {
        position
        for position, text in texts.items()
        if text not in known and _TOKEN.fullmatch(text) and (_RANDOM.fullmatch(text) or text in tokens)
    }


def _suspects(parser: Parser, words: Sequence[Word], wrong: int) -> set[int]:
    """Return the positions, from the first wrong word on, that may be a secret."""
    root = parser.groups[0].model
    secret = secret_words(root)
    known = vocabulary(root) | {*SHELL_WORDS, PIPE, HELP, VERBOSE_HELP}
    suspects = set()
    for position in range(wrong, len(words)):
        text = words[position].text
        follows_secret = position > 0 and (
            words[position - 1].text in secret or _is_typo(words[position - 1].text, secret)
        )
        is_wrong_name = position == wrong and _is_typo(text, parser.scope.choices())
        if follows_secret or not (text in known or is_wrong_name):
            suspects.add(position)
    return suspects


def _is_typo(text: str, names: Collection[str]) -> bool:
    """Whether a word is most likely a name with a letter missing, wrong or too many, and so no secret."""
    if _abbreviates(text, names):
        return True
    return any(abs(len(name) - len(text)) <= 1 for name in difflib.get_close_matches(text, names, n=1))


def _with_masks(line: str, words: Sequence[Word], masked: Collection[int]) -> str:
    parts = []
    end = 0
    for position, word in enumerate(words):
        parts.append(line[end : word.start])
        parts.append(MASK if position in masked else line[word.start : word.end])
        end = word.end
    return "".join(parts).strip()
