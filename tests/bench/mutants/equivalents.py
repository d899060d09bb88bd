"""The mutants that change nothing that anybody can notice, each with the reason."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from mutants.mutants import Mutant

FILE = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Equivalent:
    """A line of a file, as it stands there without its margin, and what it may become; any change without `after`."""

    file: str
    before: str
    reason: str
    after: str | None = None

    def covers(self, mutant: Mutant) -> bool:
        """Whether a mutant is this one."""
        return (self.file, self.before) == (mutant.file, mutant.before) and self.after in {None, mutant.after}


def read_equivalents(file: Path = FILE) -> list[Equivalent]:
    """Read the list."""
    return [Equivalent(**entry) for entry in tomllib.loads(file.read_text(encoding="utf-8")).get("equivalent", [])]


def find_outdated(root: Path, equivalents: list[Equivalent]) -> list[Equivalent]:
    """Return the entries whose text isn't in their file any more."""
    return [each for each in equivalents if each.before not in _joined_lines(root / each.file)]


def _joined_lines(file: Path) -> str:
    if not file.exists():
        return ""
    return " ".join(line.strip() for line in file.read_text(encoding="utf-8").splitlines())
