"""Tables of tokens as the shell prints them, for tests that don't depend on their columns."""

from __future__ import annotations

import re

from nfcli.models.commands.auth import ListTokens

EMPTY_TABLE = f" {'  '.join(ListTokens.COLUMNS)}\n"


def table_rows(table: str) -> list[dict[str, str]]:
    """Return the cells of each row by the names of their columns."""
    header, *lines = table.splitlines()
    columns = [(found[0], found.start()) for found in re.finditer(r"\S+", header)]
    ends = [start for _, start in columns[1:]] + [None]
    return [{name: line[start:end].strip() for (name, start), end in zip(columns, ends, strict=True)} for line in lines]
