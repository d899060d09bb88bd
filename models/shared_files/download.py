"""One file as it arrives: the parts that are requested, and the check that they are the file that was announced.

A worker streams the first part unasked, and each further one when a PUT names its offset. A few are requested ahead, so
that a long way costs little time; what is under way is bounded by that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, Self

from ..errors import SharedFileError
from ..protocol.frames import encode_data

CHUNK_BYTES: Final = 256_000
REQUESTED_AHEAD: Final = 8
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class FileDetails:
    """Size in bytes and MD5 digest, in lower-case hexadecimal digits, as the file service reports them."""

    size: int
    md5: str

    @classmethod
    def parse(cls, details: object) -> Self:
        """Return the details in a result of `file_details`.

        Raises:
            SharedFileError: they have another shape.
        """
        values: Mapping[str, Any] = details if isinstance(details, Mapping) else {}
        size, md5 = values.get("size_bytes"), values.get("md5hash")
        if type(size) is not int or size < 0 or not isinstance(md5, str) or not _MD5.fullmatch(md5):
            raise SharedFileError("the file service reports no valid size and checksum: check its version and log")
        return cls(size, md5)


class Checksum:
    """The MD5 digest of bytes that come in parts: what the file service compares, no protection against forgery."""

    def __init__(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def add(self, data: bytes) -> None:
        """Add further bytes."""
        self._hash.update(data)
        self.size += len(data)

    def matches(self, details: FileDetails) -> bool:
        """Whether size and digest are those."""
        return (self.size, self._hash.hexdigest()) == (details.size, details.md5)


class Download:
    """Writes the parts of a file to `stream` and says which to request; `receive` is a job's `on_stream`.

    `write_error`: why the file can't be written, None if it can.
    """

    def __init__(
        self,
        stream: IO[bytes],
        details: FileDetails,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        requested_ahead: int = REQUESTED_AHEAD,
    ) -> None:
        self.write_error: str | None = None
        self._stream = stream
        self._details = details
        self.chunk_bytes = chunk_bytes
        self._ahead_bytes = chunk_bytes * requested_ahead
        self._requested = chunk_bytes
        self._checksum = Checksum()

    def receive(self, data: bytes) -> list[bytes]:
        """Write a part; return the data of the PUTs that request further ones.

        Raises:
            SharedFileError: it isn't the part that was requested, or can't be written.
        """
        size, received = self._details.size, self._checksum.size
        expected = min(self.chunk_bytes, size - received)
        if len(data) != expected or not data:
            raise SharedFileError(
                f"byte {received} of {size}: {len(data)} bytes came and not {expected}: "
                "if the file is being changed, fetch it again"
            )
        try:
            self._stream.write(data)
        except OSError as error:
            self.write_error = error.strerror or str(error)
            raise SharedFileError("the file can't be written") from error
        self._checksum.add(data)
        puts = []
        while self._requested < min(size, self._checksum.size + self._ahead_bytes):
            puts.append(encode_data({"offset": self._requested}))
            self._requested += self.chunk_bytes
        return puts

    def verify(self) -> None:
        """Check that the whole file has come.

        Raises:
            SharedFileError: something is missing or different.
        """
        size, received = self._details.size, self._checksum.size
        if received != size:
            raise SharedFileError(f"only {received} of {size} bytes have come: fetch it again")
        if not self._checksum.matches(self._details):
            raise SharedFileError("its checksum is not the one that was announced: fetch it again")
