"""Databases on their way: one snapshot that a client fetches, and one upload of a client's, each in a private folder.

Clients never name a file: they get an id for what they began. Whatever ends a transfer, its file goes: its own end, the
next one's beginning, a while without a sign of life, the start and the stop of the worker.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...models.environment.private_files import make_private_folder
from ...models.errors import NfcliError, TaskError

IDLE_SECONDS = 30.0


@dataclass(frozen=True)
class Transfer:
    """A database on its way: where it lies, and what it has to be once it is whole (`sha256` in hexadecimal)."""

    id: str
    file: Path
    size: int = 0
    sha256: str = ""


class TransferSession:
    """Room for one transfer; all methods may be called from any thread, none of them waits for another.

    Args:
        what: what is transferred, for error messages: `backup`, `restore`.
        clock: monotonic seconds.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._lock = threading.Lock()
        self._held: Transfer | None = None
        self._is_used = False
        self._last_used = 0.0

    @contextlib.contextmanager
    def open(self, folder: Path) -> Iterator[Transfer]:
        """Make room for a transfer in `folder`, which is made anew; it is there for others once `commit` was called.

        If the block raises, or doesn't call `commit`, the folder is removed.

        Raises:
            TaskError: another transfer is under way, or the folder can't be made.
        """
        with self._lock:
            if self._is_used or (self._held is not None and not self._is_idle()):
                raise TaskError(
                    f"another {self._what} of this worker is under way, nothing was done: try again when it is done "
                    f"(one that was left is dropped after {IDLE_SECONDS:g} s)"
                )
            self._drop()
            self._is_used = True
        try:
            remove(folder)
            try:
                make_private_folder(folder)
            except NfcliError as error:
                raise TaskError(str(error)) from None
            yield Transfer(secrets.token_hex(16), folder / "tokens.db")
        finally:
            with self._lock:
                self._is_used = False
                if self._held is None:
                    remove(folder)

    def commit(self, transfer: Transfer, *, size: int, sha256: str) -> Transfer:
        """Keep a transfer that was begun for its client; return it with what it has to be."""
        with self._lock:
            self._held = replace(transfer, size=size, sha256=sha256)
            self._last_used = self._clock()
            return self._held

    @contextlib.contextmanager
    def acquire(self, transfer_id: str, *, is_last: bool = False) -> Iterator[Transfer]:
        """Have the transfer of this id to oneself; `is_last` ends it, also when the block raises.

        Raises:
            TaskError: it isn't there (any more), or somebody uses it at this moment.
        """
        with self._lock:
            transfer = self._held
            if transfer is None or not secrets.compare_digest(transfer.id, transfer_id):
                raise TaskError(
                    f"this {self._what} is not under way (any more), nothing was done: begin again "
                    f"(one that was left is dropped after {IDLE_SECONDS:g} s)"
                )
            if self._is_used:
                raise TaskError(f"a step of this {self._what} is still being done: wait for it")
            self._is_used = True
        try:
            yield transfer
        finally:
            with self._lock:
                self._is_used = False
                self._last_used = self._clock()
                if is_last:
                    self._drop()

    def expire(self) -> None:
        """Drop a transfer that nobody has used for `IDLE_SECONDS`; cheap."""
        with self._lock:
            if self._held is not None and not self._is_used and self._is_idle():
                self._drop()

    def drop(self) -> None:
        """Drop the transfer, whatever it is doing: what still uses it fails."""
        with self._lock:
            self._drop()

    def _is_idle(self) -> bool:
        return self._clock() - self._last_used >= IDLE_SECONDS

    def _drop(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            remove(held.file.parent)


class Transfers:
    """The two slots of a worker; nothing on disk is made or looked at before the first transfer begins."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.snapshot = TransferSession("backup", clock)
        self.upload = TransferSession("restore", clock)

    def expire(self) -> None:
        """Drop what clients have left; cheap."""
        self.snapshot.expire()
        self.upload.expire()

    def close(self) -> None:
        """Drop both transfers."""
        self.snapshot.drop()
        self.upload.drop()


def snapshot_folder(run_folder: Path, name: str) -> Path:
    """Return where a worker keeps the snapshot that is being fetched."""
    return run_folder / f"{name}.backup"


def upload_folder(run_folder: Path, name: str) -> Path:
    """Return where a worker keeps what is being uploaded."""
    return run_folder / f"{name}.restore"


def remove(folder: Path) -> None:
    """Remove a transfer's folder, if it is there; links are never followed."""
    shutil.rmtree(folder, ignore_errors=True)
