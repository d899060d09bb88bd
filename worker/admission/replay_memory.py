"""The signed jobs that a worker has run within the window in which their signatures are valid.

A file keeps them across restarts. It survives the process's death, but not the machine's: after a restart of the
machine, or without a file, jobs that were signed before the worker's start are refused.

A file that can be neither written nor removed would lack the jobs that are run from then on, and a later start would
trust it: such jobs are refused. Only what revokes tokens may be run, since its repetition does no harm.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import struct
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Self

from ...models.environment.private_files import open_private, write_private
from ...models.errors import EnvironmentFolderError

log = logging.getLogger(__name__)

WINDOW_SECONDS = 120
"""How old a signature may be, and how far ahead: by how much the clocks of client and worker may differ."""
MAX_JOBS = 500_000

_WINDOW = WINDOW_SECONDS * 1_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HEADER = struct.Struct(">8s36sQ")
_MAGIC = b"nfjobs 1"
_JOB = struct.Struct(">16sQ")
_MIN_PURGE = 1_024


class ReplayMemory:
    """Remembers signed jobs; any thread may call `add`. All times are in milliseconds since the epoch, as signed.

    `clock` returns seconds since the epoch, `boot_id` identifies the machine's start.
    """

    def __init__(
        self, file: Path, *, clock: Callable[[], float], boot_id: bytes | None = None, max_jobs: int = MAX_JOBS
    ) -> None:
        self._file = file
        self._clock = clock
        self._boot_id = (_read_boot_id() if boot_id is None else boot_id).ljust(36)[:36]
        self._max_jobs = max_jobs
        self._lock = threading.Lock()
        self._jobs: dict[bytes, int] = {}
        self._floor = 0
        self._descriptor: int | None = None
        self._problem: str | None = None
        """Why the file on disk lacks jobs; None where it has all of them, or is gone."""
        self._load()
        self._rewrite()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._close()

    def add(self, client: str, uuid: str, signed_at: int, *, may_be_repeated: bool = False) -> str | None:
        """Remember a job of a client that was signed at a time; return why it must not be run, None if it may be.

        `may_be_repeated`: a repetition after a restart would do no harm.
        """
        job = sha256(f"{client} {uuid}".encode("utf-8", "surrogatepass")).digest()[:16]
        with self._lock:
            now = self._now()
            if not now - _WINDOW <= signed_at <= now + _WINDOW:
                age = (now - signed_at) / 1_000
                distance = f"{abs(age):.1f} s {'ago' if age > 0 else 'ahead'}"
                return (
                    f"it was signed {distance} by this worker's clock, more than {WINDOW_SECONDS} s: set the clocks of "
                    "both machines right and send it again"
                )
            if job in self._jobs:
                return "it was run before: it is a repetition of a signed job"
            if signed_at <= self._floor:
                return "it was signed before this worker's record of signed jobs begins: send it again"
            if len(self._jobs) >= self._purge_at or self._problem is not None:
                self._rewrite()
            if len(self._jobs) >= self._max_jobs:
                return f"{self._max_jobs} signed jobs were run within {WINDOW_SECONDS} s: send it again later"
            self._jobs[job] = signed_at
            self._append(_JOB.pack(job, signed_at))
            if self._problem is None or may_be_repeated:
                return None
            del self._jobs[job]
            return (
                f"this worker can't record it ({self._problem}), and would run it again after a restart: make the disk "
                "writable and send it again"
            )

    def _now(self) -> int:
        return int(self._clock() * 1_000)

    def _load(self) -> None:
        content = b""
        with contextlib.suppress(OSError, EnvironmentFolderError), open_private(self._file, "rb") as stream:
            content = stream.read()
        body = content[_HEADER.size :]
        is_complete = len(content) >= _HEADER.size and len(body) % _JOB.size == 0
        magic, boot_id, self._floor = _HEADER.unpack_from(content) if is_complete else (b"", b"", 0)
        if magic != _MAGIC or boot_id != self._boot_id:
            self._floor = self._now()
            return
        self._jobs = {bytes(job): signed_at for job, signed_at in _JOB.iter_unpack(body)}

    def _rewrite(self) -> None:
        """Forget the jobs whose signatures have expired, and rewrite the file."""
        oldest = self._now() - _WINDOW
        expired = [signed_at for signed_at in self._jobs.values() if signed_at < oldest]
        # A clock that is set back makes no signature valid again whose job was forgotten.
        self._floor = max([self._floor, *expired])
        self._jobs = {job: signed_at for job, signed_at in self._jobs.items() if signed_at >= oldest}
        self._purge_at = min(max(_MIN_PURGE, 2 * len(self._jobs)), self._max_jobs)
        self._close()
        records = [_JOB.pack(job, signed_at) for job, signed_at in self._jobs.items()]
        try:
            write_private(self._file, b"".join([_HEADER.pack(_MAGIC, self._boot_id, self._floor), *records]))
            self._descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            self._give_up(error)
        else:
            self._problem = None

    def _append(self, record: bytes) -> None:
        if self._descriptor is None:
            return
        try:
            written = os.write(self._descriptor, record)
        except OSError as error:
            self._give_up(error)
        else:
            if written < len(record):
                self._give_up(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _give_up(self, error: OSError) -> None:
        """Keep no file until it is rewritten: without one, the next start trusts no earlier signature."""
        self._close()
        problem = f"{self._file}: {error.strerror}"
        if self._is_removed():
            self._problem = None
            log.warning("record of signed jobs not written: %s", problem)
        elif self._problem is None:  # otherwise it has been said
            self._problem = problem
            log.error("record of signed jobs neither written nor removed, signed jobs are refused: %s", problem)

    def _is_removed(self) -> bool:
        """Remove the file; return whether nothing is there that a start would read."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
        try:
            return not self._file.is_file()
        except OSError:
            return False

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _read_boot_id() -> bytes:
    try:
        return _BOOT_ID.read_bytes().strip()
    except OSError:  # not Linux: each start is taken for one of the machine
        return os.urandom(18).hex().encode()
