"""The format of backup files, and inputs and results of the tasks that transfer them.

A backup file is an SQLite database like the worker's own, followed by a trailer of one line:

    …database…
    nfcli backup 2 sha256 HASH worker NAME time TIME key ID seal SEAL

HASH is the SHA-256 of the database, 64 hexadecimal digits, which anybody can compute: it detects damage. SEAL is an
HMAC-SHA256 of the rest (`worker/tasks/backup_seal.py`), which needs the fleet key with that ID: it detects
forgery. Files of earlier versions end with `nfcli backup 1 sha256 HASH`; they have no seal.

SQLite ignores bytes after its last page. No path is ever sent: the client reads and writes the file, the worker uses a
private folder of its own, and the database is transferred between them in chunks.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, ValidationError

from .base import Report, TaskInput

MAX_BACKUP_BYTES = 1024**3
CHUNK_BYTES = 512 * 1024
"""Bytes of a database per message; in Base64 and JSON they have to fit the worker's limit of 1 MiB."""
CHUNK_CHARACTERS = -(-CHUNK_BYTES // 3) * 4
DATABASE_MAGIC = b"SQLite format 3\0"

MAX_TRAILER_BYTES = 400

_HASH = rb"[0-9a-f]{64}"
_TRAILER = re.compile(
    rb"\nnfcli backup (?:1 sha256 (%b)|2 sha256 (%b) worker (\S{1,64}) time (\S{1,40}) key ([0-9a-f]{8}) seal (%b))\n\Z"
    % (_HASH, _HASH, _HASH)
)

TransferId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="Id of the transfer, from its begin task")]
Size = Annotated[int, Field(ge=1, le=MAX_BACKUP_BYTES, description="Size of the database in bytes")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the database, hexadecimal")]
Offset = Annotated[
    int, Field(ge=0, lt=MAX_BACKUP_BYTES, description="Where in the database the chunk begins, in bytes")
]
Chunk = Annotated[str, Field(max_length=CHUNK_CHARACTERS, repr=False, description="The chunk, in Base64")]


class BackupSeal(Report):
    """The seal of a backup: which worker made it, when, with which fleet key, and the HMAC of that and its content."""

    worker: Annotated[str, Field(pattern=r"^[!-~]{1,64}$", description="Name of the worker that made the backup")]
    time: Annotated[str, Field(pattern=r"^[!-~]{1,40}$", description="When it was made, ISO 8601 in UTC")]
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$", description="Id of the fleet key")]
    seal: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="HMAC-SHA256, hexadecimal")]


def encode_trailer(sha256: str, seal: BackupSeal) -> bytes:
    """Return the trailer of a backup file whose database has this SHA-256 (hexadecimal)."""
    sealed = f"worker {seal.worker} time {seal.time} key {seal.key} seal {seal.seal}"
    return f"\nnfcli backup 2 sha256 {sha256} {sealed}\n".encode()


def parse_trailer(end: bytes) -> tuple[int, str, BackupSeal | None] | None:
    """Return length, SHA-256 and seal of the trailer in the end of a file; None without one.

    `end` is at least the last `MAX_TRAILER_BYTES` bytes, or the whole file. The seal is None in a file of an earlier
    version; it is not verified.
    """
    found = _TRAILER.search(end)
    if found is None:
        return None
    plain, sha256, worker, time, key, seal = ((value or b"").decode("latin-1") for value in found.groups())
    if plain:
        return len(found[0]), plain, None
    try:
        return len(found[0]), sha256, BackupSeal(worker=worker, time=time, key=key, seal=seal)
    except ValidationError:
        return None


class TransferInput(TaskInput):
    """Arguments of `backup_end` and `restore_commit`."""

    id: TransferId


class BackupReadInput(TransferInput):
    """Arguments of `backup_read`."""

    offset: Offset


class RestoreBeginInput(TaskInput):
    """Arguments of `restore_begin`."""

    size: Size
    sha256: Sha256
    seal: Annotated[BackupSeal | None, Field(description="Seal of the backup, null if it has none")] = None
    unverified: Annotated[bool, Field(description="Accept a backup whose seal can't be verified")] = False


class RestoreWriteInput(BackupReadInput):
    """Arguments of `restore_write`."""

    data: Chunk


class BackupBegun(Report):
    """Result of `backup_begin`: a snapshot that is ready to be read."""

    id: TransferId
    size: Size
    sha256: Sha256
    tokens: int = Field(description="Number of tokens in the snapshot")
    seal: BackupSeal


class RestoreBegun(Report):
    """Result of `restore_begin`: an upload that is ready to be written."""

    id: TransferId


class Restored(Report):
    """Result of `restore_commit`."""

    restored: int = Field(description="Number of tokens that are stored now")
    removed: int = Field(description="Number of tokens that were stored before and are not in the backup")
    expired: int = Field(description="Number of tokens of the backup that were skipped because they have expired")
