"""The text of a file as a field's value: `text @FILE`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ....models.errors import UsageError
from ...text import quote_for_message

MAX_TEXT_BYTES = 1024 * 1024
_BOM = "\ufeff"


def read_text_file(name: str) -> str:
    """Return the text of a regular file of at most 1 MiB, without a byte order mark.

    Raises:
        UsageError: it can't be read, isn't a regular file, is larger, or not UTF-8.
    """
    shown = quote_for_message(name)
    try:
        path = Path(name).expanduser()
        # O_NONBLOCK: opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{shown} is not a regular file: name one, or put @@ before a text that begins with @")
            data = stream.read(MAX_TEXT_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {shown}: {reason}; a text that begins with @ needs @@ instead") from None
    if len(data) > MAX_TEXT_BYTES:
        raise UsageError(f"{shown} is larger than {MAX_TEXT_BYTES} bytes: a file's text may have as many at most")
    try:
        return data.decode().removeprefix(_BOM)
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown}: byte {error.start + 1} is not UTF-8: save the file as UTF-8") from None


def local_files(typed: str) -> list[str]:
    """Return the names of files and folders that begin with a path as it is typed; of hidden ones only if asked for."""
    folder, _, start = typed.rpartition("/")
    place = Path(f"{folder}/" if "/" in typed else ".").expanduser()
    try:
        with os.scandir(place) as found:
            names = sorted(
                f"{entry.name}/" if entry.is_dir() else entry.name
                for entry in found
                if entry.name.startswith(start) and (start.startswith(".") or not entry.name.startswith("."))
            )
    except OSError:
        return []
    prefix = typed[: len(typed) - len(start)]
    return [f"{prefix}{name}" for name in names if name.isprintable()]
