"""Backup files: created atomically, and verified before they are used.

A new file is written as `FILE.nfcli-part` and gets its name once it is complete and on disk. A run that was killed
leaves at most that part, which the next run replaces.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ...models.environment.file_lock import FileLock
from ...models.environment.private_files import sync_folder
from ...models.errors import EnvironmentFolderError, TaskError
from ...models.tasks.backup import (
    CHUNK_BYTES,
    DATABASE_MAGIC,
    MAX_BACKUP_BYTES,
    MAX_TRAILER_BYTES,
    BackupSeal,
    parse_trailer,
)

PART_SUFFIX = ".nfcli-part"

_OTHERS = 0o077


def resolve_path(file: Path) -> Path:
    """Return the absolute path of a file that the user named.

    Raises:
        EnvironmentFolderError: it can't be determined.
    """
    try:
        return file.expanduser().absolute()
    except (OSError, RuntimeError) as error:  # the working folder is gone, ~ of an unknown user
        raise EnvironmentFolderError(f"{file} can't be found: {error}") from None


@contextlib.contextmanager
def create_backup(file: Path) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """Open a new file for writing; `finish()` gives it its name, durably; without that it is removed.

    Raises:
        EnvironmentFolderError: the file exists, another nfcli is writing it, or it can't be written.
    """
    try:
        _assert_absent(file)
        part = file.with_name(f"{file.name}{PART_SUFFIX}")
        with _open_part(part, file) as lock:
            try:
                yield lock.stream, lambda: _finish(lock.stream, part, file)
            finally:
                if lock.is_at_path():
                    part.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentFolderError(
            f"{file} can't be written: {error.strerror}: check that folder, or name a file in another one"
        ) from error


def _assert_absent(file: Path) -> None:
    if os.path.lexists(file):
        raise EnvironmentFolderError(f"{file} exists already: nothing was overwritten, name another file")


def _open_part(part: Path, file: Path) -> FileLock:
    """Create the file to write to, and lock it."""
    while True:
        lock = FileLock(part)
        if not (lock.try_acquire() and lock.is_at_path()):
            lock.close()
            raise EnvironmentFolderError(f"{file} is being written by another nfcli: name another file")
        if lock.stream.tell() == 0:
            return lock
        # Left by a run that was killed; never truncated, as it may be a second name of a backup just finished.
        part.unlink()
        lock.close()


def _finish(stream: IO[bytes], part: Path, file: Path) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    try:
        file.hardlink_to(part)  # unlike a rename it replaces nothing
    except FileExistsError:
        _assert_absent(file)
        raise
    except OSError:  # a file system without links
        _assert_absent(file)
        part.rename(file)
    else:
        part.unlink()
    with contextlib.suppress(PermissionError):  # a folder that is writable, but not readable
        sync_folder(file.parent)


@contextlib.contextmanager
def open_backup(file: Path) -> Iterator[IO[bytes]]:
    """Open a backup for reading.

    Raises:
        EnvironmentFolderError: it can't be read.
        TaskError: it isn't a regular file.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not block; regular files ignore it.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:  # noqa: PTH123  a descriptor, not a path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _not_a_backup(str(file))
            yield stream
    except OSError as error:
        raise EnvironmentFolderError(f"{file} can't be read: {error.strerror}: name a backup file") from error


def _not_a_backup(name: str) -> TaskError:
    return TaskError(f"{name} is not a backup, nothing was changed: name a file that nfcli --backup has written")


def exposure_warning(stream: IO[bytes], file: Path) -> str | None:
    """Return the warning about a backup that is open to other users, None if it isn't."""
    if os.fstat(stream.fileno()).st_mode & _OTHERS:
        return f"{file} holds tokens and is open to other users: run chmod 600 {shlex.quote(str(file))}"
    return None


def verify_backup(stream: IO[bytes], name: str) -> tuple[int, str, BackupSeal | None]:
    """Return size and SHA-256 of the database in a backup, verified against its trailer, and the seal, not verified.

    `name` is what messages call the backup.

    Raises:
        TaskError: it isn't a backup, or was truncated or altered.
    """
    total = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if total <= MAX_TRAILER_BYTES or stream.read(len(DATABASE_MAGIC)) != DATABASE_MAGIC:
        raise _not_a_backup(name)
    stream.seek(total - MAX_TRAILER_BYTES)
    trailer = parse_trailer(stream.read(MAX_TRAILER_BYTES))
    length, expected, seal = trailer or (0, "", None)
    size = total - length
    stream.seek(0)
    digest = hashlib.sha256()
    while chunk := stream.read(min(CHUNK_BYTES, size - stream.tell())):
        digest.update(chunk)
    if digest.hexdigest() != expected:
        raise TaskError(
            f"{name} was truncated or altered since it was written, nothing was changed: use another backup"
        )
    if size > MAX_BACKUP_BYTES:
        raise TaskError(f"{name} must have at most {MAX_BACKUP_BYTES} bytes, nothing was changed: use another backup")
    return size, expected, seal
