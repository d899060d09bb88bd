"""`nfcli --import-norfab DIR`: add the tokens of a NorFab worker's database to those of a worker.

The database is read here (`norfab_database.py`); the worker receives tokens, never a file or a pickle.
"""

from __future__ import annotations

import sys
import time
from operator import attrgetter
from pathlib import Path

from ...models.errors import EXIT_FAILED, EXIT_OK, TaskError
from ...models.tasks.token_import import MAX_IMPORT_TOKENS, Imported, ImportedToken
from ..client.client import Client
from ..output.console import Console
from ..output.render import to_json
from .backup_file import resolve_path
from .norfab_database import NorfabTokens, find_database, read_tokens
from .worker_tasks import TransferClient, only_worker

CHUNK_SECONDS = 60


def import_norfab(client: Client, folder: Path, worker: str | None) -> int:
    """Store the tokens of a NorFab worker's database, and print how many; repeating it changes nothing.

    `folder` is the database's, or one above it; without a worker's name it is the only worker.

    Returns:
        The exit status: 1 if a token was refused, or a record skipped for another reason than its expiry.

    Raises:
        UsageError: no worker is named, and there are several.
        NoWorkersError: the worker is unknown or can't be reached.
        NorfabDatabaseError: the database can't be found or read; nothing was changed.
        NfcliError: the worker failed; the tokens that it stored before that are kept.
    """
    name = only_worker(client, worker)
    found = read_tokens(find_database(resolve_path(folder)), time.time())
    # Grouped by user: the tokens of a user share a line of the audit trail.
    tokens = sorted(found.tokens, key=attrgetter("username", "created"))
    console = Console(sys.stdout, sys.stderr)
    done = {"imported": 0, "present": 0, "refused": 0, "expired": found.expired, "deleted": 0}
    with TransferClient(client, name, console) as transfer:
        for start in range(0, len(tokens), MAX_IMPORT_TOKENS):
            transfer.show_progress(start, len(tokens))
            report = _send(transfer, tokens[start : start + MAX_IMPORT_TOKENS])
            done = {what: count + getattr(report, what) for what, count in done.items()}
    if not done["deleted"]:
        del done["deleted"]
    console.result(to_json({name: done | {"invalid": found.invalid, "unreadable": found.unreadable}}))
    for note in _notes(name, found, done):
        console.note(note)
    return EXIT_FAILED if done["refused"] or found.invalid or found.unreadable else EXIT_OK


def _send(transfer: TransferClient, tokens: list[ImportedToken]) -> Imported:
    try:
        return transfer.report(
            Imported, "bearer_token_import", CHUNK_SECONDS, tokens=[token.model_dump() for token in tokens]
        )
    except TaskError as error:
        raise TaskError(f"{error}: tokens imported before are kept, import again for the rest") from None


def _notes(name: str, found: NorfabTokens, done: dict[str, int]) -> list[str]:
    notes = [f"invalid records were skipped: {reason}" for reason in found.reasons.values()]
    if found.unreadable:
        notes.append(f"records that nfcli doesn't read as tokens were skipped: {found.unreadable}")
    if done["refused"]:
        notes.append(f"tokens that {name} has stored for other users were not changed: delete them there first")
    if done.get("deleted"):
        notes.append(
            f"tokens that were deleted on {name} after they were created stay deleted: create them there again"
        )
    if not done["imported"]:
        notes.append("nothing was changed")
    return notes
