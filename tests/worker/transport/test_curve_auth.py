"""The authorized keys and the ZAP authenticator, where pyzmq's own would accept unlisted keys or log nothing."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from nfcli.models.environment.curve_keys import ensure_key_pair, format_certificate
from nfcli.models.environment.private_files import write_private
from nfcli.models.protocol.frames import Command
from nfcli.worker.transport.curve_auth import Access, AuthorizedKeys, ZapAuthenticator
from support.direct_server import unlisted_keys

REFUSALS = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_DISCONNECTED,
}

Connect = Callable[..., Any]


def is_accepted(peer: Any) -> bool:
    """Wait for the outcome of a peer's handshake; return whether it succeeded."""
    return bool(peer.wait_for(zmq.EVENT_HANDSHAKE_SUCCEEDED, *REFUSALS) == zmq.EVENT_HANDSHAKE_SUCCEEDED)


def test_without_a_zap_handler_no_client_is_accepted(
    server: Any, connect_peer: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If ZAP requests go unanswered, CURVE alone would accept every key."""
    monkeypatch.setattr(ZapAuthenticator, "supervise", lambda _zap: None)
    server.direct.zap.stop()
    assert [is_accepted(connect_peer(unlisted_keys())), is_accepted(connect_peer())] == [False, False]
    assert server.direct.counters()["received"] == 0


def test_an_error_while_a_key_is_checked_refuses_the_client_and_ends_no_handler(
    server: Any, connect_peer: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would end pyzmq's thread; instead it is logged, and the same handler serves the next client."""
    handler = server.direct.zap.handler

    def fail(_clients: AuthorizedKeys, key: str) -> bool:
        raise OSError(f"a disk that fails while {key} is sought")

    with monkeypatch.context() as patch:
        patch.setattr(AuthorizedKeys, "access", fail)
        assert not is_accepted(connect_peer())
    assert [message for message in caplog.messages if "client key" in message] == ["client key refused: OSError"]
    peer = connect_peer()
    peer.send(Command.POST, "u1", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    assert server.direct.zap.handler is handler
    assert handler.is_alive()


def _garbled(folder: Path) -> str:
    file = folder / "a-garbled.key"
    file.touch(mode=0o600)
    file.write_text("no key\n")
    return f"{file} is not a public key file"


def _wide(folder: Path) -> str:
    file = folder / "a-wide.key"
    shutil.copy(folder / "good.key", file)
    file.chmod(0o644)
    return f"{file} has mode 0644 and is open to other users: run chmod 600"


def _secret(folder: Path) -> str:
    file = folder / "a-secret.key"
    ensure_key_pair(folder.parent, "secret")
    shutil.copy(folder.parent / "secret.key_secret", file)
    return f"{file} holds a secret key"


def _dangling(folder: Path) -> str:
    file = folder / "a-link.key"
    file.symlink_to("nowhere")
    return f"{file} is a symbolic link"


def _folder(folder: Path) -> str:
    file = folder / "a-folder.key"
    file.mkdir()
    return f"{file} must be a regular file"


@pytest.mark.parametrize("spoil", [_garbled, _wide, _secret, _dangling, _folder])
def test_an_unusable_key_file_is_logged_and_affects_no_other_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], str]
) -> None:
    """Pyzmq's loader skips such files silently, so that nothing explains why the client is refused."""
    folder = tmp_path / "clients"
    folder.mkdir()
    pair = ensure_key_pair(tmp_path, "good")
    shutil.copy(tmp_path / "good.key", folder)
    reason = spoil(folder)
    clients = AuthorizedKeys(folder)
    assert clients.is_authorized(pair.public.decode())
    assert not clients.is_authorized(unlisted_keys().public.decode())
    assert caplog.record_tuples[0][:2] == ("nfcli.worker.transport.curve_auth", logging.WARNING)
    assert caplog.messages[0].startswith(f"client key ignored: {reason}")
    assert "\n" not in caplog.messages[0]


def test_a_key_that_is_overwritten_in_its_file_is_out_at_once(tmp_path: Path) -> None:
    """File, length and name are the same."""
    old, new = ensure_key_pair(tmp_path, "old"), ensure_key_pair(tmp_path, "new")
    (tmp_path / "clients").mkdir()
    file = tmp_path / "clients" / "client.key"
    file.touch(mode=0o600)
    clients = AuthorizedKeys(file.parent)
    for second, (there, pair, other) in enumerate([("old", old, new), ("new", new, old)]):
        content = (tmp_path / f"{there}.key").read_text().partition("\n\n")[2]
        with file.open("r+") as stream:
            stream.write(content)
            stream.truncate()
        os.utime(file, (second, second))
        assert not clients.is_authorized(other.public.decode())
        assert clients.is_authorized(pair.public.decode())


def test_a_key_in_a_file_that_other_users_can_change_is_not_authorized(tmp_path: Path) -> None:
    """It may be another user's."""
    pair = ensure_key_pair(tmp_path, "client")
    file = tmp_path / "client.key"
    clients = AuthorizedKeys(tmp_path)
    assert clients.is_authorized(pair.public.decode())
    file.chmod(0o666)
    file.write_bytes(file.read_bytes() + b"\n")
    assert not clients.is_authorized(pair.public.decode())
    file.chmod(0o600)
    assert clients.is_authorized(pair.public.decode())


def test_signing_key_is_that_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    """Of several files, one that has a signing key; none of a client that isn't authorized any more."""
    clients, file, key = AuthorizedKeys(tmp_path), tmp_path / "ann.key", "a" * 40
    assert clients.signing_key(key) is None
    for signing in ("0a" * 32, None, "0b" * 32):
        write_private(file, format_certificate(key.encode(), signing=signing))
        assert clients.signing_key(key) == signing
    write_private(tmp_path / "a.key", format_certificate(key.encode()))
    assert clients.signing_key(key) == "0b" * 32
    file.unlink()
    assert clients.signing_key(key) is None
    assert clients.is_authorized(key)


def test_keys_of_verifiers_have_less_access(tmp_path: Path) -> None:
    """As the files are at the time: a file among the clients' gives a key every right, also one that comes later."""
    folder, verifiers = tmp_path / "clients", tmp_path / "verifiers"
    folder.mkdir()
    keys = AuthorizedKeys(folder, verifiers)
    pair = ensure_key_pair(tmp_path, "server")
    key, content = pair.public.decode(), format_certificate(pair.public)
    assert keys.access(key) is None
    verifiers.mkdir()
    write_private(verifiers / "server.key", content)
    assert (keys.access(key), keys.is_verifier(key), keys.is_authorized(key)) == (Access.VERIFY, True, False)
    assert (keys.name(key), keys.signing_key(key)) == ("server", None)
    write_private(folder / "all.key", content)
    ensure_key_pair(folder, "other")
    assert keys.access(ensure_key_pair(folder, "other").public.decode()) is Access.FULL  # reads both folders
    assert (keys.access(key), keys.is_verifier(key), keys.name(key)) == (Access.FULL, False, "all")
    os.utime(folder / "all.key", (1, 1))
    assert keys.access(key) is Access.FULL
    (folder / "all.key").unlink()
    assert keys.access(key) is Access.VERIFY
    (verifiers / "server.key").unlink()
    assert keys.access(key) is None
