"""A search of all that a test session leaves behind for the tokens that it stored.

Every token of the session is recorded here: those of records and jobs of this process, those that programs are given
as words, on stdin or at a terminal, and at the end those that databases hold. A token is recognized by its text, so
short ones, which turn up by chance, are ignored, and those that are a word of a user's name, as tests with random names
and tokens make them: user names are no secrets.

Searched are the environments and home folders below pytest's temporary folder (logs, audit trails, histories, lock and
key files) and the arguments and environment variables of workers. Databases and backups are where tokens belong;
programs (`.py`) are written by tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

SHORTEST_CHARACTERS = 10

_GIVEN = re.compile(r"""\btoken[ \t]+["']?([A-Za-z0-9._~+/-]+=*)""")
_STORED = re.compile(rb"bearer_token::([A-Za-z0-9._~+/-]+=*)")
_WORD = re.compile(rb"[A-Za-z0-9._~+/-]{%d,}" % SHORTEST_CHARACTERS)
_PUNCTUATION = b"./-~+_"
_DATABASE = b"SQLite format 3\0"
_STATE_FOLDER, _HOME = ".nfcli", "home"


class TokenWatch:
    """The tokens of a session, and the places where one of them turned up."""

    def __init__(self) -> None:
        self._tokens: set[str] = set()
        self._names: set[bytes] = set()
        self._processes: list[tuple[Path, bytes]] = []

    def note(self, token: str) -> None:
        """Remember a token, unless it is too short to be distinguished from other text."""
        if len(token) >= SHORTEST_CHARACTERS:
            self._tokens.add(token)

    def note_username(self, name: str) -> None:
        """Remember a user's name, which may turn up anywhere."""
        self._names |= _words(name.encode(errors="surrogatepass"))

    def note_given(self, text: str) -> set[str]:
        """Remember the tokens in a line or a script of commands; return those that are long enough to be recognized."""
        given = {token for token in _GIVEN.findall(text) if len(token) >= SHORTEST_CHARACTERS}
        self._tokens |= given
        return given

    def note_process(self, pid: int) -> None:
        """Keep the arguments and the environment variables of a running process, for the search; Linux only."""
        for path in (Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ")):
            if path.exists():
                self._processes.append((path, path.read_bytes()))

    def search(self, folder: Path) -> Iterator[str]:
        """Yield `FILE: TOKEN` for each file below a folder, or of a process, that holds a token and shouldn't."""
        files = [(path, path.read_bytes()) for path in sorted(_files(folder))]
        for path, content in files:
            if _is_database(path, content):
                for token in _STORED.findall(content):
                    self.note(token.decode())
        yield from self._found([*files, *self._processes])

    def _found(self, files: Iterable[tuple[Path, bytes]]) -> Iterator[str]:
        """Compare the words of files with the tokens: looking for thousands of tokens in each would take minutes."""
        tokens = {token.rstrip("=").encode() for token in self._tokens} - self._names
        for path, content in files:
            if _is_database(path, content):
                continue
            for word in sorted(tokens & _words(content)):
                yield f"{path}: {word.decode()}"


def _words(content: bytes) -> set[bytes]:
    """Return what could be a token, with the punctuation around it and without."""
    words = set(_WORD.findall(content))
    return words | {word.strip(_PUNCTUATION) for word in words}


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        is_ours = _STATE_FOLDER in path.parts or _in_a_home(path, folder)
        if is_ours and path.suffix != ".py" and path.is_file() and not path.is_symlink():
            yield path


def _in_a_home(path: Path, folder: Path) -> bool:
    return path.relative_to(folder).parts[0].startswith(_HOME)


def _is_database(path: Path, content: bytes) -> bool:
    return content.startswith(_DATABASE) or "tokens" in path.parts
