"""Files with one symmetric key: 32 random bytes as hexadecimal digits, mode 0600."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from ..errors import EnvironmentFolderError, KeyFileError
from .file_lock import lock_folder
from .private_files import open_private, write_private

KEY_BYTES = 32

_MAX_FILE_BYTES = 4096
_KEY = re.compile(rb"[0-9a-f]{%d}" % (2 * KEY_BYTES))


def ensure_symmetric_key(path: Path, kind: str) -> bytes:
    """Return the key in `path`, creating its file if that is missing; `kind` is the key's name in messages.

    Safe to call from several processes at the same time: all get the same key.

    Raises:
        KeyFileError: the file can't be read or written, holds no such key in hexadecimal digits, or isn't private.
    """
    try:
        with lock_folder(path.parent):
            if not os.path.lexists(path):
                write_symmetric_key(path, secrets.token_bytes(KEY_BYTES))
    except OSError as error:
        raise KeyFileError(f"{error.filename or path} can't be read or written: {error.strerror}") from error
    key = parse_symmetric_key(read_key_file(path))
    if key is None:
        raise KeyFileError(f"{path} is not {kind}: restore it, or remove it and a new one will be created")
    return key


def write_symmetric_key(path: Path, key: bytes) -> None:
    """Write a key, replacing an older file atomically; raises `OSError` as `write_private` does."""
    write_private(path, f"{key.hex()}\n".encode())


def read_key_file(path: Path) -> bytes:
    """Return the beginning of a private file, at least as much of it as a key file may have.

    Raises:
        KeyFileError: the file can't be read, or isn't private.
    """
    try:
        with open_private(path, "rb") as stream:
            content: bytes = stream.read(_MAX_FILE_BYTES + 1)
    except EnvironmentFolderError as error:
        raise KeyFileError(str(error)) from error
    except OSError as error:
        raise KeyFileError(f"{path} can't be read: {error.strerror}") from error
    return content


def parse_symmetric_key(content: bytes) -> bytes | None:
    """Return the key that a file with this content holds, None where it holds none."""
    text = content.strip()
    return bytes.fromhex(text.decode()) if _KEY.fullmatch(text) else None
