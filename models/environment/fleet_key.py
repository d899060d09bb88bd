"""The fleet key: one secret that all environments of a fleet share, from which keys for single purposes are derived.

Workers that have the same key compute the same fingerprint and the same digest of a token, and none without it can.
Its file, and that of a worker's audit key, holds 32 random bytes as hexadecimal digits and has mode 0600.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import EnvironmentFolderError, KeyFileError
from .file_lock import lock_folder
from .paths import Environment
from .private_files import open_private, write_private

KEY_BYTES = 32

_MAX_FILE_BYTES = 4096
_KEY = re.compile(rb"[0-9a-f]{%d}" % (2 * KEY_BYTES))
FLEET_KEY_KIND = "a fleet key of 64 hexadecimal digits"


@dataclass(frozen=True)
class FleetKey:
    """32 secret bytes. Compare two keys by `id`: it tells whether they are the same and nothing else about them."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that identify the key and may be shown."""
        return self.derive(b"id")[:4].hex()

    def derive(self, purpose: bytes) -> bytes:
        """Return the 32-byte key of one purpose (HMAC-SHA256); no purpose's key reveals another's."""
        return hmac.digest(self.secret, purpose, "sha256")


def ensure_fleet_key(environment: Environment) -> FleetKey:
    """Return the environment's fleet key, creating it if there is none; `Environment.prepare` was called.

    Safe to call from several processes at the same time: all get the same key.

    Raises:
        KeyFileError: the file can't be read or written, holds no fleet key, or isn't private.
    """
    return FleetKey(ensure_symmetric_key(environment.fleet_key_file, FLEET_KEY_KIND))


def read_fleet_key(environment: Environment) -> FleetKey:
    """Return the environment's fleet key; creates nothing.

    Raises:
        KeyFileError: there is none, or as `ensure_fleet_key` does.
    """
    return parse_fleet_key(read_key_file(environment.fleet_key_file), str(environment.fleet_key_file))


def find_fleet_key(environment: Environment) -> FleetKey | None:
    """Return the environment's fleet key, None where there is none; raises otherwise as `read_fleet_key` does."""
    return read_fleet_key(environment) if os.path.lexists(environment.fleet_key_file) else None


def parse_fleet_key(content: bytes, source: str) -> FleetKey:
    """Return the fleet key in the content of a file; `source` names the file in the message.

    Raises:
        KeyFileError: it holds no fleet key; the message doesn't quote it.
    """
    secret = parse_symmetric_key(content)
    if secret is None:
        raise KeyFileError(f"{source} is not {FLEET_KEY_KIND}: copy .nfcli/keys/fleet.key of another machine again")
    return FleetKey(secret)


def read_carried_fleet_key(path: Path) -> FleetKey:
    """Return the fleet key in a file that a user names.

    Raises:
        KeyFileError: the file can't be read, holds no fleet key, or isn't private. That it holds none is said first: a
            `chmod` or `chown` of a file that was named by mistake could do harm.
    """
    parse_fleet_key(_peek(path), str(path))
    return parse_fleet_key(read_key_file(path), str(path))


def _peek(path: Path) -> bytes:
    """Return the beginning of a file, whatever its owner and mode; nothing of it is to be used."""
    try:
        # Opening a FIFO must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError:  # a link, a folder, or unreadable: `read_key_file` says so
        return read_key_file(path)


def check_fleet_key(environment: Environment, key: FleetKey) -> None:
    """Check that `adopt_fleet_key` would accept the key.

    Raises:
        KeyFileError: the environment has another key, and workers have used that.
    """
    path = environment.fleet_key_file
    held = find_fleet_key(environment)
    user = None if held in (None, key) else _first_use(environment)
    if user is not None:
        raise KeyFileError(
            f"{path} is another fleet key ({held.id if held else ''}, not {key.id}) and in use by {user}, nothing "
            f"changed: stop the workers, move {path} away and repeat; fingerprints and backups made with it no longer "
            "match"
        )


def adopt_fleet_key(environment: Environment, key: FleetKey) -> None:
    """Make `key` the environment's fleet key; repeating it changes nothing.

    Raises:
        KeyFileError: as `check_fleet_key` does, or the file can't be read or written.
    """
    path = environment.fleet_key_file
    try:
        with lock_folder(path.parent):
            check_fleet_key(environment, key)
            if find_fleet_key(environment) != key:
                write_symmetric_key(path, key.secret)
    except OSError as error:
        raise KeyFileError(f"{error.filename or path} can't be read or written: {error.strerror}") from error


def _first_use(environment: Environment) -> str | None:
    """Return a worker that has been started with the environment's key, None where none has."""
    trails = environment.logs_folder.glob("audit-*.jsonl")
    names = {path.stem.removeprefix("audit-") for path in trails if path.stat().st_size}
    databases = environment.state_folder.joinpath("tokens").glob("*/*")
    return min(names | {path.parent.name for path in databases}, default=None)


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
        raise KeyFileError(f"{path} is not {kind}: restore it, or move it away and a new one will be created")
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
