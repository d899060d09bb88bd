"""The list of client keys and the ZAP handler: where pyzmq's own would let strangers in, or say nothing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from nfcli.models.environment.curve_keys import ensure_key_pair
from nfcli.models.protocol.frames import Command
from nfcli.worker.transport.curve_auth import AuthorizedKeys, ZapAuthenticator
from support.direct_server import unlisted_keys

CLOSED_DOORS = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_DISCONNECTED,
}

Connect = Callable[..., Any]


def is_let_in(peer: Any) -> bool:
    """Wait for the outcome of a peer's handshake; return whether it succeeded."""
    return bool(peer.wait_for(zmq.EVENT_HANDSHAKE_SUCCEEDED, *CLOSED_DOORS) == zmq.EVENT_HANDSHAKE_SUCCEEDED)


def test_without_any_handler_nobody_gets_in(
    server: Any, connect_peer: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody answers ZAP requests, CURVE alone would take every key for a good one."""
    monkeypatch.setattr(ZapAuthenticator, "supervise", lambda _zap: None)
    server.direct.zap.stop()
    assert [is_let_in(connect_peer(unlisted_keys())), is_let_in(connect_peer())] == [False, False]
    assert server.direct.counters()["received"] == 0


def test_a_fault_while_a_key_is_looked_up_is_a_no_and_ends_no_handler(
    server: Any, connect_peer: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Left alone it would end pyzmq's thread; the log tells of it, and the next client is served by the same one."""
    handler = server.direct.zap._authenticator

    def fail(_clients: AuthorizedKeys, key: str) -> bool:
        raise OSError(f"a disk that fails while {key} is sought")

    with monkeypatch.context() as patch:
        patch.setattr(AuthorizedKeys, "is_authorized", fail)
        assert not is_let_in(connect_peer())
    assert [message for message in caplog.messages if "client key" in message] == ["client key refused: OSError"]
    peer = connect_peer()
    peer.send(Command.POST, "u1", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    assert server.direct.zap._authenticator is handler
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
def test_a_key_file_that_can_not_be_used_is_named_and_keeps_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], str]
) -> None:
    """The loader of pyzmq passes over such files without a word, and everybody wonders why a client isn't let in."""
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


def test_a_key_in_a_file_that_others_can_change_is_not_let_in(tmp_path: Path) -> None:
    """It may be anybody's."""
    pair = ensure_key_pair(tmp_path, "client")
    file = tmp_path / "client.key"
    clients = AuthorizedKeys(tmp_path)
    assert clients.is_authorized(pair.public.decode())
    file.chmod(0o666)
    file.write_bytes(file.read_bytes() + b"\n")
    assert not clients.is_authorized(pair.public.decode())
    file.chmod(0o600)
    assert clients.is_authorized(pair.public.decode())
