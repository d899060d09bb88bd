"""The fleet key: one secret that all environments of a fleet share, from which keys for single purposes are derived.

Workers that have the same key compute the same fingerprint and the same digest of a token, and none without it can.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field

from ..errors import KeyFileError
from .file_lock import lock_folder
from .paths import Environment
from .symmetric_key import ensure_symmetric_key, parse_symmetric_key, read_key_file, write_symmetric_key

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
            f"changed: stop the workers, remove {path} and repeat; fingerprints and backups made with it no longer "
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
