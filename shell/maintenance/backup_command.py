"""`nfcli --backup FILE` and `--restore FILE`: write a worker's tokens to a file, and replace them by those of a file.

The file is read and written here (`backup_file.py`, or `backup_stream.py` for pipes); the worker only sends and
receives its content, and makes and verifies its seal.
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
from .backup_stream import (
    STDIN,
    STDOUT,
    read_from_stream,
    stream_descriptor,
    stream_name,
    stream_warning,
    write_to_stream,
)
from .worker_tasks import TransferClient, only_worker

DATABASE_SECONDS = 600
"""Limit for a step that takes the longer the larger the database; a worker that ends is noticed much earlier."""
CHUNK_SECONDS = 60
CLEANUP_SECONDS = 5
RESTORED_NOTE = (
    "tokens that were deleted after the backup are valid again: delete them again, or run fastmcp tokens sync "
    "if another worker has deleted them"
)


def back_up(client: Client, file: Path, worker: str | None) -> None:
    """Write all tokens of a worker, by default the only one, to a new file or a stream, and print their number.

    A stream is `-` for the standard output, or a path such as `/dev/stdout`. On the standard output nothing but the
    backup is written; the number of tokens is printed on stderr then.

    Raises:
        UsageError: no worker is named, and there are several; or the stream is a terminal.
        NoWorkersError: the worker is unknown or can't be reached.
        NfcliError: the file exists or can't be written, or the worker failed; no file is left then. On a stream, what
            was written is not a backup: its trailer is missing.
    """
    descriptor = stream_descriptor(file, STDOUT)
    name = only_worker(client, worker)
    console = Console(sys.stdout, sys.stderr)
    if descriptor is None:
        file = resolve_path(file)
        opened = create_backup(file)
    else:
        opened = write_to_stream(descriptor)
    with opened as (stream, finish), TransferClient(client, name, console) as transfer:
        backup = transfer.report(BackupBegun, "backup_begin", DATABASE_SECONDS)
        try:
            _download(transfer, backup, stream)
        finally:
            with contextlib.suppress(NfcliError):  # the worker removes an abandoned snapshot by itself
                transfer.run("backup_end", CLEANUP_SECONDS, id=backup.id)
        finish()
    if descriptor is not None and (warning := stream_warning(descriptor)):
        console.note(warning)
    if descriptor == STDOUT:
        console.note(f"{name}: backed up, tokens: {backup.tokens}")
    else:
        console.result(to_json({name: {"tokens": backup.tokens, "file": str(file)}}))


def restore(client: Client, file: Path, worker: str | None, *, unverified: bool = False) -> None:
    """Replace all tokens of a worker by those of a backup, and print how many were restored, removed and expired.

    The backup is read from a file, or from a stream: `-` for the standard input, or a path such as `/dev/stdin`. It is
    read and verified to its end before anything is sent. Without a name it is the only worker. `unverified` accepts a
    backup whose seal can't be verified.

    Raises:
        UsageError: no worker is named, and there are several; or the stream is a terminal.
        NoWorkersError: the worker is unknown or can't be reached.
        NfcliError: it isn't an intact backup, or the worker refused it; nothing was changed.
        TaskTimeoutError: the worker didn't answer the last step: it is unknown whether the tokens were replaced.
    """
    descriptor = stream_descriptor(file, STDIN)
    name = only_worker(client, worker)
    console = Console(sys.stdout, sys.stderr)
    with contextlib.ExitStack() as stack:
        if descriptor is None:
            file = resolve_path(file)
            stream, shown = stack.enter_context(open_backup(file)), str(file)
            if warning := exposure_warning(stream, file):
                console.note(warning)
        else:
            stream, shown = read_from_stream(descriptor), stream_name(descriptor)
        size, sha256, seal = verify_backup(stream, shown)
        transfer = stack.enter_context(TransferClient(client, name, console))
        sealed = {"seal": None if seal is None else seal.model_dump(), "unverified": unverified}
        upload = transfer.report(RestoreBegun, "restore_begin", CHUNK_SECONDS, size=size, sha256=sha256, **sealed)
        restored = _upload(transfer, upload, stream, size)
    console.result(to_json({name: restored.model_dump()}))
    if restored.restored:
        console.note(RESTORED_NOTE)


def _upload(transfer: TransferClient, upload: RestoreBegun, stream: IO[bytes], size: int) -> Restored:
    """Send a database, and replace the worker's tokens by its tokens."""
    stream.seek(0)
    for offset in range(0, size, CHUNK_BYTES):
        transfer.show_progress(offset, size)
        data = base64.b64encode(stream.read(min(CHUNK_BYTES, size - offset))).decode()
        transfer.run("restore_write", CHUNK_SECONDS, id=upload.id, offset=offset, data=data)
    try:
        return transfer.report(Restored, "restore_commit", DATABASE_SECONDS, id=upload.id)
    except TaskTimeoutError as error:
        raise TaskTimeoutError(f"{error}: whether the tokens were replaced is unknown, restore again") from None


def _download(transfer: TransferClient, backup: BackupBegun, stream: IO[bytes]) -> None:
    """Download a worker's snapshot into a stream, and append the trailer."""
    digest, size = hashlib.sha256(), 0
    for offset in range(0, backup.size, CHUNK_BYTES):
        transfer.show_progress(offset, backup.size)
        data = transfer.run("backup_read", CHUNK_SECONDS, id=backup.id, offset=offset)
        with contextlib.suppress(TypeError, ValueError):  # invalid Base64 fails the check of size and hash
            chunk = base64.b64decode(data, validate=True)
            digest.update(chunk)
            size += stream.write(chunk)
    if size != backup.size or digest.hexdigest() != backup.sha256:
        raise TaskError("the download doesn't match the worker's size or checksum, no file was written: back up again")
    stream.write(encode_trailer(digest.hexdigest(), backup.seal))
