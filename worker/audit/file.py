"""The audit trail's two files: lines are added to the end, each on disk before anything that it tells of happens."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from errno import ENOSPC
from itertools import count
from pathlib import Path
from typing import IO, Any

from ...models.environment.private_files import open_private, sync_folder, write_private
from ...models.errors import AuditError, EnvironmentFolderError
from .chain import Head, backwards, recover_head, verify_chain

log = logging.getLogger(__name__)

HEAD_MAX_BYTES = 100
_NO_HEAD = b"?" * len(Head().encode())

_FIRST_BYTES = 100
_OF_THE_FIRST_VERSION = re.compile(rb'\{"time": "[^"]*", "client": ')


class ChainedFile:
    """A file of chained lines (`audit_chain.py`) and its head, written by this object alone; any thread may call.

    `found` says what opening it met: bytes of an unfinished line that were cut off, lines that are altered or missing.
    """

    def __init__(self, path: Path, stream: IO[bytes], head_stream: IO[bytes], head: Head, found: list[str]) -> None:
        self.path = path
        self.found = found
        self._stream, self._head_stream = stream, head_stream
        self._head = head
        self._lock = threading.Lock()
        self._is_closed = False
        status = os.fstat(stream.fileno())
        self._identity, self._size = (status.st_dev, status.st_ino), status.st_size

    @classmethod
    def open(cls, path: Path) -> ChainedFile:
        """Open the file and its head, NAME.head beside NAME.jsonl, made when missing; only the end is read.

        An unfinished last line, as a crash leaves it, is cut off. Nothing else that is wrong stops the opening.

        Raises:
            AuditError: they can't be opened privately, read or written.
        """
        try:
            return cls._open(path)
        except EnvironmentFolderError as error:
            raise AuditError(f"the audit trail can't be opened: {error}") from error
        except OSError as error:
            raise AuditError(f"the audit trail {path} can't be opened: {error.strerror}") from error

    @classmethod
    def _open(cls, path: Path) -> ChainedFile:
        head_path = _head_path(path)
        if not os.path.lexists(head_path):
            _set_first_version_aside(path)
            # The head comes first: that it is missing where there are lines must mean that somebody has removed it.
            write_private(head_path, _NO_HEAD if os.path.lexists(path) else Head().encode())
        with ExitStack() as opened:
            head_stream = opened.enter_context(open_private(head_path, "r+b"))
            stream = opened.enter_context(open_private(path, "a+b"))
            known = Head.decode(head_stream.read(HEAD_MAX_BYTES))
            head, found = _recover(stream.fileno(), known)
            if known != head:
                _sync(stream.fileno())  # what a killed process has written last may not be on disk
                head_stream.truncate(len(_NO_HEAD))
                _put(head_stream, head)
            sync_folder(path.parent)
            opened.pop_all()
        return cls(path, stream, head_stream, head, found)

    def append(self, fields: Mapping[str, Any]) -> None:
        """Add a line with these fields; it is on disk (fsync) when this returns.

        Raises:
            AuditError: it couldn't be written, or the file isn't the one that was opened, as this object left it; no
                line was added then. Where a failing disk doesn't even take it back, the file takes no more lines.
        """
        with self._lock:
            if self._is_closed:
                raise AuditError("the audit trail is closed, nothing changed")
            self._assert_in_place()
            line = self._head.line(fields)
            self._write(line + b"\n")
            self._head = self._head.after(line)
            try:
                # Not synced: lines behind the head are no fault, as long as they follow on it.
                _put(self._head_stream, self._head)
            except OSError as error:
                log.warning("the head of the audit trail %s can't be written: %s", self.path, error.strerror)

    def _assert_in_place(self) -> None:
        # Writing to a file that was moved away or replaced would succeed, and nobody would find the line.
        with suppress(OSError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == self._identity and found.st_size == self._size:
                return
        raise AuditError(
            f"the audit trail {self.path} was moved or altered, nothing changed: look with show fastmcp audit verify, "
            "then restart the worker"
        )

    def _write(self, text: bytes) -> None:
        descriptor = self._stream.fileno()
        try:
            if os.write(descriptor, text) != len(text):
                raise OSError(ENOSPC, os.strerror(ENOSPC))  # noqa: TRY301  a part of the line means that no more fits
            _sync(descriptor)
        except OSError as error:
            with suppress(OSError):  # where that fails as well, the size will tell the next line
                os.ftruncate(descriptor, self._size)
            raise AuditError(
                f"the audit trail {self.path} can't be written ({error.strerror}), nothing changed: make room on its "
                "disk or mend it"
            ) from error
        self._size += len(text)

    def verify(self) -> Head:
        """Read all of the file and return its head: every line is as it was written and none is missing.

        Lines may be added meanwhile; they wait for some microseconds only.

        Raises:
            AuditError: names the file and the first line that is altered or missing, or says what else is wrong.
        """
        with self._lock:
            head = self._head
            stream = self._opened_again()
            status = os.fstat(stream.fileno())
            known = _read_head(_head_path(self.path))
        with stream, _reading(self.path):
            fault = verify_chain(stream, status.st_size, head)
        if fault is None and (status.st_dev, status.st_ino) != self._identity:
            fault = "another file is in its place"
        if fault is None and known != head:
            fault = f"{_head_path(self.path).name} beside it is missing or altered"
        if fault is not None:
            raise _not_as_written(self.path, fault)
        return head

    def lines_backwards(self) -> Generator[bytes, None, None]:
        """Yield the whole lines that are there now, the last one first, reading no more than is taken.

        Raises:
            AuditError: the file can't be read.
        """
        with self._opened_again() as stream, _reading(self.path):
            found = backwards(stream.fileno(), os.fstat(stream.fileno()).st_size)
            next(found)
            yield from found

    def _opened_again(self) -> IO[bytes]:
        # By its name: what lies there is what people look at.
        with _reading(self.path):
            return open_private(self.path, "rb")

    def close(self) -> None:
        """Write the head durably and close both files. Safe to repeat."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                # Also over another head that somebody has put there, so that the next start notices.
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

    An unfinished last line, as a crash leaves it, is no fault.

    Raises:
        AuditError: lines or the head are altered or missing, or the files can't be read.
    """
    with _reading(path):
        try:
            with open_private(_head_path(path), "rb") as stream:
                known = Head.decode(stream.read(HEAD_MAX_BYTES))
        except FileNotFoundError:
            known = None
        with open_private(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            lines = backwards(stream.fileno(), size)
            unfinished = len(next(lines))
            head, found = recover_head(lines, known)
            fault = "; ".join(found) or verify_chain(stream, size - unfinished, head)
    if fault:
        raise _not_as_written(path, fault)
    return head


def _not_as_written(path: Path, fault: str) -> AuditError:
    return AuditError(f"the audit trail {path} is not as it was written: {fault}; see man page tokens")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except EnvironmentFolderError as error:
        raise AuditError(f"the audit trail can't be read: {error}") from error
    except OSError as error:
        raise AuditError(f"the audit trail {path} can't be read: {error.strerror}") from error


def _put(stream: IO[bytes], head: Head) -> None:
    """Write a head over the one in the file: no room is needed for it on the disk."""
    os.pwrite(stream.fileno(), head.encode(), 0)


def _head_path(path: Path) -> Path:
    return path.with_suffix(".head")


def _read_head(path: Path) -> Head | None:
    try:
        with open_private(path, "rb") as stream:
            return Head.decode(stream.read(HEAD_MAX_BYTES))
    except (OSError, EnvironmentFolderError):
        return None


def _recover(descriptor: int, known: Head | None) -> tuple[Head, list[str]]:
    """Cut off an unfinished last line; return what the next line follows on, and what was found."""
    size = os.fstat(descriptor).st_size
    lines = backwards(descriptor, size)
    unfinished = len(next(lines))
    head, found = recover_head(lines, known)
    if unfinished:
        os.ftruncate(descriptor, size - unfinished)
        found = [f"an unfinished line was cut off (bytes: {unfinished})", *found]
    return head, found


def _set_first_version_aside(path: Path) -> None:
    """Rename a file whose lines have no chain, as the first version wrote them."""
    try:
        with open_private(path, "rb") as stream:
            is_old = _OF_THE_FIRST_VERSION.match(stream.read(_FIRST_BYTES)) is not None
    except FileNotFoundError:
        return
    if is_old:
        names = (path.with_name(f"{path.name}.{number}") for number in count(1))
        aside = next(name for name in names if not os.path.lexists(name))
        path.rename(aside)
        log.info("the audit trail of an older version is now %s", aside)


def _sync(descriptor: int) -> None:
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is None:
        os.fdatasync(descriptor)
    else:  # macOS: a plain fsync leaves the data in the drive's own cache
        fcntl.fcntl(descriptor, full_sync)
