"""The format of backup files, and inputs and results of the tasks that transfer them.

A backup file is an SQLite database like the worker's own, followed by a trailer of one line:

    …database…
    nfcli backup 1 sha256 <64 hexadecimal digits: the SHA-256 of the database>

SQLite ignores bytes after its last page. No path is ever sent: the client reads and writes the file, the worker uses a
private folder of its own, and the database is transferred between them in chunks.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from .base import Report, TaskInput

MAX_BACKUP_BYTES = 1024**3
CHUNK_BYTES = 512 * 1024
"""Bytes of a database per message; in Base64 and JSON they have to fit the worker's limit of 1 MiB."""
CHUNK_CHARACTERS = -(-CHUNK_BYTES // 3) * 4
DATABASE_MAGIC = b"SQLite format 3\0"

_TRAILER = re.compile(rb"\nnfcli backup 1 sha256 ([0-9a-f]{64})\n")
TRAILER_BYTES = len(b"\nnfcli backup 1 sha256 ") + 64 + 1

TransferId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="Id of the transfer, from its begin task")]
Size = Annotated[int, Field(ge=1, le=MAX_BACKUP_BYTES, description="Size of the database in bytes")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the database, hexadecimal")]
Offset = Annotated[
    int, Field(ge=0, lt=MAX_BACKUP_BYTES, description="Where in the database the chunk begins, in bytes")
]
Chunk = Annotated[str, Field(max_length=CHUNK_CHARACTERS, repr=False, description="The chunk, in Base64")]


def encode_trailer(sha256: str) -> bytes:
    """Return the trailer of a backup file whose database has this SHA-256 (hexadecimal)."""
    return f"\nnfcli backup 1 sha256 {sha256}\n".encode()


def parse_trailer(trailer: bytes) -> str | None:
    """Return the SHA-256 in the last `TRAILER_BYTES` bytes of a backup file, None if they are not a trailer."""
    found = _TRAILER.fullmatch(trailer)
    return found[1].decode() if found else None


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


class RestoreWriteInput(BackupReadInput):
    """Arguments of `restore_write`."""

    data: Chunk


class BackupBegun(Report):
    """Result of `backup_begin`: a snapshot that is ready to be read."""

    id: TransferId
    size: Size
    sha256: Sha256
    tokens: int = Field(description="Number of tokens in the snapshot")


class RestoreBegun(Report):
    """Result of `restore_begin`: an upload that is ready to be written."""

    id: TransferId


class Restored(Report):
    """Result of `restore_commit`."""

    restored: int = Field(description="Number of tokens that are stored now")
    removed: int = Field(description="Number of tokens that were stored before and are not in the backup")
    expired: int = Field(description="Number of tokens of the backup that were skipped because they have expired")
