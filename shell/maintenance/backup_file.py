"""The file of a backup: written whole or not at all, and read with suspicion.

It is written under another name beside the one it will have, and gets that only when everything has arrived and is on
disk. A run that was killed leaves at most `FILE.nfcli-part`, which the next one takes over.
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
from ...models.tasks.backup import CHUNK_BYTES, DATABASE_MAGIC, MAX_BACKUP_BYTES, TRAILER_BYTES, parse_trailer

PART_SUFFIX = ".nfcli-part"

_OTHERS = 0o077


def absolute(file: Path) -> Path:
    """Return the path of a file that a user has named.

    Raises:
        EnvironmentFolderError: there is no saying where that is.
    """
    try:
        return file.expanduser().absolute()
    except (OSError, RuntimeError) as error:  # the working folder is gone, ~ of an unknown user
        raise EnvironmentFolderError(f"{file} can't be found: {error}") from None


@contextlib.contextmanager
def new_file(file: Path) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """Open what will be a file, for writing; `finish()` makes it the file, durably; without that nothing is left.

    Raises:
        EnvironmentFolderError: it is there already, another nfcli writes it, or it can't be written.
    """
    try:
        _assert_free(file)
        part = file.with_name(f"{file.name}{PART_SUFFIX}")
        with _open_part(part, file) as lock:
            try:
                yield lock.stream, lambda: _finish(lock.stream, part, file)
            finally:
                if lock.is_at_path():
                    part.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentFolderError(
            f"{file} can't be written: {error.strerror}: see to that folder, or name a file in another one"
        ) from error


def _assert_free(file: Path) -> None:
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
        _assert_free(file)
        raise
    except OSError:  # a file system without links
        _assert_free(file)
        part.rename(file)
    else:
        part.unlink()
    with contextlib.suppress(PermissionError):  # a folder that may be written to, but not read
        sync_folder(file.parent)


@contextlib.contextmanager
def open_backup(file: Path) -> Iterator[IO[bytes]]:
    """Open a backup to read it.

    Raises:
        EnvironmentFolderError: it can't be read.
        TaskError: it is no regular file.
    """
    try:
        # A FIFO must not hang us; it means nothing for regular files.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:  # noqa: PTH123  a descriptor, no path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _no_backup(file)
            yield stream
    except OSError as error:
        raise EnvironmentFolderError(f"{file} can't be read: {error.strerror}: name a backup file") from error


def _no_backup(file: Path) -> TaskError:
    return TaskError(f"{file} is no backup, nothing was changed: name a file that nfcli --backup has written")


def exposure(stream: IO[bytes], file: Path) -> str | None:
    """Return what to say of a backup that other users can read, None where they can't."""
    if os.fstat(stream.fileno()).st_mode & _OTHERS:
        return f"{file} holds tokens and is open to other users: run chmod 600 {shlex.quote(str(file))}"
    return None


def verified(stream: IO[bytes], file: Path) -> tuple[int, str]:
    """Return size and SHA-256 of the database in a backup file, once they are what the file says.

    Raises:
        TaskError: it is no backup, not a whole one, or not as it was written.
    """
    size = os.fstat(stream.fileno()).st_size - TRAILER_BYTES
    if size <= 0 or stream.read(len(DATABASE_MAGIC)) != DATABASE_MAGIC:
        raise _no_backup(file)
    stream.seek(size)
    promised = parse_trailer(stream.read(TRAILER_BYTES))
    stream.seek(0)
    digest = hashlib.sha256()
    while chunk := stream.read(min(CHUNK_BYTES, size - stream.tell())):
        digest.update(chunk)
    if digest.hexdigest() != promised:
        raise TaskError(
            f"{file} was cut short or altered since it was written, nothing was changed: take another backup"
        )
    if size > MAX_BACKUP_BYTES:
        raise TaskError(f"{file} is larger than a backup may be ({MAX_BACKUP_BYTES} bytes), nothing was changed")
    return size, digest.hexdigest()
