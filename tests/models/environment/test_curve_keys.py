"""CURVE key files: created once, private, readable by pyzmq, and refused with a reason if they aren't valid."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq
import zmq.auth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from nfcli.models.environment.curve_keys import (
    ClientKey,
    KeyPair,
    ensure_client_key,
    ensure_key_pair,
    find_audit_key,
    format_certificate,
    read_client_key,
    read_key_pair,
    read_public_key,
)
from nfcli.models.environment.paths import Environment
from nfcli.models.environment.private_files import write_private
from nfcli.models.errors import EnvironmentFolderError, KeyFileError
from nfcli.models.signing_keys import SigningKey

Modes = Callable[[Path], dict[str, str]]

PUBLIC_ALONE = 'metadata\ncurve\n    public-key = "{key}"\n'


@pytest.mark.usefixtures("umask")
def test_new_pair_is_private_and_a_curve_pair(tmp_path: Path, modes: Modes) -> None:
    """Both files are 0600 whatever the umask; the keys match."""
    pair = ensure_key_pair(tmp_path, "w")
    assert modes(tmp_path) == {"w.key": "0600", "w.key_secret": "0600"}
    assert zmq.curve_public(pair.secret) == pair.public
    assert read_key_pair(tmp_path / "w.key_secret") == pair
    assert read_public_key(tmp_path / "w.key") == pair.public


def test_pyzmq_reads_our_files(tmp_path: Path) -> None:
    """The format is pyzmq's."""
    pair = ensure_key_pair(tmp_path, "w")
    assert zmq.auth.load_certificate(tmp_path / "w.key_secret") == (pair.public, pair.secret)
    assert zmq.auth.load_certificate(tmp_path / "w.key") == (pair.public, None)


def test_we_read_pyzmqs_files(tmp_path: Path) -> None:
    """A pair that NorFab or pyzmq created is read, once its mode is right."""
    public_file, secret_file = zmq.auth.create_certificates(tmp_path, "w", metadata={"owner": "=#x"})
    Path(public_file).chmod(0o600)
    Path(secret_file).chmod(0o600)
    public, secret = zmq.auth.load_certificate(secret_file)
    assert secret is not None
    assert read_key_pair(Path(secret_file)) == KeyPair(public, secret)
    assert read_public_key(Path(public_file)) == public


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    raw=st.binary(min_size=32, max_size=32), quote=st.sampled_from(["", '"', "'"]), blanks=st.sampled_from(["", " \t"])
)
def test_any_public_key_is_read_back(tmp_path: Path, raw: bytes, quote: str, blanks: str) -> None:
    """Keys may hold `#` and `=` anywhere; quotes and blanks around them are ignored."""
    key = z85.encode(raw)
    text = (
        f"# a comment\nmetadata\n\ncurve\n{blanks}public-key{blanks}={blanks}{quote}{key.decode()}{quote}{blanks}\r\n"
    )
    write_private(tmp_path / "k.key", text.encode())
    assert read_public_key(tmp_path / "k.key") == key


def test_pair_is_created_once(tmp_path: Path) -> None:
    """The second call reads what the first one created."""
    assert ensure_key_pair(tmp_path, "w") == ensure_key_pair(tmp_path, "w")
    assert ensure_key_pair(tmp_path, "w") != ensure_key_pair(tmp_path, "v")


def test_threads_that_start_together_get_one_pair(environment: Environment) -> None:
    """The first one creates it; the others wait and read it."""
    barrier = threading.Barrier(8)

    def ensure() -> KeyPair:
        barrier.wait()
        return ensure_client_key(environment)

    with ThreadPoolExecutor(8) as pool:
        pairs = {future.result() for future in [pool.submit(ensure) for _ in range(8)]}
    assert len(pairs) == 1
    assert read_public_key(environment.clients_folder / "client.key") == pairs.pop().public


