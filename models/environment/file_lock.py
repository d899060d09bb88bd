"""Advisory file locks (`flock`), which the kernel releases when their holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from ..errors import EnvironmentFolderError
from .private_files import open_private

_POLL_SECONDS = 0.005


class FileLock:
    """An open file, and the lock on it: shared by several holders, or held by one exclusively.

    Two locks on the same file exclude each other within a process as well. `stream` is the file; closing it releases
    the lock.

    Args:
        path: the file to lock.
        mode: as in `open`; with `a`, `w` or `x` a missing file is created.
        is_private: create the file with mode 0600, and refuse one that is open to other users.

    Raises:
        EnvironmentFolderError: the file isn't private.
        OSError: it can't be opened; while a lock is acquired: the file system has no locks.
    """

    def __init__(self, path: Path, mode: str = "ab", *, is_private: bool = True) -> None:
        self._path = path
        self.stream: IO[bytes] = open_private(path, mode) if is_private else path.open(mode)

    def acquire(self) -> None:
        """Wait until the exclusive lock is available, and take it."""
        fcntl.flock(self.stream, fcntl.LOCK_EX)

    def acquire_by(self, deadline: float, *, shared: bool = False) -> bool:
        """Take the lock once it is available; return whether it was until `deadline`, in monotonic seconds."""
        while not self.try_acquire(shared=shared):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock if it is available, without waiting; if it isn't, one that is already held is released."""
        try:
            fcntl.flock(self.stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self.stream, fcntl.LOCK_UN)  # a failed conversion keeps the former lock on some systems
            return False
        return True

    def is_at_path(self) -> bool:
        """Whether the path still names this file; a lock on a file that was removed or replaced excludes no one."""
        try:
            return os.path.samestat(os.fstat(self.stream.fileno()), self._path.lstat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file and release the lock; safe to repeat."""
        self.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder for the length of a `with` block, once it is available.

    Raises:
        OSError: the folder can't be opened or is a symbolic link, or its file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_change(file: Path, seconds: float) -> Iterator[None]:
    """Hold the lock `FILE.lock` of a file that several processes replace, for the length of a `with` block.

    Raises:
        EnvironmentFolderError: another process has held it for `seconds`, or the block raised an `OSError`: the file
            can't be written.
    """
    try:
        with FileLock(file.with_suffix(".lock")) as lock:
            if not lock.acquire_by(time.monotonic() + seconds):
                raise EnvironmentFolderError(f"{file} has been locked by another process for {seconds:g} s: try again")
            yield
    except OSError as error:
        raise EnvironmentFolderError(f"{file} can't be written: {error.strerror}") from error
