"""CURVE key files in the text format of pyzmq certificates, read and written by a parser of our own.

pyzmq's functions write secret keys with the umask's mode, and ignore errors while they load a folder. The key of the
audit trail's fingerprints is stored beside them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from ..errors import EnvironmentFolderError, KeyFileError
from ..fields import Z85_KEY
from ..signing_keys import SigningKey
from .file_lock import lock_folder
from .fleet_key import parse_symmetric_key, read_key_file
from .paths import Environment
from .private_files import make_private_folder, write_private
from .trusted_files import open_trusted

CLIENT_NAME = "client"
VERIFIER_NAME = "verifier"
MAX_KEY_FILE_BYTES = 4096

_SIGNING_KEY = re.compile(r"[0-9a-f]{64}")
_SIGNING = b"signing-key"


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair, each key as 40 Z85 characters."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class ClientKey:
    """What a client's `.key` file holds: its public CURVE key and, unless it is an old file, its public signing key."""

    public: bytes
    signing: str | None = None


def ensure_key_pair(folder: Path, name: str, *, authorized: Path | None = None) -> KeyPair:
    """Return the pair `NAME.key` (public) and `NAME.key_secret` of `folder`, creating it if neither file exists.

    Safe to call from several processes at the same time: all get the same pair. A missing public file is restored from
    the secret one, which holds both keys. `authorized` gets the public key too, when the pair is created and only then.

    Raises:
        KeyFileError: only the public file exists, the two don't match, or one isn't a valid key file with mode 0600.
    """
    public_file, secret_file = folder / f"{name}.key", folder / f"{name}.key_secret"
    try:
        with lock_folder(folder):
            pair = find_key_pair(folder, name)
            if pair is None:
                pair = KeyPair(*zmq.curve_keypair())
                # The pair exists once its secret file does, so that file is written after all that must not be missed:
                # after a crash before it all steps are repeated, after a crash behind it the public file is restored.
                if authorized is not None:
                    write_private(authorized, format_certificate(pair.public))
                write_private(secret_file, format_certificate(pair.public, pair.secret))
            if not os.path.lexists(public_file):
                write_private(public_file, format_certificate(pair.public))
    except OSError as error:
        raise KeyFileError(f"{error.filename or folder} can't be read or written: {error.strerror}") from error
    return pair


def ensure_client_key(environment: Environment) -> KeyPair:
    """Return the local client's pair as `ensure_key_pair` does; a new pair is authorized.

    A key that was removed from `clients/` thus stays unauthorized. Public key files of older versions, here and in
    `clients/`, get the line with the signing key.
    """
    authorized = environment.clients_folder / f"{CLIENT_NAME}.key"
    pair = ensure_key_pair(environment.keys_folder, CLIENT_NAME, authorized=authorized)
    own = environment.keys_folder / f"{CLIENT_NAME}.key"
    if read_client_key(own).signing is None:
        content = format_certificate(pair.public, signing=SigningKey(pair.secret).public)
        try:
            with lock_folder(environment.clients_folder):
                for path in sorted(environment.clients_folder.glob("*.key")):
                    if _is_old_copy(path, pair.public):
                        write_private(path, content)
            write_private(own, content)  # the last one: after a crash before it all steps are repeated
        except OSError as error:
            raise KeyFileError(f"{error.filename or own} can't be read or written: {error.strerror}") from error
    return pair


def ensure_verifier_key(environment: Environment) -> KeyPair:
    """Return the pair, as `ensure_key_pair` does, of programs that ask this environment's workers about tokens.

    Its folder is the one of the keys that may do that and nothing else.
    """
    make_private_folder(environment.verifiers_folder)
    return ensure_key_pair(environment.verifiers_folder, VERIFIER_NAME)


def _is_old_copy(path: Path, public: bytes) -> bool:
    try:
        return read_client_key(path) == ClientKey(public)
    except KeyFileError:  # reported by whoever needs that file
        return False


def find_key_pair(folder: Path, name: str) -> KeyPair | None:
    """Return the stored pair, None where `ensure_key_pair` would create one; raises as that does, changes nothing."""
    public_file, secret_file = folder / f"{name}.key", folder / f"{name}.key_secret"
    has_public_file = os.path.lexists(public_file)
    if not os.path.lexists(secret_file):
        if has_public_file:
            raise KeyFileError(
                f"{secret_file} is missing: restore it, or move {public_file} away and a new pair will be created"
            )
        return None
    pair = read_key_pair(secret_file)
    if has_public_file and read_public_key(public_file) != pair.public:
        raise KeyFileError(f"{public_file} doesn't match {secret_file}: move it away and it will be restored")
    return pair


def find_audit_key(path: Path) -> bytes | None:
    """Return the key of the fingerprints that earlier versions wrote into an audit trail, None if there is none.

    Raises:
        KeyFileError: the file can't be read, holds no such key in hexadecimal digits, or isn't private.
    """
    if not os.path.lexists(path):
        return None
    key = parse_symmetric_key(read_key_file(path))
    if key is None:
        raise KeyFileError(f"{path} is not an audit key: restore it, or move it away and older lines can't be searched")
    return key


