"""Whether `nfcli -w` runs the workers of an environment: shells then leave starting and restarting them to it.

It holds one lock while it runs, and another one until it has tried to start each worker. The kernel releases both when
it ends, however it ends.
"""

from __future__ import annotations

import time

from ...models.environment.file_lock import FileLock
from ...models.environment.paths import Environment

_RUNNING, _STARTING = "supervisor.running", "supervisor.starting"
_RETRY_SECONDS = 1.0
_POLL_SECONDS = 0.05


class Supervision:
    """The locks of an `nfcli -w`. Where another one has them, it has none and its workers can't start."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._locks: list[FileLock] = []

    def begin(self) -> None:
        """Take both locks; shells that look at them do so for a moment only."""
        self._environment.prepare()
        self._locks = [FileLock(self._environment.run_folder / name) for name in (_RUNNING, _STARTING)]
        deadline = time.monotonic() + _RETRY_SECONDS
        for lock in self._locks:
            lock.acquire_by(deadline)

    def end_start(self) -> None:
        """Release the lock that says that workers are still to be started."""
        self._locks[1].close()

    def end(self) -> None:
        """Release what is left."""
        for lock in self._locks:
            lock.close()


def is_supervised(environment: Environment, deadline: float) -> bool:
    """Return whether an `nfcli -w` runs the workers; if so, wait until it has tried to start each of them.

    `deadline` is in monotonic seconds.
    """
    if not _is_held(environment, _RUNNING):
        return False
    while _is_held(environment, _STARTING) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return True


def _is_held(environment: Environment, name: str) -> bool:
    with FileLock(environment.run_folder / name) as lock:
        return not lock.try_acquire(shared=True)
