"""Backup downloads and restore uploads in progress, at most one of each, in private folders.

Clients never name a file: they get an id for the transfer that they started. A transfer's file is removed when the
transfer ends, expires or is replaced by the next one, and when the worker starts and stops.
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
    """A database being transferred: its file, its expected size and SHA-256 (hexadecimal).

    `is_verified`: the seal of an upload was verified.
    """

    id: str
    file: Path
    size: int = 0
    sha256: str = ""
    is_verified: bool = False


class TransferSession:
    """Slot for at most one transfer; thread-safe, non-blocking.

    `what` is the kind of transfer, for error messages. `folder` exists while there is a transfer. `clock` is monotonic.
    """

    def __init__(self, what: str, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._what = what
        self._clock = clock
        self._lock = threading.Lock()
        self._transfer: Transfer | None = None
        self._is_in_use = False
        self._last_used = 0.0

    @contextlib.contextmanager
    def open(self) -> Iterator[Transfer]:
        """Start a transfer in a new, empty folder; clients can use it once `commit` was called.

        If the block raises, or doesn't call `commit`, the folder is removed.

        Raises:
            TaskError: another transfer is in progress, or the folder can't be created.
        """
        with self._lock:
            if self._is_in_use or (self._transfer is not None and not self._is_idle()):
                raise TaskError(
                    f"another {self._what} of this worker is in progress, nothing changed: try again when it has ended "
                    f"(an abandoned one expires after {IDLE_SECONDS:g} s)"
                )
            self._drop()
            self._is_in_use = True
        try:
            try:
                make_private_folder(self.folder)
            except NfcliError as error:
                raise TaskError(str(error)) from None
            yield Transfer(secrets.token_hex(16), self.folder / "tokens.db")
        finally:
            with self._lock:
                self._is_in_use = False
                if self._transfer is None:
                    self._drop()

    def commit(self, transfer: Transfer, *, size: int, sha256: str, is_verified: bool = False) -> Transfer:
        """Make a started transfer available to its client; return it with the expected size and SHA-256."""
        with self._lock:
            self._transfer = replace(transfer, size=size, sha256=sha256, is_verified=is_verified)
            self._last_used = self._clock()
            return self._transfer

    @contextlib.contextmanager
    def acquire(self, transfer_id: str, *, is_last: bool = False) -> Iterator[Transfer]:
        """Use the transfer of this id exclusively; `is_last` ends it, also when the block raises.

        Raises:
            TaskError: the transfer is unknown or no longer in progress, or another job uses it.
        """
        with self._lock:
            transfer = self._transfer
            if transfer is None or not secrets.compare_digest(transfer.id, transfer_id):
                raise TaskError(
                    f"this {self._what} is no longer in progress, nothing changed: start again "
                    f"(an abandoned one expires after {IDLE_SECONDS:g} s)"
                )
            if self._is_in_use:
                raise TaskError(f"another step of this {self._what} is in progress: wait for its result")
            self._is_in_use = True
        try:
            yield transfer
        finally:
            with self._lock:
                self._is_in_use = False
                self._last_used = self._clock()
                if is_last:
                    self._drop()

    def expire(self) -> None:
        """Drop the transfer if it has been idle for `IDLE_SECONDS`; cheap."""
        with self._lock:
            if self._transfer is not None and not self._is_in_use and self._is_idle():
                self._drop()

    def drop(self) -> None:
        """Drop the transfer, and what a killed worker left in the folder; a step in progress fails."""
        with self._lock:
            self._drop()

    def _is_idle(self) -> bool:
        return self._clock() - self._last_used >= IDLE_SECONDS

    def _drop(self) -> None:
        self._transfer = None
        shutil.rmtree(self.folder, ignore_errors=True)  # follows no links


class Transfers:
    """The download and the upload of a worker; the disk isn't touched before the first transfer starts."""

    def __init__(self, run_folder: Path, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.snapshot = TransferSession("backup", run_folder / f"{name}.backup", clock)
        self.upload = TransferSession("restore", run_folder / f"{name}.restore", clock)

    def expire(self) -> None:
        """Drop abandoned transfers; cheap."""
        self.snapshot.expire()
        self.upload.expire()

    def close(self) -> None:
        """Drop both transfers, and what a killed worker left in their folders."""
        self.snapshot.drop()
        self.upload.drop()
