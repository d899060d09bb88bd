"""Space on the disk of a token database: whether there is any, and a file that keeps some back for revocations."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from ....models.environment.private_files import sync_folder, write_private
from ....models.errors import NfcliError

RESERVE_BYTES = 256 * 1024
MIN_FREE_BYTES = 64 * 1024
"""A disk with less free space counts as full."""

_PROBE_BYTES = 4096


class Reserve:
    """A file whose space is released when a revocation finds the disk full, and taken again once there is more."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "reserve"

    def exists(self) -> bool:
        """Whether space is kept back."""
        return self._file.exists()

    def release(self) -> bool:
        """Free the space; return whether there was any."""
        try:
            self._file.unlink()
            sync_folder(self._file.parent)
        except OSError:
            return False
        return True

    def release_if_full(self) -> None:
        """Free the space if the disk is full, for what the start of a worker writes."""
        if self.exists() and space_problem(self._file.parent, is_thorough=False):
            self.release()

    def restore(self) -> bool:
        """Keep space back unless the disk is nearly full; return whether it is kept back now."""
        if not self.exists():
            with suppress(OSError, NfcliError):
                if _free_bytes(self._file.parent) >= 2 * RESERVE_BYTES:
                    write_private(self._file, os.urandom(RESERVE_BYTES))  # some file systems would compress zeros
        return self.exists()


def space_problem(folder: Path, *, is_thorough: bool) -> str | None:
    """Return why a disk can't be written now, and the remedy; None if it can. Changes nothing that can be seen.

    What the file system reports is not all: a quota and a failing disk show when a file is written, with `is_thorough`.
    """
    try:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return f"the disk of {folder} is mounted read-only: mount it writable"
        if _free_bytes(folder) < MIN_FREE_BYTES:
            return f"the disk of {folder} is full: make room on it"
        if is_thorough:
            _write_unnamed_file(folder)
    except OSError as error:
        return f"the disk of {folder} can't be written ({error.strerror}): make room on it, or check its mount"
    return None


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    if status.f_files and not status.f_favail:  # no more files can be created
        return 0
    return status.f_bavail * status.f_frsize


def _write_unnamed_file(folder: Path) -> None:
    unnamed = getattr(os, "O_TMPFILE", None)
    if unnamed is None:
        return
    try:
        descriptor = os.open(folder, os.O_WRONLY | unnamed | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in {errno.EISDIR, errno.ENOENT, errno.EOPNOTSUPP}:  # not every file system has such files
            return
        raise
    try:
        os.write(descriptor, bytes(_PROBE_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
