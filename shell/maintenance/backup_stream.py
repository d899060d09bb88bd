"""Backups through pipes: `-`, and the paths that name an open descriptor of this process, such as `/dev/stdout`."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ...models.errors import EnvironmentFolderError, TaskError, UsageError
from ...models.tasks.backup import CHUNK_BYTES, MAX_BACKUP_BYTES, MAX_TRAILER_BYTES

STDIN, STDOUT = 0, 1

_NAMED = {"/dev/stdin": STDIN, "/dev/stdout": STDOUT, "/dev/stderr": 2}
_NUMBERED = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")
_OTHERS = 0o077


def stream_descriptor(file: Path, standard: int) -> int | None:
    """Return the descriptor that a path names, `standard` for `-`; None for a file.

    Process substitution of shells, as in `<(age -d FILE)`, gives such paths too.
    """
    text = str(file)
    if text == "-":
        return standard
    numbered = _NUMBERED.fullmatch(text)
    return int(numbered[1]) if numbered else _NAMED.get(text)


@contextlib.contextmanager
def write_to_stream(descriptor: int) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """Open a descriptor for writing; `finish()` writes what is buffered. What came before an error stays written.

    Raises:
        UsageError: it is a terminal.
        EnvironmentFolderError: it can't be written; its reader has ended, for instance.
    """
    name = stream_name(descriptor)
    try:
        if os.isatty(descriptor):
            raise UsageError(
                f"{name} is a terminal: send the backup to a file or a program, as in nfcli --backup - | age …"
            )
        with open(os.dup(descriptor), "wb") as stream:  # noqa: PTH123  a descriptor, not a path
            yield stream, stream.flush
    except OSError as error:
        raise EnvironmentFolderError(
            f"{name} can't be written: {error.strerror}: what was written is not a backup, discard it"
        ) from error


def read_from_stream(descriptor: int) -> IO[bytes]:
    """Read a descriptor to its end, into memory: a decrypted backup leaves nothing on this machine's disk.

    Raises:
        UsageError: it is a terminal.
        EnvironmentFolderError: it can't be read.
        TaskError: it has more bytes than any backup.
    """
    name, limit = stream_name(descriptor), MAX_BACKUP_BYTES + MAX_TRAILER_BYTES
    content = io.BytesIO()
    try:
        if os.isatty(descriptor):
            raise UsageError(f"{name} is a terminal: send a backup to it, as in age -d FILE | nfcli --restore -")
        while chunk := os.read(descriptor, CHUNK_BYTES):
            if content.tell() + len(chunk) > limit:
                raise TaskError(f"{name} has more than {limit} bytes and is no backup, nothing was changed")
            content.write(chunk)
    except OSError as error:
        raise EnvironmentFolderError(f"{name} can't be read: {error.strerror}: send a backup to it") from error
    content.seek(0)
    return content


def stream_warning(descriptor: int) -> str | None:
    """Return the warning about a redirection to a file that is open to other users, None if there is none."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_mode & _OTHERS:
        return (
            f"warning: {stream_name(descriptor)} is a file that is open to other users: run chmod 600 on it, and "
            "umask 077 before the next backup"
        )
    return None


def stream_name(descriptor: int) -> str:
    """Return how messages name a descriptor."""
    names = {STDIN: "standard input", STDOUT: "standard output", 2: "standard error"}
    return names.get(descriptor, f"file descriptor {descriptor}")