def test_processes_that_start_together_get_one_pair(environment: Environment) -> None:
    """The same between processes, as when a script starts several shells."""
    program = (
        "import pathlib, sys; from nfcli.models.environment.curve_keys import ensure_key_pair\n"
        "print('up', flush=True); sys.stdin.readline()\n"
        "print(ensure_key_pair(pathlib.Path(sys.argv[1]), 'w').public.decode())"
    )
    command = [sys.executable, "-c", program, str(environment.keys_folder)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    outputs = [process.communicate("go\n", timeout=30)[0].strip() for process in processes]
    assert outputs == [read_public_key(environment.keys_folder / "w.key").decode()] * 3


def test_secret_is_not_in_the_repr(tmp_path: Path) -> None:
    """A repr may be logged."""
    pair = ensure_key_pair(tmp_path, "w")
    assert repr(pair) == f"KeyPair(public={pair.public!r})"


def test_client_file_has_the_signing_key_and_reads_as_before(environment: Environment) -> None:
    """ZeroMQ's reader, which NorFab uses, skips the line."""
    pair = ensure_client_key(environment)
    for folder in (environment.keys_folder, environment.clients_folder):
        assert read_client_key(folder / "client.key") == ClientKey(pair.public, SigningKey(pair.secret).public)
        assert zmq.auth.load_certificate(folder / "client.key") == (pair.public, None)


def test_old_client_files_get_the_signing_key(environment: Environment) -> None:
    """This client's in clients/ too, by whatever name; not those of others, and none that was removed."""
    pair, other = ensure_client_key(environment), ensure_key_pair(environment.keys_folder, "other")
    own, clients = environment.keys_folder / "client.key", environment.clients_folder
    (clients / "client.key").unlink()
    for file, public in ((own, pair.public), (clients / "me.key", pair.public), (clients / "o.key", other.public)):
        write_private(file, format_certificate(public))
    assert ensure_client_key(environment) == pair
    signing = SigningKey(pair.secret).public
    assert read_client_key(own) == read_client_key(clients / "me.key") == ClientKey(pair.public, signing)
    assert read_client_key(clients / "o.key") == ClientKey(other.public)
    assert sorted(path.name for path in clients.iterdir()) == ["me.key", "o.key"]


@pytest.mark.parametrize("value", ["", "00", "g" * 64, "A" * 64, "0" * 65])
def test_damaged_signing_key_is_an_error(tmp_path: Path, value: str) -> None:
    """The line names file and rule."""
    file = tmp_path / "c.key"
    write_private(file, format_certificate(b"a" * 40, signing=value))
    with pytest.raises(KeyFileError, match=r"c\.key line 4: signing-key must be 64 hexadecimal digits"):
        read_client_key(file)


def test_signing_key_behind_the_curve_section_is_ignored(tmp_path: Path) -> None:
    """It belongs to the metadata."""
    file = tmp_path / "c.key"
    write_private(file, format_certificate(b"a" * 40) + b'    signing-key = "%b"\n' % (b"0" * 64))
    assert read_client_key(file) == ClientKey(b"a" * 40)


def test_client_key_is_authorized_when_it_is_created(environment: Environment, modes: Modes) -> None:
    """On a single machine no further step is needed."""
    pair = ensure_client_key(environment)
    assert read_public_key(environment.clients_folder / "client.key") == pair.public
    assert modes(environment.clients_folder) == {"client.key": "0600"}
    assert ensure_client_key(environment) == pair


def test_revoked_client_key_stays_revoked(environment: Environment) -> None:
    """A key is authorized only when it is created."""
    pair = ensure_client_key(environment)
    (environment.clients_folder / "client.key").unlink()
    assert ensure_client_key(environment) == pair
    assert not list(environment.clients_folder.iterdir())


def test_new_client_key_replaces_the_authorized_one(environment: Environment) -> None:
    """Removing both files is how a key is rotated."""
    old = ensure_client_key(environment)
    for file in environment.keys_folder.iterdir():
        file.unlink()
    new = ensure_client_key(environment)
    assert new != old
    assert read_public_key(environment.clients_folder / "client.key") == new.public


@pytest.mark.parametrize("file", ["clients/client.key", "keys/client.key_secret", "keys/client.key"])
def test_crash_while_a_key_is_created_is_recovered_from(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Whichever step a process dies at, the next one finishes the work."""

    def crash(path: Path, data: bytes) -> None:
        if path == environment.state_folder / file:
            raise KeyboardInterrupt
        write_private(path, data)

    with monkeypatch.context() as patch:
        patch.setattr("nfcli.models.environment.curve_keys.write_private", crash)
        with pytest.raises(KeyboardInterrupt):
            ensure_client_key(environment)
    pair = ensure_client_key(environment)
    assert read_public_key(environment.clients_folder / "client.key") == pair.public


def test_missing_public_file_is_restored(tmp_path: Path) -> None:
    """The secret file holds both keys."""
    pair = ensure_key_pair(tmp_path, "w")
    (tmp_path / "w.key").unlink()
    assert ensure_key_pair(tmp_path, "w") == pair
    assert read_public_key(tmp_path / "w.key") == pair.public


def test_missing_secret_file_is_an_error(tmp_path: Path) -> None:
    """A new pair would lock out the peers that know the public key; that is for the user to decide."""
    ensure_key_pair(tmp_path, "w")
    (tmp_path / "w.key_secret").unlink()
    with pytest.raises(KeyFileError) as caught:
        ensure_key_pair(tmp_path, "w")
    assert str(caught.value) == (
        f"{tmp_path / 'w.key_secret'} is missing: restore it, or move {tmp_path / 'w.key'} away and a new pair will be "
        "created"
    )


def test_files_of_two_pairs_are_an_error(tmp_path: Path) -> None:
    """As when only one of the two files was copied."""
    ensure_key_pair(tmp_path, "v")
    ensure_key_pair(tmp_path, "w")
    (tmp_path / "v.key").replace(tmp_path / "w.key")
    with pytest.raises(KeyFileError) as caught:
        ensure_key_pair(tmp_path, "w")
    assert str(caught.value) == (
        f"{tmp_path / 'w.key'} doesn't match {tmp_path / 'w.key_secret'}: move it away and it will be restored"
    )


def test_missing_folder_is_named(tmp_path: Path) -> None:
    """The message has the system's reason."""
    with pytest.raises(KeyFileError) as caught:
        ensure_key_pair(tmp_path / "missing", "w")
    assert str(caught.value) == f"{tmp_path / 'missing'} can't be read or written: No such file or directory"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a secret key file: it needs a line public-key and a line secret-key"),
        (PUBLIC_ALONE, "is not a secret key file: it needs a line public-key and a line secret-key"),
        (
            "public-key = {key}\nsecret-key = {key}",
            "is not a secret key file: it needs a line public-key and a line secret-key",
        ),
        (
            f"{PUBLIC_ALONE}secret-key = {{key}}\n",
            "is damaged, its public-key doesn't match its secret-key: restore it",
        ),
        (
            f"{PUBLIC_ALONE}other = x\nsecret-key = {'#' * 40}\n",
            "is not a secret key file: its secret-key is not a CURVE key",
        ),
        (f"{PUBLIC_ALONE}secret-key = short\n", "line 4: secret-key must be 40 Z85 characters"),
        (f"{PUBLIC_ALONE}secret-key = {'%' * 39}ä\n", "line 4: secret-key must be 40 Z85 characters"),
        ("curve\n" + "#" * 5000, "is not a key file: it is longer than 4096 bytes"),
    ],
)
def test_invalid_secret_key_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """The message has the reason, and no key."""
    key = ensure_key_pair(tmp_path, "other").public.decode()
    write_private(tmp_path / "w.key_secret", text.replace("{key}", key).encode())
    with pytest.raises(KeyFileError) as caught:
        read_key_pair(tmp_path / "w.key_secret")
    assert str(caught.value) == f"{tmp_path / 'w.key_secret'} {reason}"


