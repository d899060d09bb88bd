"""`nfcli --backup FILE` and `--restore FILE`: a worker's tokens into a file, and a file in place of all its tokens.

What becomes of the file is in `backup_file.py`. The worker knows nothing of files of ours, nor we of its.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import sys
from pathlib import Path
from typing import IO

from ...models.errors import NfcliError, TaskError
from ...models.tasks.backup import CHUNK_BYTES, BackupBegun, RestoreBegun, Restored, encode_trailer
from ..client.client import Client
from ..output.console import Console
from ..output.render import to_json
from .backup_file import absolute, exposure, new_file, open_backup, verified
from .worker_jobs import WorkerJobs, only_worker

WHOLE_SECONDS = 600
"""For a step that grows with the database; a worker that ends or is killed meanwhile is noticed much earlier."""
CHUNK_SECONDS = 60
END_SECONDS = 5
RESTORED_NOTE = "tokens that were deleted after the backup was made are valid again: delete them once more"


def back_up(client: Client, file: Path, worker: str | None) -> None:
    """Write all tokens of a worker into a new file and print what came of it.

    Args:
        client: reaches the worker.
        file: where to; nothing may be there.
        worker: the worker's name; None where there is but one.

    Raises:
        UsageError: there are several workers and none is named.
        NoWorkersError: the worker is unknown or can't be reached.
        NfcliError: the file is there, can't be written, or the worker failed; there is no file then.
    """
    name = only_worker(client, worker)
    file = absolute(file)
    console = Console(sys.stdout, sys.stderr)
    with new_file(file) as (stream, finish), WorkerJobs(client, name, console) as jobs:
        begun = jobs.report(BackupBegun, "backup_begin", WHOLE_SECONDS)
        try:
            _fetch(jobs, begun, stream)
        finally:
            with contextlib.suppress(NfcliError):  # the worker drops what was left, by itself
                jobs.run("backup_end", END_SECONDS, id=begun.id)
        finish()
    console.result(to_json({name: {"tokens": begun.tokens, "file": str(file)}}))


def restore(client: Client, file: Path, worker: str | None) -> None:
    """Put the tokens of a backup in place of all that a worker has, and print what came of it.

    Args:
        client: reaches the worker.
        file: what `back_up` has written.
        worker: the worker's name; None where there is but one.

    Raises:
        UsageError: there are several workers and none is named.
        NoWorkersError: the worker is unknown or can't be reached.
        NfcliError: the file is no whole backup, or the worker refused it; nothing has changed then. Where the worker's
            answer got lost the message says that nobody knows.
    """
    name = only_worker(client, worker)
    file = absolute(file)
    console = Console(sys.stdout, sys.stderr)
    with open_backup(file) as stream, WorkerJobs(client, name, console) as jobs:
        warning = exposure(stream, file)
        if warning:
            console.note(warning)
        size, sha256 = verified(stream, file)
        begun = jobs.report(RestoreBegun, "restore_begin", CHUNK_SECONDS, size=size, sha256=sha256)
        stream.seek(0)
        for offset in range(0, size, CHUNK_BYTES):
            jobs.show(offset, size)
            data = base64.b64encode(stream.read(min(CHUNK_BYTES, size - offset))).decode()
            jobs.run("restore_write", CHUNK_SECONDS, id=begun.id, offset=offset, data=data)
        restored = jobs.report(Restored, "restore_commit", WHOLE_SECONDS, id=begun.id)
    console.result(to_json({name: restored.model_dump()}))
    console.note(RESTORED_NOTE)


def _fetch(jobs: WorkerJobs, begun: BackupBegun, stream: IO[bytes]) -> None:
    """Fetch a snapshot into a file and put the seal behind it."""
    digest = hashlib.sha256()
    for offset in range(0, begun.size, CHUNK_BYTES):
        jobs.show(offset, begun.size)
        answer = jobs.run("backup_read", CHUNK_SECONDS, id=begun.id, offset=offset)
        with contextlib.suppress(TypeError, ValueError):  # what is no Base64 doesn't match the hash
            chunk = base64.b64decode(answer, validate=True)
            digest.update(chunk)
            stream.write(chunk)
    if stream.tell() != begun.size or digest.hexdigest() != begun.sha256:
        raise TaskError("what arrived is not what the worker has sent, no file was written: back up again")
    stream.write(encode_trailer(digest.hexdigest()))
