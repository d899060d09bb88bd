"""Direct mode as the client sees it: one DEALER for each worker, and a monitor on each that tells why one is silent."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from ..models.environment import Environment
from ..models.errors import AccessDeniedError, KeyFileError, NfcliError, NoWorkersError, ProtocolError
from ..models.inventory import Inventory
from ..models.keys import KeyPair, read_public_key
from ..models.lock import read_owner
from ..models.nfp import BrokerMessage, ClientMessage
from .transport import Answer, Lost

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.5
ANSWERS_AT_ONCE = 100
KEEPALIVE_SECONDS = 5
KEEPALIVE_PROBES = 3
MAX_MESSAGE_BYTES = 512 * 1024 * 1024
"""A listing of 100,000 tokens is about 20 MB; the worker is authenticated by its key."""

# Plain numbers: pyzmq's enumerations cost a microsecond each time they are combined.
_READABLE, _NOBLOCK = int(zmq.POLLIN), int(zmq.NOBLOCK)
_MONITORED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_CONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_DISCONNECTED
)


class DirectTransport:
    """Reaches the workers of an environment; used by one thread at a time."""

    def __init__(self, environment: Environment, inventory: Inventory, keys: KeyPair) -> None:
        self._environment = environment
        self._inventory = inventory
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._links: dict[str, _Link] = {}

    def candidates(self, service: str) -> list[str]:
        """Return the workers that serve `service` (`all`: every one)."""
        workers = self._inventory.workers.items()
        return sorted(name for name, worker in workers if service in (worker.service, "all"))

    def endpoint(self, name: str) -> str:
        """Return where a worker is reached.

        Raises:
            NoWorkersError: it isn't running on this machine and has no endpoint of another.
        """
        configured = self._inventory.workers[name].endpoint
        owner = read_owner(self._environment.lock_file(name))
        if owner is not None and owner.endpoint:
            return _connectable(owner.endpoint)
        if configured is not None and configured.startswith("tcp://") and not configured.endswith((":0", ":*")):
            return _connectable(configured)
        if owner is not None:
            return self._environment.socket_endpoint(name)
        raise NoWorkersError(f"worker {name} is not running: start it with nfcli -w")

    def is_running(self, name: str) -> bool:
        """Whether there is a connection to a worker, or else somewhere to connect to."""
        if self._sound_link(name) is not None:
            return True
        try:
            self.endpoint(name)
        except NoWorkersError:
            return False
        return True

    def send(self, name: str, message: ClientMessage) -> None:
        """Send to a worker, over a new connection where there is none or the old one has broken.

        Raises:
            NoWorkersError: the worker isn't running or its key isn't here.
        """
        link = self._sound_link(name)
        if link is None:
            link = self._links[name] = self._connect(name)
        link.dealer.send_multipart(message.frames())

    def receive(self, names: Sequence[str], deadline: float) -> Iterator[Answer | Lost]:
        """Wait for answers of these workers until `deadline` (monotonic seconds); yield what came, nothing if none.

        A `Lost` says that a worker can't be reached or has gone; its connection is closed.
        """
        links = [self._links[name] for name in names if name in self._links]
        poller = zmq.Poller()
        for link in links:
            poller.register(link.dealer, zmq.POLLIN)
            poller.register(link.monitor, zmq.POLLIN)
        wakes = [deadline, *(link.connect_deadline for link in links if not link.is_up)]
        milliseconds = max(0.0, min(wakes) - time.monotonic()) * 1_000
        ready = dict(poller.poll(int(milliseconds) + 1))
        for link in links:
            if link.monitor in ready:
                link.read_monitor()
            if link.dealer in ready:
                yield from link.answers()
            failure = self._owner_gone(link) or link.failure()
            if failure is not None:
                self._close(link.name)
                yield failure

    def _owner_gone(self, link: _Link) -> Lost | None:
        """Return that nobody runs a worker whose socket was refused: one that was killed leaves its file behind."""
        if not link.is_refused or link.is_up:
            return None
        link.is_refused = False
        try:
            self.endpoint(link.name)
        except NoWorkersError as error:
            return Lost(link.name, error, was_up=False)
        return None

    def close(self) -> None:
        """Close every connection at once."""
        for name in list(self._links):
            self._close(name)
        self._context.destroy(linger=0)

    def _sound_link(self, name: str) -> _Link | None:
        """Return the connection to a worker; one that has broken is closed and isn't one."""
        link = self._links.get(name)
        if link is not None:
            link.read_monitor()
            if link.is_broken:
                self._close(name)
                return None
        return link

    def _connect(self, name: str) -> _Link:
        endpoint = self.endpoint(name)
        key_file = self._environment.keys_folder / f"{name}.key"
        try:
            server_key = read_public_key(key_file)
        except KeyFileError as error:
            raise NoWorkersError(f"worker {name} can't be reached without its public key: {error}") from None
        return _Link(self._context, name, endpoint, keys=self._keys, server_key=server_key, key_file=key_file)

    def _close(self, name: str) -> None:
        self._links.pop(name).close()


