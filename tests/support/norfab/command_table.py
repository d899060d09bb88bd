"""The page `norfab-commands`: each command of NorFab's shell, and what does the same here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from nfcli.models.commands.base import entries
from nfcli.models.commands.root import Root

SAME = "same"
INSTEAD = {
    "show norfab broker inventory": "no, because it may hold the broker's secrets",
    "show norfab broker statistics": "show norfab broker",
    "show norfab broker status": "show norfab broker",
    "show norfab broker version": "show norfab broker",
    "show norfab broker workers": "show norfab workers",
    "show norfab workers statistics": "show norfab statistics",
    "show norfab workers version": "show norfab version",
    "show norfab workers jobs summary": "show norfab jobs",
    "show norfab workers jobs details": "show norfab jobs",
    "show norfab client": "show norfab client",
    "show norfab client version": "nfcli --version",
    "show norfab client jobs": "show jobs",
    "show nornir hosts": "run nornir get_nornir_hosts",
    "show filesharing files details": "show filesharing details",
    "nornir netconf": "run nornir netconf_CALL",
    "norfab configure": "no, because inventories are files: nfcli --check checks one",
    "client-agent": "no, because it needs a language model",
}
"""By the first words of the command; the longest that fit count, after a command of the same name.

For a command that runs a task only one of all its words counts.
"""
_ANY_SERVICE = "all"

Row = Mapping[str, str | None]


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the table, aligned: a command, and what it is here.

    Raises:
        LookupError: nothing is known for a command.
    """
    pairs = [("NorFab", "nfcli"), *((str(row["command"]), _ours(row)) for row in rows)]
    width = max(len(command) for command, _ in pairs)
    return [f"{command.ljust(width)}  {ours}" for command, ours in pairs]


def is_command(words: str) -> bool:
    """Whether the words lead to a command or group of ours."""
    model: type[BaseModel] | None = Root
    for word in words.split():
        entry = entries(model).get(word) if model is not None else None
        if entry is None or entry.model is None:
            return False
        model = entry.model
    return True


def _ours(row: Row) -> str:
    command = str(row["command"])
    if is_command(command):
        return SAME
    words = command.split()
    if command in INSTEAD:
        return INSTEAD[command]
    for count in range(len(words), 0, -1):
        if (text := INSTEAD.get(" ".join(words[:count]))) is not None and not (
            row["service"] and row["task"] and count < len(words)
        ):
            return text
    if row["service"] is None or row["task"] is None:
        raise LookupError(f"no row of INSTEAD for {command}")
    service = "SERVICE" if row["service"] == _ANY_SERVICE else row["service"]
    return f"run {service} {row['task']}"
