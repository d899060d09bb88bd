"""The files of an audit trail: append lines durably, keep the head, and verify the chain."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from errno import ENOSPC
from itertools import count
from pathlib import Path
from typing import IO, Any

from ...models.environment.private_files import open_private, sync_folder, write_private
from ...models.errors import AuditDiskError, AuditError, EnvironmentFolderError
from .chain import Head, backwards, recover_head, verify_chain

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 100
_NO_HEAD = b"?" * len(Head().encode())

_START_BYTES = 100
_UNCHAINED_LINE = re.compile(rb'\{"time": "[^"]*", "client": ')


class ChainedFile:
    """A file of chained lines (`chain.py`) and its head, written by this object only. Thread-safe.

    `found` lists problems met while opening: an unfinished line that was removed, lines that are altered or missing.
    The functions in `on_append` are called with the seconds that each call of `append` took, waiting included; they
    must neither block nor raise.
    """

    def __init__(self, path: Path) -> None:
        """Open NAME.jsonl and its head NAME.head, creating them when missing; only the end is read.

        An unfinished last line, as a crash leaves it, is removed. Other problems don't keep the file from opening.

        Raises:
            AuditError: they can't be opened privately, read or written.
        """
        self.path = path
        self.on_append: list[Callable[[float], None]] = []
        self._lock = threading.Lock()
        self._is_closed = False
        head_path = _head_path(path)
        with _convert_errors(path, "opened"), ExitStack() as opened:
            if not os.path.lexists(head_path):
                _set_unchained_aside(path)
                # The head is created first: a missing head next to lines then means that it was removed.
                write_private(head_path, _NO_HEAD if os.path.lexists(path) else Head().encode())
            self._head_stream = opened.enter_context(open_private(head_path, "r+b"))
            self._stream = opened.enter_context(open_private(path, "a+b"))
            descriptor = self._stream.fileno()
            known = Head.decode(self._head_stream.read(MAX_HEAD_BYTES))
            self._head, self.found, self._size = _recover(descriptor, known)
            status = os.fstat(descriptor)
            self._identity = (status.st_dev, status.st_ino)
            if status.st_size > self._size:
                os.ftruncate(descriptor, self._size)
                self.found.insert(0, f"an unfinished line was removed (bytes: {status.st_size - self._size})")
            if known != self._head:
                _sync(descriptor)  # the last writes of a killed process may not be on disk
                self._head_stream.truncate(len(_NO_HEAD))
                _write_head(self._head_stream, self._head)
            sync_folder(path.parent)
            opened.pop_all()

    def append(self, *lines: Mapping[str, Any]) -> None:
        """Add a line for each mapping of fields, all or none; they are on disk (fsync) when this returns.

        Raises:
            AuditError: the lines couldn't be written, or another program replaced or changed the file; none was added.
                Where a failing disk keeps a part of them, no more lines can be added.
        """
        started = time.monotonic()
        try:
            self._append(lines)
        finally:
            for observe in self.on_append:
                observe(time.monotonic() - started)

    def _append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        with self._lock:
            if self._is_closed:
                raise AuditError("the audit trail is closed, nothing changed")
            self._assert_in_place()
            head, text = self._head, bytearray()
            for fields in lines:
                line = head.line(fields)
                head = head.after(line)
                text += line + b"\n"
            self._write(bytes(text))
            self._head = head
            try:
                # Not synced: lines after the head are valid as long as they link to it.
                _write_head(self._head_stream, self._head)
            except OSError as error:
                log.warning("the head of the audit trail %s can't be written: %s", self.path, error.strerror)

    def _assert_in_place(self) -> None:
        # A write to a file that was moved or replaced would succeed, but the line would be lost.
        with suppress(OSError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == self._identity and found.st_size == self._size:
                return
        raise AuditError(
            f"the audit trail {self.path} was moved or altered, nothing changed: run show fastmcp audit verify, "
            "then restart the worker"
        )

    def _write(self, text: bytes) -> None:
        descriptor = self._stream.fileno()
        try:
            if os.write(descriptor, text) != len(text):
                raise OSError(ENOSPC, os.strerror(ENOSPC))  # noqa: TRY301  a short write means that the disk is full
            _sync(descriptor)
        except OSError as error:
            with suppress(OSError):  # if that fails as well, the next call detects the wrong size
                os.ftruncate(descriptor, self._size)
            raise AuditDiskError(
                f"the audit trail {self.path} can't be written ({error.strerror}), nothing changed: make room on "
                "its disk or repair it"
            ) from error
        self._size += len(text)

    def verify(self) -> Head:
        """Read the entire file, verify that no line is altered or missing, and return its head.

        Other threads can add lines meanwhile.

        Raises:
            AuditError: names the file and the first line that is altered or missing, or another problem.
        """
        with self._lock:
            head = self._head
            stream = self._reopen()
            status = os.fstat(stream.fileno())
            known = None
            with suppress(OSError, EnvironmentFolderError):
                known = _read_head(_head_path(self.path))
        with stream, _convert_errors(self.path):
            fault = verify_chain(stream, status.st_size, head)
        if fault is None and (status.st_dev, status.st_ino) != self._identity:
            fault = "another file is in its place"
        if fault is None and known != head:
            fault = f"{_head_path(self.path).name} beside it is missing or altered"
        if fault is not None:
            raise _altered(self.path, fault)
        return head

    def lines_backwards(self) -> Generator[bytes, None, None]:
        """Yield the complete lines, last line first, read lazily, in blocks.

        Raises:
            AuditError: the file can't be read.
        """
        with self._reopen() as stream, _convert_errors(self.path):
            found = backwards(stream.fileno(), os.fstat(stream.fileno()).st_size)
            next(found)
            yield from found

    def _reopen(self) -> IO[bytes]:
        # By its path: that is the file which an auditor reads.
        with _convert_errors(self.path):
            return open_private(self.path, "rb")

    def close(self) -> None:
        """Write the head durably and close both files. Safe to repeat."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                # Also over a head that another program wrote, so that the next start detects it.
                write_private(_head_path(self.path), self._head.encode())
                self._assert_in_place()
            except OSError as error:
                log.warning("the head of the audit trail %s can't be written: %s", self.path, error.strerror)
            except AuditError as error:
                log.warning("%s", error)
            self._head_stream.close()
            self._stream.close()


