"""Peers that a worker's ZeroMQ socket has to refuse: no key, another mechanism, no ZMTP at all."""

from __future__ import annotations

import json
import random
import select
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import zmq
from attacks.victim import MARK, Victim

from nfcli.models.environment.curve_keys import KeyPair, ensure_client_key, read_public_key
from nfcli.models.environment.paths import DEFAULT_WORKER

WAIT_SECONDS = 30.0
MAX_LINGERING = 60
_QUIET_SECONDS = 0.05
_GREETING_BYTES, _HELLO_BYTES = 64, 202
_SERVER_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\x01" + bytes(31)
_REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
) | zmq.EVENT_DISCONNECTED
_OTHER_PROTOCOLS = (
    *(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n", b"\0"),
    *(b"\xff" + bytes(7) + b"\x01\x7f\x01\x05", b"\x01\x00", b"\x05\x00abcd", b"\xff" * 64, b"\n" * 500, b"quit\r\n"),
)
_KINDS = ("unknown key", "no mechanism", "user and password", "another worker's key", "another kind of socket")


class UnauthenticatedPeers:
    """Visits a worker in turn in every way it knows; what wasn't closed at once is left hanging, 60 at most.

    `visits` counts them by kind. `wrong` lists those that were accepted.
    """

    def __init__(self, victim: Victim, seed: int) -> None:
        self.visits: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._victim = victim
        self._chance = random.Random(seed)  # noqa: S311  the same visits again for the same seed
        self._allowed = ensure_client_key(victim.environment)
        self._server_key = read_public_key(victim.environment.keys_folder / f"{DEFAULT_WORKER}.key")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._opening = self._recorded_opening()
        self._lingering: deque[socket.socket] = deque()
        self._silent = self._dial()
        kinds: list[Callable[[], None]] = [partial(self._connect, kind) for kind in _KINDS]
        self._turns = deque([*kinds, self._babble, self._spoil_opening, self._spoil_opening, self._meddle])

    def visit(self) -> None:
        """Come once, in the next way."""
        self._turns[0]()
        self._turns.rotate(-1)

    def close(self) -> None:
        """Leave; who never said a word must have been shut out long before."""
        try:
            while self._silent.recv(100):
                pass
        except TimeoutError:
            self.wrong.append("a connection without a handshake is never closed")
        except ConnectionError:
            pass
        for each in (self._silent, *self._lingering):
            each.close()
        self._context.destroy(linger=0)

    # -- with ZeroMQ -------------------------------------------------------------------------------------------------

    def _connect(self, kind: str) -> None:
        """Send a job that would store a token; only a refusal may come back."""
        is_other = kind == "another kind of socket"
        client = self._context.socket(self._chance.choice((zmq.PUSH, zmq.PUB, zmq.PAIR)) if is_other else zmq.DEALER)
        client.linger = 0
        if kind == "unknown key":
            self._lock(client, KeyPair(*zmq.curve_keypair()))
        elif kind == "user and password":
            client.plain_username, client.plain_password = b"client", b"client"
        elif kind == "another worker's key":
            self._lock(client, self._allowed, server_key=zmq.curve_keypair()[0])
        elif is_other:
            self._lock(client, self._allowed)
        monitor = client.get_monitor_socket(_REFUSALS)
        client.connect(self._victim.endpoint)
        kwargs = {"username": "intruder", "token": f"{MARK}-intruder"}
        job = json.dumps({"task": "bearer_token_store", "kwargs": kwargs}).encode()
        with suppress(zmq.Again):
            client.send_multipart([b"", b"NFPC01", b"0x04", b"fastmcp", b"all", b"intruder", job], zmq.NOBLOCK)
        is_impatient = self._chance.random() < 0.2
        if not is_impatient and not monitor.poll(int(WAIT_SECONDS * 1_000)):
            self.wrong.append(f"{kind}: not refused")
        if kind != "another kind of socket" and client.poll(0):
            self.wrong.append(f"{kind}: answered {client.recv_multipart()}")
        client.disable_monitor()
        client.close()
        self.visits[kind] += 1

    def _lock(self, client: zmq.Socket[bytes], keys: KeyPair, server_key: bytes | None = None) -> None:
        client.curve_publickey, client.curve_secretkey = keys.public, keys.secret
        client.curve_serverkey = server_key or self._server_key

    def _recorded_opening(self) -> bytes:
        """Return what a proper client says first: greeting and HELLO."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = self._context.socket(zmq.DEALER)
            self._lock(client, self._allowed)
            client.connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(WAIT_SECONDS)
                connection.sendall(_SERVER_GREETING)
                opening = b""
                while len(opening) < _GREETING_BYTES + _HELLO_BYTES:
                    opening += connection.recv(4096)
            client.close(linger=0)
        return opening

    # -- without -----------------------------------------------------------------------------------------------------

    def _dial(self) -> socket.socket:
        transport, _, address = self._victim.endpoint.partition("://")
        if transport == "ipc":
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(address)
        else:
            host, _, port = address.rpartition(":")
            connection = socket.create_connection((host, int(port)))
        connection.settimeout(WAIT_SECONDS)
        return connection

    def _leave_hanging(self, connection: socket.socket) -> None:
        if self._chance.random() < 0.2:  # gone at once, and without a proper end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            return
        self._lingering.append(connection)
        if len(self._lingering) > MAX_LINGERING:
            self._lingering.popleft().close()

    def _open_with(self, kind: str, data: bytes) -> None:
        connection = self._dial()
        with suppress(ConnectionError):
            connection.sendall(data)
        self._leave_hanging(connection)
        self.visits[kind] += 1

    def _babble(self) -> None:
        noise = self._chance.randbytes(self._chance.choice((1, 9, 64, 5_000)))
        self._open_with("another protocol", self._chance.choice((*_OTHER_PROTOCOLS, noise, noise)))

    def _spoil_opening(self) -> None:
        """Send a proper client's first bytes: cut off, with some bits changed, or with other commands."""
        data, kind = bytearray(self._opening), self._chance.randrange(4)
        if kind == 0:
            del data[self._chance.randrange(len(data)) :]
        elif kind == 1:
            data += self._chance.choice((data[_GREETING_BYTES:], b"\x04\x09\x08INITIATE", b"\x06" + b"\xff" * 8))
        elif kind == 2:
            data[_GREETING_BYTES:] = self._chance.choice((b"\x04\x26\x05READY", b"\x04\x05\x04PING", b"\x00\x01x"))
        for _ in range(self._chance.choice((1, 1, 3)) if kind == 3 else 0):
            data[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)
        self._open_with("spoilt handshake", bytes(data))

    def _meddle(self) -> None:
        """Change one bit of what a proper client sends, anywhere from its greeting to its first job."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = self._context.socket(zmq.DEALER)
            client.linger, client.reconnect_ivl = 0, -1
            self._lock(client, self._allowed)
            client.connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
            client.send_multipart([b"", b"NFPC01", b"0x06", b"fastmcp", b"all", b"meddled", b""])
            down, _ = listener.accept()
        up = self._dial()
        place, bit = self._chance.randrange(800), 1 << self._chance.randrange(8)
        deadline, passed = time.monotonic() + WAIT_SECONDS, 0
        with down:
            while time.monotonic() < deadline and not client.poll(0):
                ready, _, _ = select.select([down, up], [], [], _QUIET_SECONDS)
                try:
                    data = bytearray(ready[0].recv(65_536)) if ready else bytearray()
                    if not data:
                        break
                    if ready[0] is down:
                        if passed <= place < passed + len(data):
                            data[place - passed] ^= bit
                        passed += len(data)
                    (up if ready[0] is down else down).sendall(data)
                except ConnectionError:
                    break
        client.close()
        self._leave_hanging(up)
        self.visits["one bit changed on the way"] += 1
