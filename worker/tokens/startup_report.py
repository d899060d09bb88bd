"""Log what an operator should know about a token database that was opened, with the remedy."""

from __future__ import annotations

import logging
import shlex
from datetime import timedelta
from pathlib import Path

from .files import foreign_databases
from .rows import LoadedTokens

log = logging.getLogger(__name__)

_BEHIND_SECONDS = 60.0


def log_open_report(loaded: LoadedTokens, folder: Path, now: float) -> None:
    """Log skipped rows, foreign databases and a clock behind; `now` is the wall clock, epoch seconds."""
    if loaded.pickled:
        log.warning(
            "skipped %d pickled rows of the token database in %s, since unpickling can run arbitrary code "
            "(NorFab workers write such rows): import their tokens with nfcli --import-norfab %s",
            *(loaded.pickled, folder, shlex.quote(str(folder))),
        )
    if loaded.invalid:
        log.warning(
            "skipped %d rows of the token database in %s that hold no valid token: "
            "store these tokens again with fastmcp auth create-token",
            *(loaded.invalid, folder),
        )
    if foreign := foreign_databases(folder):
        log.warning(
            "ignoring a NorFab database in %s (%s and others): import its tokens with nfcli --import-norfab %s",
            *(folder, foreign[0].relative_to(folder), shlex.quote(str(folder))),
        )
    if loaded.has_invalid_latest:
        log.warning("ignoring invalid high-water timestamp in token database %s", folder)
    if loaded.latest is not None and loaded.latest - now > _BEHIND_SECONDS:
        log.warning(
            "the clock is %s behind the latest time that the token database in %s has seen: "
            "tokens expire by the later time, set the clock right",
            *(timedelta(seconds=round(loaded.latest - now)), folder),
        )
