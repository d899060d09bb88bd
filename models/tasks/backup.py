"""A backup of a worker's tokens: the file, and what the tasks that send one to and fro take and give.

A backup file is an SQLite database, as the worker's own, and behind it one line that vouches for it:

    …database…
    nfcli backup 1 sha256 <64 hexadecimal digits: the SHA-256 of the database>

SQLite looks at nothing behind its last page. No path is ever sent: the client reads and writes the file, the worker
keeps its side in a place of its own, and the database travels between them in chunks.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from .base import TaskInput

MAX_BACKUP_BYTES = 1024**3
CHUNK_BYTES = 512 * 1024
"""How much of a database one message carries; in Base64 and JSON it has to fit the worker's limit of 1 MiB."""
CHUNK_CHARACTERS = -(-CHUNK_BYTES // 3) * 4
DATABASE_MAGIC = b"SQLite format 3\0"

_SEAL = re.compile(rb"\nnfcli backup 1 sha256 ([0-9a-f]{64})\n")
SEAL_BYTES = len(b"\nnfcli backup 1 sha256 ") + 64 + 1

TransferId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="Id of the transfer, from its begin task")]
Size = Annotated[int, Field(ge=1, le=MAX_BACKUP_BYTES, description="Size of the database in bytes")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the database, hexadecimal")]
Offset = Annotated[
    int, Field(ge=0, lt=MAX_BACKUP_BYTES, description="Where in the database the chunk begins, in bytes")
]
Chunk = Annotated[str, Field(max_length=CHUNK_CHARACTERS, repr=False, description="The chunk, in Base64")]


def seal(sha256: str) -> bytes:
    """Return what stands behind a database with this SHA-256 (hexadecimal) to make it a backup file."""
    return f"\nnfcli backup 1 sha256 {sha256}\n".encode()


def sealed_sha256(end: bytes) -> str | None:
    """Return the SHA-256 that the last `SEAL_BYTES` bytes of a backup file promise, None where they are none."""
    found = _SEAL.fullmatch(end)
    return found[1].decode() if found else None


class BackupReadInput(TaskInput):
    """Arguments of `backup_read`."""

    id: TransferId
    offset: Offset


class BackupEndInput(TaskInput):
    """Arguments of `backup_end`."""

    id: TransferId


class RestoreBeginInput(TaskInput):
    """Arguments of `restore_begin`."""

    size: Size
    sha256: Sha256


class RestoreWriteInput(TaskInput):
    """Arguments of `restore_write`."""

    id: TransferId
    offset: Offset
    data: Chunk


class RestoreCommitInput(TaskInput):
    """Arguments of `restore_commit`."""

    id: TransferId


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackupBegun(_Report):
    """What `backup_begin` has made ready to be read."""

    id: TransferId
    size: Size
    sha256: Sha256
    tokens: int = Field(description="Number of tokens in it")


class RestoreBegun(_Report):
    """What `restore_begin` has made ready to be written."""

    id: TransferId


class Restored(_Report):
    """What `restore_commit` has done."""

    restored: int = Field(description="Number of tokens that are stored now")
    removed: int = Field(description="Number of tokens that were stored before and are not in the backup")
    expired: int = Field(description="Number of tokens of the backup that have expired and were passed over")
