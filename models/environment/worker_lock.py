"""Ownership of a worker's name: a lock on `run/NAME.lock`, and the owner's published state in `run/NAME.json`.

The lock decides: the kernel releases it when its holder ends, however it ends. The state is stored in a file of its
own, because only a rename replaces content atomically, and a rename would replace the locked inode.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EnvironmentFolderError, WorkerStartError
from .file_lock import FileLock
from .private_files import open_private, write_private

# A probe (`read_owner`) holds a shared lock for microseconds; an owner publishes as soon as it has the lock.
ACQUIRE_RETRY_SECONDS = 0.5
PUBLISH_GRACE_SECONDS = 0.2
_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class LockOwner:
    """Published state of the process that owns a worker's name.

    `pid` is None before it has published any. `ready` is true once it answers at `endpoint` (ZeroMQ) and `url` (MCP).
    """

    pid: int | None
    ready: bool = False
    endpoint: str | None = None
    url: str | None = None


class WorkerLock:
    """A process's ownership of a worker's name, until `release` or the end of the process."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self._path = path
        self._lock = lock
        self._info: dict[str, Any] = {
            "pid": os.getpid(),
            "ready": False,
            "endpoint": None,
            "url": None,
            "started": time.time(),
        }

    @classmethod
    def acquire(cls, path: Path, *, retry_seconds: float = ACQUIRE_RETRY_SECONDS) -> WorkerLock:
        """Take the lock and publish this process as its owner, in place of what a dead owner left behind.

        `retry_seconds` is how long probes by other processes may keep it from being taken.

        Raises:
            WorkerStartError: another process holds it (the message names its pid), or the file can't be written.
            EnvironmentFolderError: the lock file is a link, another user's, or open to other users.
        """
        deadline = time.monotonic() + retry_seconds
        try:
            while (held := _try_lock(path)) is None:
                if time.monotonic() >= deadline:
                    raise WorkerStartError(_held_message(path))
                time.sleep(_POLL_SECONDS)
            lock = cls(path, held)
            try:
                lock.publish()
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            raise WorkerStartError(f"{path} can't be written: {error.strerror}") from error
        return lock

    def publish(self, **info: Any) -> None:
        """Add to the owner's published state: `ready`, `endpoint`, `url`, or anything else that JSON can hold.

        Readers see either the old state or the new one, never a part.

        Raises:
            OSError: it can't be written; readers still see the old state.
        """
        self._info.update(info)
        write_private(_state_file(self._path), json.dumps(self._info).encode())

    def release(self) -> None:
        """Release the name and remove the published state; safe to repeat."""
        if self._lock.stream.closed:
            return
        with contextlib.suppress(OSError):
            _state_file(self._path).unlink(missing_ok=True)
        self._lock.close()


def read_owner(path: Path) -> LockOwner | None:
    """Return the published state of a lock file's owner, None if no process holds the lock.

    Any process of the same user may call this at any time. It takes up to 0.2 s if an owner holds the lock but has
    published nothing yet.

    Raises:
        EnvironmentFolderError: the lock file can't be read, is a link, another user's, or open to other users.
    """
    deadline = time.monotonic() + PUBLISH_GRACE_SECONDS
    try:
        while has_owner(path, is_private=True):
            owner = _read_state(path)
            # The state of a dead process is what a crashed owner left, until the new one has replaced it. If it is
            # still there after the grace period, its process runs where its pid can't be seen: in a container.
            if owner is not None and owner.pid is not None and _is_alive(owner.pid):
                return owner
            if time.monotonic() >= deadline:
                return owner or LockOwner(pid=None)
            time.sleep(_POLL_SECONDS)
    except OSError as error:
        raise EnvironmentFolderError(f"{path} can't be read: {error.strerror}") from error
    return None


def has_owner(path: Path, *, is_private: bool = False) -> bool:
    """Whether a process holds the lock file; with `is_private` one that is open to other users is refused.

    Raises:
        EnvironmentFolderError: the file is refused.
        OSError: it can't be opened.
    """
    try:
        with FileLock(path, "rb", is_private=is_private) as probe:
            return not probe.try_acquire(shared=True)  # shared, so that probes don't exclude each other
    except FileNotFoundError:
        return False


def _state_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _try_lock(path: Path) -> FileLock | None:
    """Return the lock, None while another process holds it."""
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(FileLock(path))
        if lock.try_acquire() and lock.is_at_path():
            stack.pop_all()
            return lock
    return None


def _read_state(path: Path) -> LockOwner | None:
    try:
        with open_private(_state_file(path), "rb") as stream:
            content = json.loads(stream.read())
        return LockOwner(
            pid=int(content["pid"]),
            ready=bool(content["ready"]),
            endpoint=content["endpoint"],
            url=content["url"],
        )
    except (OSError, ValueError, KeyError, TypeError, EnvironmentFolderError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:  # EPERM: another user's
        return not isinstance(error, ProcessLookupError)
    return True


def _held_message(path: Path) -> str:
    owner = read_owner(path)
    who = f"process {owner.pid}" if owner is not None and owner.pid is not None else "another process"
    return f"worker {path.stem} is already running in this environment, owned by {who}: stop that process first"