def verify_closed(path: Path) -> Head:
    """Verify a trail that no worker has open, and return its head; nothing is changed.

    An unfinished last line, as a crash leaves it, is valid.

    Raises:
        AuditError: lines or the head are altered or missing, or the files can't be read.
    """
    with _convert_errors(path):
        try:
            known = _read_head(_head_path(path))
        except FileNotFoundError:
            known = None
        with open_private(path, "rb") as stream:
            head, found, size = _recover(stream.fileno(), known)
            fault = "; ".join(found) or verify_chain(stream, size, head)
    if fault:
        raise _altered(path, fault)
    return head


def _altered(path: Path, fault: str) -> AuditError:
    return AuditError(f"the audit trail {path} was altered: {fault}; see man page tokens")


@contextmanager
def _convert_errors(path: Path, attempted: str = "read") -> Iterator[None]:
    try:
        yield
    except EnvironmentFolderError as error:
        raise AuditError(f"the audit trail can't be {attempted}: {error}") from error
    except OSError as error:
        raise AuditError(f"the audit trail {path} can't be {attempted}: {error.strerror}") from error


def _write_head(stream: IO[bytes], head: Head) -> None:
    """Overwrite the head in place, which needs no free space."""
    os.pwrite(stream.fileno(), head.encode(), 0)


def _head_path(path: Path) -> Path:
    return path.with_suffix(".head")


def _read_head(path: Path) -> Head | None:
    with open_private(path, "rb") as stream:
        return Head.decode(stream.read(MAX_HEAD_BYTES))


def _recover(descriptor: int, known: Head | None) -> tuple[Head, list[str], int]:
    """Return the head to continue from, the problems found, and the size of the file without an unfinished line."""
    size = os.fstat(descriptor).st_size
    lines = backwards(descriptor, size)
    unfinished = len(next(lines))
    return *recover_head(lines, known), size - unfinished


def _set_unchained_aside(path: Path) -> None:
    """Rename a file with unchained lines, the format of the first version."""
    try:
        with open_private(path, "rb") as stream:
            is_old = _UNCHAINED_LINE.match(stream.read(_START_BYTES)) is not None
    except FileNotFoundError:
        return
    if is_old:
        names = (path.with_name(f"{path.name}.{number}") for number in count(1))
        aside = next(name for name in names if not os.path.lexists(name))
        path.rename(aside)
        log.info("renamed the audit trail of an older version to %s", aside)


def _sync(descriptor: int) -> None:
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is None:
        os.fdatasync(descriptor)
    else:  # macOS: a plain fsync leaves the data in the drive's own cache
        fcntl.fcntl(descriptor, full_sync)
