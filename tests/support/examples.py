"""The examples of README.md and the manual's pages: fenced blocks, and what the line above each says of it.

A block's language says how it is run, `tests/end_to_end/clients/test_examples.py` does it:

    console   `$ ` begins a shell command, `> ` continues it; what follows is its output
    nf        `nf#` or `nf[…]#` begins a line that is typed at that prompt; what follows is its output
    python    a program that ends with status 0
    sh        shell commands that succeed; the output doesn't matter
    json      a client's configuration, with which a worker can be called
    yaml      an inventory, or the file of one worker, that loads
    text      nothing to run

In expected output a line `…` stands for any lines. An HTML comment right above a block marks it: `file: NAME` writes it
to a file, `output` makes it what the block before prints, `not run: WHY` and `run-tests` leave it alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path
    for path in (ROOT / "README.md", *sorted((ROOT / "man" / "pages").glob("*.md")))
}
LANGUAGES = ("console", "nf", "python", "sh", "json", "yaml", "text")

_COMMENT = re.compile(r"<!--\s*(.*?)\s*-->")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, what marks it (empty: nothing), its text with a last newline."""

    document: str
    line: int
    language: str
    mark: str
    text: str

    @property
    def location(self) -> str:
        """Where it stands, as editors understand it."""
        return f"{self.document}:{self.line}"

    @property
    def file(self) -> str:
        """The file that the block is written to, empty when it is not a file."""
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else ""

    @property
    def is_run(self) -> bool:
        """Whether it is to be run at all."""
        return not self.mark.startswith(("not run: ", "run-tests"))


def blocks(document: str, text: str | None = None) -> list[Block]:
    """Return the blocks of a document in order; `text` is its text, None for what the file holds."""
    lines = (DOCUMENTS[document].read_text(encoding="utf-8") if text is None else text).splitlines()
    found: list[Block] = []
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        comment = _COMMENT.fullmatch(lines[start - 1]) if start else None
        inside = "".join(f"{each}\n" for each in lines[start + 1 : number])
        found.append(Block(document, start + 1, lines[start][3:], comment[1] if comment else "", inside))
        start = None
    assert start is None, f"{document}: the block in line {(start or 0) + 1} isn't closed"
    return found
