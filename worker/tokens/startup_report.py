"""What an operator should know of a token database that was opened: said in the log, once, with what to do."""

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
    """Log what is remarkable about the database in `folder`; `now` is what the clock shows, epoch seconds."""
    if loaded.pickled:
        log.warning(
            "%d rows of the token database in %s are pickled and were not read, since that could run anybody's "
            "code (NorFab workers write such rows): take their tokens over with nfcli --import-norfab %s",
            *(loaded.pickled, folder, shlex.quote(str(folder))),
        )
    if loaded.invalid:
        log.warning(
            "%d rows of the token database in %s hold no valid token and were passed over: "
            "store these tokens again with fastmcp auth create-token",
            *(loaded.invalid, folder),
        )
    if foreign := foreign_databases(folder):
        log.warning(
            "%s holds a NorFab worker's database (%s and so on), which is not read: "
            "take its tokens over with nfcli --import-norfab %s",
            *(folder, foreign[0].relative_to(folder), shlex.quote(str(folder))),
        )
    if loaded.has_invalid_latest:
        log.warning("the latest time that the token database in %s has seen is no time and was passed over", folder)
    if loaded.latest is not None and loaded.latest - now > _BEHIND_SECONDS:
        log.warning(
            "the clock is %s behind the latest time that the token database in %s has seen: "
            "tokens expire by the later time, so set the clock right",
            *(timedelta(seconds=round(loaded.latest - now)), folder),
        )
