"""`nfcli --import-norfab DIR`: the tokens of a NorFab worker's database into a worker's store, beside those it has.

How that database is read is in `norfab_database.py`. The worker gets tokens, never a file or a pickle.
"""

from __future__ import annotations

import sys
import time
from operator import attrgetter
from pathlib import Path

from ...models.errors import EXIT_FAILED, EXIT_OK, TaskError
from ...models.tasks.token_import import IMPORT_MAX_TOKENS, Imported, ImportedToken
from ..client.client import Client
from ..output.console import Console
from ..output.render import to_json
from .backup_file import absolute
from .norfab_database import NorfabTokens, find_database, read_tokens
from .worker_jobs import WorkerJobs, only_worker

CHUNK_SECONDS = 60


def import_norfab(client: Client, folder: Path, worker: str | None) -> int:
    """Store the tokens of a NorFab worker's database, and print what came of it; doing it again changes nothing.

    Args:
        client: reaches the worker.
        folder: that database, or a folder above it.
        worker: the worker's name; None where there is but one.

    Returns:
        The exit status: 1 when a token was refused or a record passed over that hasn't just expired.

    Raises:
        UsageError: there are several workers and none is named.
        NoWorkersError: the worker is unknown or can't be reached.
        NfcliError: the database can't be found or read, and then nothing has changed; or the worker failed, and then
            what it had stored before stays.
    """
    name = only_worker(client, worker)
    found = read_tokens(find_database(absolute(folder)), time.time())
    # A user's tokens together: they share a line of the audit trail.
    tokens = sorted(found.tokens, key=attrgetter("username", "created"))
    console = Console(sys.stdout, sys.stderr)
    done = {"imported": 0, "present": 0, "refused": 0, "expired": found.expired}
    with WorkerJobs(client, name, console) as jobs:
        for start in range(0, len(tokens), IMPORT_MAX_TOKENS):
            jobs.show(start, len(tokens))
            report = _send(jobs, tokens[start : start + IMPORT_MAX_TOKENS])
            done = {what: count + getattr(report, what) for what, count in done.items()}
    console.result(to_json({name: done | {"invalid": found.invalid, "unreadable": found.unreadable}}))
    for note in _notes(name, found, done):
        console.note(note)
    return EXIT_FAILED if done["refused"] or found.invalid or found.unreadable else EXIT_OK


def _send(jobs: WorkerJobs, tokens: list[ImportedToken]) -> Imported:
    try:
        return jobs.report(
            Imported, "bearer_token_import", CHUNK_SECONDS, tokens=[token.model_dump() for token in tokens]
        )
    except TaskError as error:
        raise TaskError(f"{error}: what was imported before stays, import again for the rest") from None


def _notes(name: str, found: NorfabTokens, done: dict[str, int]) -> list[str]:
    notes = [f"invalid records were passed over: {reason}" for reason in found.reasons.values()]
    if found.unreadable:
        notes.append(f"records that can't be a token's were passed over unread: {found.unreadable}")
    if done["refused"]:
        notes.append(f"tokens that are stored for other users were left as they are: delete them at {name} first")
    if not done["imported"]:
        notes.append("nothing was changed")
    return notes
