"""Journal of revocations that could not be committed to the database: slots of a file that is written in place.

Overwriting needs no free space, so it works on a full disk. A slot holds the digest of a token, or of the name of a
user all of whose tokens were revoked; the next start removes these tokens.

    offset 0   kind       1 byte: 0 empty, T a token, U a user
           1   digest    32 bytes: SHA-256 of the text
          33   checksum  31 bytes: the beginning of the SHA-256 of kind and digest
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ....models.environment.private_files import open_private, write_private
from ....models.tokens import BearerTokenRecord

SLOT_BYTES = 64
SLOTS = 1024

_TOKEN, _USER = b"T", b"U"
_BODY_BYTES = 33


class RevocationJournal:
    """The journal of one token database. One thread uses it. `is_empty` is false once something was recorded."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "revoked"
        self._used = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is recorded."""
        return self._used == 0

    def exists(self) -> bool:
        """Whether the file is there."""
        return self._file.exists()

    def prepare(self) -> None:
        """Create the file when it is missing or incomplete.

        Raises:
            EnvironmentFolderError, OSError: it can't be created, or isn't private.
        """
        if not self._file.exists() or self._file.stat().st_size != SLOTS * SLOT_BYTES:
            write_private(self._file, bytes(SLOTS * SLOT_BYTES))

    def record(self, *, username: str | None, token: str | None) -> None:
        """Record that a token was revoked, or without one all tokens of a user; on disk (fsync) when this returns.

        Raises:
            EnvironmentFolderError, OSError: it can't be written, isn't private, or is full.
        """
        if self._used == SLOTS:
            raise OSError(f"{self._file} has no free slot")
        body = _body(_TOKEN, token) if token is not None else _body(_USER, username or "")
        self._write(self._used * SLOT_BYTES, body + _checksum(body))
        self._used += 1

    def clear(self) -> None:
        """Forget everything; on disk (fsync) when this returns.

        Raises:
            EnvironmentFolderError, OSError: as `record` does.
        """
        if self._used:
            self._write(0, bytes(self._used * SLOT_BYTES))
            self._used = 0

    def read(self, records: list[BearerTokenRecord]) -> list[BearerTokenRecord]:
        """Return those of `records` that the journal says are revoked; damaged slots are ignored.

        Raises:
            EnvironmentFolderError, OSError: it can't be read, or isn't private.
        """
        try:
            with open_private(self._file, "rb") as stream:
                content = stream.read(SLOTS * SLOT_BYTES)
        except FileNotFoundError:
            return []
        slots = [content[start : start + SLOT_BYTES] for start in range(0, len(content), SLOT_BYTES)]
        self._used = max((number for number, slot in enumerate(slots, start=1) if any(slot)), default=0)
        bodies = {slot[:_BODY_BYTES] for slot in slots if slot[_BODY_BYTES:] == _checksum(slot[:_BODY_BYTES])}
        if not bodies:
            return []
        return [
            record
            for record in records
            if _body(_TOKEN, record.token) in bodies or _body(_USER, record.username) in bodies
        ]

    def _write(self, offset: int, content: bytes) -> None:
        with open_private(self._file, "r+b") as stream:
            os.pwrite(stream.fileno(), content, offset)
            os.fsync(stream.fileno())


def _body(kind: bytes, text: str) -> bytes:
    return kind + hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[: SLOT_BYTES - _BODY_BYTES]
