"""`nfcli --authorize KEYFILE` and `nfcli --create-env DIR`: who may use an environment, and which fleet it belongs to.

Both take the fleet's key with `--fleet-key FILE`. Everything is checked before anything is written.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...models.environment.curve_keys import (
    CLIENT_NAME,
    ClientKey,
    find_key_pair,
    format_certificate,
    read_client_key,
    read_shared_key,
)
from ...models.environment.file_lock import lock_folder
from ...models.environment.fleet_key import (
    FleetKey,
    adopt_fleet_key,
    check_fleet_key,
    ensure_fleet_key,
    parse_fleet_key,
    read_carried_fleet_key,
)
from ...models.environment.locations import find_environment
from ...models.environment.paths import Environment, named_state
from ...models.environment.private_files import make_private_folder, write_private
from ...models.errors import KeyFileError
from ...models.inventory.loader import locate_state
from ...models.inventory.scaffold import create_environment

STDIN = Path("-")

_MAX_KEY_BYTES = 4096
_CLIENT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


def create_fleet_environment(
    folder: Path, fleet_key_file: Path | None, state: Path | None = None, *, tls_names: Sequence[str] | None = None
) -> Environment:
    """Write a new environment with a new fleet key or, if a file is named, with the key in it.

    Unless `tls_names` is None its worker serves HTTPS, by a certificate for this machine's names and these.

    Raises:
        NfcliError: the environment can't be created, or the key isn't one; nothing is written then.
    """
    key = None if fleet_key_file is None else _read_fleet_key(fleet_key_file)
    place = named_state(state)
    existing = Environment(folder.expanduser(), None, place)
    if key is not None and existing.keys_folder.is_dir():
        check_fleet_key(existing, key)
    environment = replace(create_environment(folder, tls_names), state=place)
    environment.prepare()
    if key is None:
        ensure_fleet_key(environment)
    else:
        adopt_fleet_key(environment, key)
    return environment


def authorize(
    inventory: str | Path | None,
    key_file: Path,
    fleet_key_file: Path | None,
    state: Path | None = None,
    *,
    verify_only: bool = False,
) -> str:
    """Authorize the client with this public key, adopt the fleet key if a file is named; return what was done.

    The name of the file without `.key` is the client's name in the audit trail. Repeating it changes nothing.
    `verify_only`: the client may ask about tokens, and do nothing else.

    Raises:
        NfcliError: a file isn't a valid key, or the name or the environment is in use with another key; nothing is
            changed then.
    """
    environment = locate_state(find_environment(inventory, state))
    environment.prepare()
    key = read_shared_key(key_file)  # before its name: a copy of a secret key under another name isn't wanted
    name = _client_name(key_file)
    fleet_key = None if fleet_key_file is None else _read_fleet_key(fleet_key_file)
    if fleet_key is not None:
        check_fleet_key(environment, fleet_key)
    if verify_only:
        _check_unauthorized(environment, key)
        make_private_folder(environment.verifiers_folder)
    folder = environment.verifiers_folder if verify_only else environment.clients_folder
    target = folder / f"{name}.key"
    try:
        with lock_folder(folder):
            known_as, needs_signing_key = _authorized_name(folder, key)
            if known_as is None:
                _check_name(environment, target, key.public)
            if fleet_key is not None:
                adopt_fleet_key(environment, fleet_key)
            if known_as is None or needs_signing_key:
                target = folder / f"{known_as or name}.key"
                write_private(target, format_certificate(key.public, signing=key.signing))
    except OSError as error:
        raise KeyFileError(f"{error.filename or target} can't be read or written: {error.strerror}") from error
    done = f"client {name} is authorized" if known_as is None else f"this key was authorized before, as {known_as}"
    done += " to ask about tokens" if verify_only and known_as is None else ""
    if needs_signing_key:
        done += ", and its signing key is known now"
    return done if fleet_key is None else f"{done}; the fleet key is {fleet_key.id}"


def _read_fleet_key(file: Path) -> FleetKey:
    if file == STDIN:
        return parse_fleet_key(sys.stdin.buffer.read(_MAX_KEY_BYTES + 1), "standard input")
    return read_carried_fleet_key(file)


def _client_name(file: Path) -> str:
    if file.suffix != ".key" or not _CLIENT_NAME.fullmatch(file.stem):
        raise KeyFileError(
            f"{file}: the name of a client's key file must be 1 to 64 letters, digits, dots, dashes, underscores and @ "
            "and end with .key: copy it to such a name, it becomes the client's name in the audit trail"
        )
    return file.stem


def _check_unauthorized(environment: Environment, key: ClientKey) -> None:
    """Check that the key doesn't have every right already: it would keep them."""
    name, _ = _authorized_name(environment.clients_folder, key)
    if name is not None:
        raise KeyFileError(
            f"{environment.clients_folder / f'{name}.key'} lets this client do everything, nothing changed: "
            "remove that file first"
        )


def _authorized_name(folder: Path, key: ClientKey) -> tuple[str | None, bool]:
    """Return the name that a key is authorized by, and whether its file lacks the signing key that is given now."""
    for path in sorted(folder.glob("*.key")):
        known = read_client_key(path)
        if known.public != key.public:
            continue
        if known.signing is not None and key.signing not in {None, known.signing}:
            raise KeyFileError(f"{path} has another signing key for this client, nothing changed: remove it first")
        return path.stem, known.signing is None and key.signing is not None
    return None, False


def _check_name(environment: Environment, target: Path, public: bytes) -> None:
    """Check that the name is free: a client must not take another one's."""
    if target.stem == CLIENT_NAME:
        own = find_key_pair(environment.keys_folder, CLIENT_NAME)
        if own is None or own.public != public:
            raise KeyFileError(
                f"{CLIENT_NAME}.key is the name of this environment's own client, nothing changed: copy the file to "
                "another name, for instance ann-laptop.key"
            )
    elif os.path.lexists(target):
        raise KeyFileError(
            f"{target} authorizes another key by that name, nothing changed: copy the file to another name, or remove "
            "that one first"
        )