def read_key_pair(path: Path) -> KeyPair:
    """Read a `.key_secret` file.

    Raises:
        KeyFileError: it can't be read, isn't a key file, isn't private, or its two keys don't match.
    """
    values = _parse_certificate(path, read_key_file(path))
    public, secret = values.get(b"public-key"), values.get(b"secret-key")
    if public is None or secret is None:
        raise KeyFileError(f"{path} is not a secret key file: it needs a line public-key and a line secret-key")
    try:
        expected = zmq.curve_public(secret)
    except (zmq.ZMQError, ValueError) as error:
        raise KeyFileError(f"{path} is not a secret key file: its secret-key is not a CURVE key") from error
    if expected != public:
        raise KeyFileError(f"{path} is damaged, its public-key doesn't match its secret-key: restore it")
    return KeyPair(public=public, secret=secret)


def read_public_key(path: Path) -> bytes:
    """Read the key of a `.key` file.

    Raises:
        KeyFileError: it can't be read, isn't a key file, isn't private (other users could replace the key), or holds a
            secret key, which must not be handed out.
    """
    return read_client_key(path).public


def read_worker_key(path: Path) -> bytes:
    """Read the `.key` file of a worker that may run elsewhere; raises as `read_public_key` does."""
    try:
        return read_public_key(path)
    except KeyFileError as error:
        if os.path.lexists(path):
            raise
        raise KeyFileError(f"{error}: copy it from .nfcli/keys/ on the worker's machine") from None


def read_client_key(path: Path) -> ClientKey:
    """Read the keys of a client's `.key` file; raises as `read_public_key` does."""
    return _client_key(path, read_key_file(path))


def read_shared_key(path: Path) -> ClientKey:
    """Read the keys of a `.key` file that others may read, as NorFab writes them.

    Raises:
        KeyFileError: it can't be read, isn't a key file, holds a secret key, or other users could change it
            (`trusted_files.py`).
    """
    try:
        with open_trusted(path) as stream:
            content = stream.read(MAX_KEY_FILE_BYTES + 1)
    except EnvironmentFolderError as error:
        raise KeyFileError(str(error)) from error
    except OSError as error:
        raise KeyFileError(f"{path} can't be read: {error.strerror}") from error
    return _client_key(path, content)


def _client_key(path: Path, content: bytes) -> ClientKey:
    values = _parse_certificate(path, content)
    if b"secret-key" in values:
        remedy = "use the .key file of that pair instead, and replace the pair if this file was copied"
        raise KeyFileError(f"{path} holds a secret key: {remedy}")
    if b"public-key" not in values:
        raise KeyFileError(f"{path} is not a public key file: it needs a line public-key")
    return ClientKey(values[b"public-key"], signing.decode() if (signing := values.get(_SIGNING)) else None)


def format_certificate(public: bytes, secret: bytes | None = None, *, signing: str | None = None) -> bytes:
    """Return the content of a `.key` file, or with `secret` of a `.key_secret` file."""
    kind = b"Public" if secret is None else b"**Secret**"
    metadata = b"" if signing is None else b'    signing-key = "%b"\n' % signing.encode()
    text = b'#   ZeroMQ CURVE %b Certificate\n\nmetadata\n%bcurve\n    public-key = "%b"\n' % (kind, metadata, public)
    return text if secret is None else text + b'    secret-key = "%b"\n' % secret


def _parse_certificate(path: Path, content: bytes) -> dict[bytes, bytes]:
    """Return the keys of a certificate file by name.

    Those of the section `curve` are verified to be 40 Z85 characters, the signing key to be 64 hexadecimal digits.
    """
    if len(content) > MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"{path} is not a key file: it is longer than {MAX_KEY_FILE_BYTES} bytes")
    values: dict[bytes, bytes] = {}
    is_curve = False
    for number, raw in enumerate(content.splitlines(), start=1):
        line = raw.strip()
        if line == b"curve":
            is_curve = True
        # A key may contain # and =: only a leading # starts a comment, only the first = ends the name.
        elif line and not line.startswith(b"#"):
            name, _, value = line.partition(b"=")
            name, value = name.strip(), value.strip(b" \t'\"")
            if is_curve and name in (b"public-key", b"secret-key"):
                if not Z85_KEY.fullmatch(value.decode("latin-1")):
                    raise KeyFileError(f"{path} line {number}: {name.decode()} must be 40 Z85 characters")
                values[name] = value
            elif not is_curve and name == _SIGNING:
                if not _SIGNING_KEY.fullmatch(value.decode("latin-1")):
                    raise KeyFileError(f"{path} line {number}: signing-key must be 64 hexadecimal digits")
                values[name] = value
    return values
