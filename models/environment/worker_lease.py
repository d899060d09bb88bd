"""Shared use of a worker by several shells: the worker ends once the last of them has released its lease.

Each process holds a shared lock on `run/NAME.users` while it uses the worker. A worker whose parent process has ended
takes that lock exclusively before it shuts down: it waits for the other processes, and processes that come meanwhile
wait for its end. The kernel releases the locks of a process that ends, however it ends.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import WorkerStartError
from .file_lock import FileLock

_SUFFIX = ".users"


def acquire_lease(lock_file: Path, deadline: float) -> FileLock:
    """Acquire a lease of a worker; it lasts until the returned lock is closed, or the process ends.

    The lock's `try_acquire` is true for the last lease, and new ones then wait; otherwise it releases the lease.

    Args:
        lock_file: the worker's lock file (`models/environment/worker_lock.py`); the leases' file is stored beside it.
        deadline: monotonic seconds until which to wait for a worker that is shutting down.

    Raises:
        WorkerStartError: that worker has not ended by then.
        EnvironmentFolderError, OSError: the file can't be opened privately.
    """
    lock = FileLock(lock_file.with_suffix(_SUFFIX))
    if not lock.acquire_by(deadline, shared=True):
        lock.close()
        raise WorkerStartError(f"worker {lock_file.stem} is not shutting down: kill it")
    return lock


def wait_until_unused(lock_file: Path) -> FileLock:
    """Wait until all leases of the worker are released; new ones wait until the returned lock is closed.

    Raises:
        EnvironmentFolderError, OSError: the file can't be opened privately.
    """
    lock = FileLock(lock_file.with_suffix(_SUFFIX))
    lock.acquire()
    return lock
