"""Read a Containerfile."""

from __future__ import annotations


def parse_containerfile(text: str) -> list[tuple[str, str]]:
    """Return the instructions with their arguments, in order: without comments, and each on one line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, " ".join(words.split())) for name, _, words in (line.partition(" ") for line in joined.splitlines())]