class _Link:
    """A DEALER connected to one worker, with what its monitor has told so far."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        name: str,
        endpoint: str,
        *,
        keys: KeyPair,
        server_key: bytes,
        key_file: Path,
    ) -> None:
        self.name = name
        self._endpoint = endpoint
        self._key_file = key_file
        self.is_up = False
        self.is_broken = False
        self.is_refused = False
        self._is_accepted = False
        self._is_denied = False
        self._broken_handshakes = 0
        self.connect_deadline = time.monotonic() + CONNECT_SECONDS
        self.dealer = context.socket(zmq.DEALER)
        options: dict[int, int | bytes] = {
            # A new name each time: the worker may still hold the connection that this one replaces.
            zmq.ROUTING_ID: b"nfcli-" + secrets.token_hex(8).encode(),
            zmq.CURVE_PUBLICKEY: keys.public,
            zmq.CURVE_SECRETKEY: keys.secret,
            zmq.CURVE_SERVERKEY: server_key,
            zmq.IPV6: int("[" in endpoint),
            zmq.LINGER: 0,
            zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES,
            zmq.RECONNECT_IVL: 100,
            # Not ZeroMQ's own heartbeats: they can end the process of the other side, and ours (libzmq issue 3937).
            zmq.HEARTBEAT_IVL: 0,
            zmq.TCP_KEEPALIVE: 1,
            zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_SECONDS,
            zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_SECONDS,
            zmq.TCP_KEEPALIVE_CNT: KEEPALIVE_PROBES,
        }
        for option, value in options.items():
            self.dealer.setsockopt(option, value)
        self.monitor = self.dealer.get_monitor_socket(_MONITORED)
        self.dealer.connect(endpoint)

    def read_monitor(self) -> None:
        """Take in what the monitor has to say."""
        while int(self.monitor.get(zmq.EVENTS)) & _READABLE:
            event = recv_monitor_message(self.monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.is_up = True
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._is_denied = self.is_broken = True
            elif event == zmq.EVENT_DISCONNECTED and self.is_up:
                self.is_broken = True
            elif event == zmq.EVENT_CONNECT_RETRIED:
                self.is_refused = True
            elif event == zmq.EVENT_CONNECTED:
                self._is_accepted = True
            else:
                self._broken_handshakes += 1

    def answers(self) -> Iterator[Answer]:
        """Yield what has arrived, up to a bound: the caller has a deadline to keep. What isn't NFP is dropped."""
        with contextlib.suppress(zmq.Again):
            for _ in range(ANSWERS_AT_ONCE):
                frames = self.dealer.recv_multipart(_NOBLOCK)
                try:
                    yield Answer(self.name, BrokerMessage.parse(frames))
                except ProtocolError as error:
                    log.debug("answer of %s dropped: %s", self.name, error)

    def failure(self) -> Lost | None:
        """Return why this worker can't be talked to, None while it can or still may."""
        error: NfcliError
        if self._is_denied:
            error = AccessDeniedError(
                f"the worker at {self._endpoint} doesn't know this client's key: "
                f"put the client's .key file into the worker's .nfcli/clients/"
            )
        elif self.is_broken:
            error = NoWorkersError(f"worker {self.name} at {self._endpoint} has gone away")
        elif self.is_up or time.monotonic() < self.connect_deadline:
            return None
        elif self._broken_handshakes:
            error = NoWorkersError(
                f"the handshake with {self._endpoint} fails: {self._key_file} is not the key of the worker there"
            )
        elif self._is_accepted:
            error = NoWorkersError(
                f"worker {self.name} at {self._endpoint} takes connections but doesn't answer within "
                f"{CONNECT_SECONDS:g} s: see its log, or end it and start it again"
            )
        else:
            error = NoWorkersError(
                f"no worker answered at {self._endpoint} within {CONNECT_SECONDS:g} s: start it with nfcli -w"
            )
        return Lost(self.name, error, was_up=self.is_up)

    def close(self) -> None:
        """Close both sockets; what wasn't sent is dropped."""
        self.dealer.disable_monitor()
        self.monitor.close(linger=0)
        self.dealer.close(linger=0)


def _connectable(endpoint: str) -> str:
    """Return the endpoint to connect to for one that a worker bound: a wildcard address means this machine."""
    for wildcard in ("tcp://0.0.0.0:", "tcp://*:", "tcp://[::]:"):
        if endpoint.startswith(wildcard):
            return "tcp://127.0.0.1:" + endpoint.removeprefix(wildcard)
    return endpoint
