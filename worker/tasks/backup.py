"""The tasks that transfer tokens: a backup while the worker runs, and a restore that replaces all its tokens.

A database is transferred in chunks, each a job of its own; reading or writing a chunk again is safe. Uploads are
untrusted, and clients never name a file.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...models.environment.private_files import open_private
from ...models.errors import EnvironmentFolderError, TaskError, TokenStoreDamagedError
from ...models.protocol.jobs import Result
from ...models.tasks.backup import (
    CHUNK_BYTES,
    DATABASE_MAGIC,
    MAX_BACKUP_BYTES,
    BackupBegun,
    BackupReadInput,
    RestoreBeginInput,
    RestoreBegun,
    Restored,
    RestoreWriteInput,
    TransferInput,
)
from ...models.tasks.base import TaskInput
from ..jobs.task import task
from ..jobs.task_context import TaskContext
from ..tokens.backup import read_backup
from ..tokens.rows import LoadedTokens
from ..tokens.transfers import Transfer
from .backup_seal import seal_backup, verify_seal

UNVERIFIED = "the seal of the backup was not verified"


@task(result=BackupBegun, mcp=False, audit="backup", restricted=True)
def backup_begin(worker: TaskContext, _arguments: TaskInput) -> dict[str, Any]:
    """Take a snapshot of all tokens, to be read with `backup_read` and removed with `backup_end`.

    The snapshot is consistent and has passed an integrity check. One is kept at a time, for 30 seconds after it was
    last used.
    """
    session = worker.transfers.snapshot
    with session.open() as begun, _task_errors(session.folder):
        tokens = worker.store.backup(begun.file)
        size = begun.file.stat().st_size
        if size > MAX_BACKUP_BYTES:
            raise TaskError(
                f"the token database has {size} bytes, more than the limit of a backup ({MAX_BACKUP_BYTES})"
            )
        sha256 = _sha256(begun.file)
        worker.audit.write(operation="backup", actor=worker.client, count=tokens)
        snapshot = session.commit(begun, size=size, sha256=sha256)
    time = datetime.fromtimestamp(worker.clock(), UTC).isoformat(timespec="seconds")
    seal = seal_backup(worker.fleet_key, size=size, sha256=sha256, worker=worker.name, time=time)
    return BackupBegun(id=snapshot.id, size=size, sha256=sha256, tokens=tokens, seal=seal).model_dump()


@task(arguments=BackupReadInput, result=str, mcp=False, restricted=True, shows_tokens=True)
def backup_read(worker: TaskContext, arguments: BackupReadInput) -> str:
    """Read a chunk of the snapshot, at most 512 KiB, in Base64; empty past its end."""
    session = worker.transfers.snapshot
    with (
        session.acquire(arguments.id) as snapshot,
        _task_errors(session.folder),
        open_private(snapshot.file, "rb") as stream,
    ):
        stream.seek(arguments.offset)
        return base64.b64encode(stream.read(CHUNK_BYTES)).decode()


@task(arguments=TransferInput, result=bool, mcp=False, restricted=True)
def backup_end(worker: TaskContext, arguments: TransferInput) -> bool:
    """Remove the snapshot."""
    with worker.transfers.snapshot.acquire(arguments.id, is_last=True):
        return True


@task(arguments=RestoreBeginInput, result=RestoreBegun, mcp=False, restricted=True)
def restore_begin(worker: TaskContext, arguments: RestoreBeginInput) -> dict[str, Any]:
    """Announce a database, to be sent with `restore_write`; `restore_commit` then replaces all tokens by its tokens.

    The seal must be one that a machine with the same fleet key made, unless `unverified` accepts any. One upload is
    kept at a time, for 30 seconds after it was last used.
    """
    is_verified = verify_seal(
        worker.fleet_key,
        arguments.seal,
        size=arguments.size,
        sha256=arguments.sha256,
        unverified=arguments.unverified,
    )
    session = worker.transfers.upload
    with session.open() as begun, _task_errors(session.folder):
        open_private(begun.file, "xb").close()
        upload = session.commit(begun, size=arguments.size, sha256=arguments.sha256, is_verified=is_verified)
    return RestoreBegun(id=upload.id).model_dump()


@task(arguments=RestoreWriteInput, result=bool, mcp=False, restricted=True)
def restore_write(worker: TaskContext, arguments: RestoreWriteInput) -> bool:
    """Write a chunk of the announced database; safe to repeat."""
    try:
        data = base64.b64decode(arguments.data, validate=True)
    except ValueError:
        raise TaskError("data: must be Base64") from None
    session = worker.transfers.upload
    with session.acquire(arguments.id) as upload, _task_errors(session.folder):
        if arguments.offset + len(data) > upload.size:
            raise TaskError(f"offset: the chunk ends after the announced {upload.size} bytes")
        with open_private(upload.file, "r+b") as stream:
            stream.seek(arguments.offset)
            stream.write(data)
    return True


@task(arguments=TransferInput, result=Restored, mcp=False, audit="restore", restricted=True)
def restore_commit(worker: TaskContext, arguments: TransferInput) -> Result:
    """Replace all stored tokens by those of the uploaded database, in one transaction.

    Tokens that have expired meanwhile are skipped. Stored tokens that are not in the backup are revoked at once. The
    upload is removed, also when the task fails.
    """
    session = worker.transfers.upload
    with session.acquire(arguments.id, is_last=True) as upload, _task_errors(session.folder):
        loaded = _verified_tokens(upload)
        replaced = worker.store.replace(
            loaded.records,
            before_commit=worker.audit.before_commit(worker.client, reason=None if upload.is_verified else UNVERIFIED),
            tombstones=loaded.tombstones,
        )
    answer = Restored(restored=replaced.stored, removed=replaced.removed, expired=replaced.expired)
    messages = [] if upload.is_verified else [UNVERIFIED]
    if loaded.skipped:
        messages.append(f"skipped rows of the backup that hold no valid token: {loaded.skipped}")
    return Result(result=answer.model_dump(), messages=messages)


def _verified_tokens(upload: Transfer) -> LoadedTokens:
    """Return the tokens of an upload that has the announced size and checksum and is an intact database."""
    if upload.file.stat().st_size != upload.size or _sha256(upload.file) != upload.sha256:
        raise TaskError("upload does not match the announced size or checksum, nothing changed: restore again")
    with open_private(upload.file, "rb") as stream:
        is_database = stream.read(len(DATABASE_MAGIC)) == DATABASE_MAGIC
    try:
        loaded = read_backup(upload.file) if is_database else None
    except TokenStoreDamagedError:  # its message names the worker's own file
        loaded = None
    if loaded is None:
        raise TaskError("the backup is damaged or no token database, nothing changed: use another one")
    if not loaded.records and loaded.skipped:
        raise TaskError("the backup has rows but no valid token, nothing changed: use another one")
    return loaded


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open_private(file, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _task_errors(folder: Path) -> Iterator[None]:
    """Convert errors of the worker's own files into `TaskError`, whose message goes to the client."""
    try:
        yield
    except EnvironmentFolderError as error:
        raise TaskError(str(error)) from None
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise TaskError(f"the disk of {folder.parent} is full, nothing changed: make room on it") from error
        reason = error.strerror or os.strerror(error.errno or 0)
        raise TaskError(f"{folder} can't be used: {reason}, nothing changed: check that disk") from error
