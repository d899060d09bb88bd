"""`nfcli --backup FILE` and `--restore FILE`: write a worker's tokens to a file, and replace them by those of a file.

The file is read and written here (`backup_file.py`); the worker only sends and receives its content.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import sys
from pathlib import Path
from typing import IO

from ...models.errors import NfcliError, TaskError, TaskTimeoutError
from ...models.tasks.backup import CHUNK_BYTES, BackupBegun, RestoreBegun, Restored, encode_trailer
from ..client.client import Client
from ..output.console import Console
from ..output.render import to_json
from .backup_file import create_backup, exposure_warning, open_backup, resolve_path, verify_backup
from .worker_tasks import TransferClient, only_worker

DATABASE_SECONDS = 600
"""Limit for a step that takes the longer the larger the database; a worker that ends is noticed much earlier."""
CHUNK_SECONDS = 60
CLEANUP_SECONDS = 5
RESTORED_NOTE = "tokens that were deleted after the backup are valid again: delete them again"


def back_up(client: Client, file: Path, worker: str | None) -> None:
    """Write all tokens of a worker, by default the only one, to a new file, and print their number.

    Raises:
        UsageError: no worker is named, and there are several.
        NoWorkersError: the worker is unknown or can't be reached.
        NfcliError: the file exists or can't be written, or the worker failed; no file is left then.
    """
    name = only_worker(client, worker)
    file = resolve_path(file)
    console = Console(sys.stdout, sys.stderr)
    with create_backup(file) as (stream, finish), TransferClient(client, name, console) as transfer:
        backup = transfer.report(BackupBegun, "backup_begin", DATABASE_SECONDS)
        try:
            _download(transfer, backup, stream)
        finally:
            with contextlib.suppress(NfcliError):  # the worker removes an abandoned snapshot by itself
                transfer.run("backup_end", CLEANUP_SECONDS, id=backup.id)
        finish()
    console.result(to_json({name: {"tokens": backup.tokens, "file": str(file)}}))


def restore(client: Client, file: Path, worker: str | None) -> None:
    """Replace all tokens of a worker by those of a backup, and print how many were restored, removed and expired.

    Without a name it is the only worker.

    Raises:
        UsageError: no worker is named, and there are several.
        NoWorkersError: the worker is unknown or can't be reached.
        NfcliError: the file isn't an intact backup, or the worker refused it; nothing was changed.
        TaskTimeoutError: the worker didn't answer the last step: it is unknown whether the tokens were replaced.
    """
    name = only_worker(client, worker)
    file = resolve_path(file)
    console = Console(sys.stdout, sys.stderr)
    with open_backup(file) as stream, TransferClient(client, name, console) as transfer:
        warning = exposure_warning(stream, file)
        if warning:
            console.note(warning)
        size, sha256 = verify_backup(stream, file)
        upload = transfer.report(RestoreBegun, "restore_begin", CHUNK_SECONDS, size=size, sha256=sha256)
        stream.seek(0)
        for offset in range(0, size, CHUNK_BYTES):
            transfer.show_progress(offset, size)
            data = base64.b64encode(stream.read(min(CHUNK_BYTES, size - offset))).decode()
            transfer.run("restore_write", CHUNK_SECONDS, id=upload.id, offset=offset, data=data)
        try:
            restored = transfer.report(Restored, "restore_commit", DATABASE_SECONDS, id=upload.id)
        except TaskTimeoutError as error:
            raise TaskTimeoutError(f"{error}: whether the tokens were replaced is unknown, restore again") from None
    console.result(to_json({name: restored.model_dump()}))
    console.note(RESTORED_NOTE)


def _download(transfer: TransferClient, backup: BackupBegun, stream: IO[bytes]) -> None:
    """Download a worker's snapshot into a file, and append the trailer."""
    digest = hashlib.sha256()
    for offset in range(0, backup.size, CHUNK_BYTES):
        transfer.show_progress(offset, backup.size)
        data = transfer.run("backup_read", CHUNK_SECONDS, id=backup.id, offset=offset)
        with contextlib.suppress(TypeError, ValueError):  # invalid Base64 fails the check of size and hash
            chunk = base64.b64decode(data, validate=True)
            digest.update(chunk)
            stream.write(chunk)
    if stream.tell() != backup.size or digest.hexdigest() != backup.sha256:
        raise TaskError("the download doesn't match the worker's size or checksum, no file was written: back up again")
    stream.write(encode_trailer(digest.hexdigest()))