def test_secret_file_among_public_keys_is_refused(tmp_path: Path) -> None:
    """A secret key that was handed out must be replaced."""
    ensure_key_pair(tmp_path, "w")
    with pytest.raises(KeyFileError) as caught:
        read_public_key(tmp_path / "w.key_secret")
    assert str(caught.value) == (
        f"{tmp_path / 'w.key_secret'} holds a secret key: use the .key file of that pair instead, "
        "and replace the pair if this file was copied"
    )


@pytest.mark.parametrize("reader", [read_public_key, read_key_pair])
def test_key_file_that_others_can_read_or_change_is_refused(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    """The message has the remedy, and the class is the one that readers of several key files catch."""
    ensure_key_pair(tmp_path, "w")
    file = tmp_path / "w.key_secret"
    file.chmod(0o620)
    with pytest.raises(KeyFileError) as caught:
        reader(file)
    assert str(caught.value) == f"{file} has mode 0620 and is open to other users: run chmod 600 {file}"
    assert not isinstance(caught.value, EnvironmentFolderError)


def test_missing_key_file_is_named(tmp_path: Path) -> None:
    """The message has the system's reason."""
    with pytest.raises(KeyFileError) as caught:
        read_public_key(tmp_path / "w.key")
    assert str(caught.value) == f"{tmp_path / 'w.key'} can't be read: No such file or directory"


def test_file_without_a_key_is_refused(tmp_path: Path) -> None:
    """An empty one, for instance."""
    write_private(tmp_path / "w.key", b"")
    with pytest.raises(KeyFileError) as caught:
        read_public_key(tmp_path / "w.key")
    assert str(caught.value) == f"{tmp_path / 'w.key'} is not a public key file: it needs a line public-key"


def test_the_audit_key_of_an_earlier_version_is_read_and_none_is_created(tmp_path: Path) -> None:
    """New fingerprints are made with the fleet key."""
    file = tmp_path / "w.audit_key"
    assert (find_audit_key(file), file.exists()) == (None, False)
    write_private(file, b"0f" * 32 + b"\n")
    assert find_audit_key(file) == b"\x0f" * 32


@pytest.mark.parametrize("content", [b"", b"f" * 63, b"F" * 64, b"g" * 64, b"f" * 66, b"f" * 64 + b"\n" + b"f" * 64])
def test_invalid_audit_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is neither used nor overwritten: older lines' fingerprints need it."""
    file = tmp_path / "w.audit_key"
    write_private(file, content)
    with pytest.raises(KeyFileError) as caught:
        find_audit_key(file)
    remedy = "restore it, or move it away and older lines can't be searched"
    assert str(caught.value) == f"{file} is not an audit key: {remedy}"
    assert file.read_bytes() == content


def test_an_audit_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The message names the command that fixes it."""
    file = tmp_path / "w.audit_key"
    write_private(file, b"0f" * 32)
    file.chmod(0o640)
    with pytest.raises(KeyFileError) as caught:
        find_audit_key(file)
    assert str(caught.value) == f"{file} has mode 0640 and is open to other users: run chmod 600 {file}"
