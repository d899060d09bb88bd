"""A DEALER socket and its monitor, which reports the connection's state without any message being exchanged."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import TypedDict, Unpack

import zmq
from zmq.utils.monitor import recv_monitor_message

from ..environment.curve_keys import KeyPair
from ..errors import ProtocolError
from ..mailbox import Mailbox
from .frames import BrokerMessage

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.5
MESSAGES_AT_ONCE = 100
RECEIVE_HWM = 1_000
KEEPALIVE_SECONDS = 5
KEEPALIVE_PROBES = 3
MAX_MESSAGE_BYTES = 512 * 1024 * 1024
"""A list of 100,000 tokens takes about 20 MB; the peer is authenticated by its key."""

# Plain integers: combining pyzmq's enumerations takes a microsecond each time.
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


class ConnectionOptions(TypedDict, total=False):
    """Limits of a connection; the defaults are this module's constants.

    `connect_seconds`: how long the first connection may take. `max_message_bytes`: a longer frame ends the connection,
    and ZeroMQ makes no other one. `receive_hwm`: how many messages ZeroMQ keeps until they are read.
    """

    connect_seconds: float
    max_message_bytes: int
    receive_hwm: int


class Connection:
    """A DEALER that connects to one endpoint, again and again; used by one thread at a time.

    Its state is as of the last `read_monitor`: `is_up`; how often it was established (`handshakes`), broke afterwards
    (`disconnects`), or ended before (`failed_handshakes`); and whether an attempt was rejected because of this side's
    key or address (`is_denied`), met no process that listens (`is_refused`), or met one (`is_accepted`).

    Args:
        routing_id: identifies this connection to the peer.
        keys: this side's CURVE pair; None: no CURVE.
        server_key: the peer's public key, 40 characters of Z85; None: no CURVE.
        drops_while_down: refuse messages while there is no connection and drop unsent ones when it breaks, instead of
            keeping them for the next connection.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        *,
        routing_id: bytes,
        keys: KeyPair | None,
        server_key: bytes | None,
        drops_while_down: bool = False,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        self.endpoint = endpoint
        self.is_up = False
        self.handshakes = 0
        self.disconnects = 0
        self.is_denied = False
        self.is_refused = False
        self.is_accepted = False
        self.failed_handshakes = 0
        self.connect_seconds = options.get("connect_seconds", CONNECT_SECONDS)
        self.connect_deadline = time.monotonic() + self.connect_seconds
        self.dealer = context.socket(zmq.DEALER)
        settings: dict[int, int | bytes] = {
            zmq.ROUTING_ID: routing_id,
            zmq.IPV6: int("[" in endpoint),
            zmq.LINGER: 0,
            zmq.IMMEDIATE: int(drops_while_down),
            zmq.MAXMSGSIZE: options.get("max_message_bytes", MAX_MESSAGE_BYTES),
            zmq.RCVHWM: options.get("receive_hwm", RECEIVE_HWM),
            zmq.RECONNECT_IVL: 100,
            # Not ZeroMQ's own heartbeats: they can end the process of the other side, and ours (libzmq issue 3937).
            zmq.HEARTBEAT_IVL: 0,
            zmq.TCP_KEEPALIVE: 1,
            zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_SECONDS,
            zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_SECONDS,
            zmq.TCP_KEEPALIVE_CNT: KEEPALIVE_PROBES,
        }
        if keys is not None and server_key is not None:
            settings |= {
                zmq.CURVE_PUBLICKEY: keys.public,
                zmq.CURVE_SECRETKEY: keys.secret,
                zmq.CURVE_SERVERKEY: server_key,
            }
        for option, value in settings.items():
            self.dealer.setsockopt(option, value)
        self.monitor = self.dealer.get_monitor_socket(_MONITORED)
        self.dealer.connect(endpoint)

    def read_monitor(self) -> None:
        """Update the attributes from the monitor's events."""
        while int(self.monitor.get(zmq.EVENTS)) & _READABLE:
            event = recv_monitor_message(self.monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.is_up = True
                self.handshakes += 1
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.is_denied = True
            elif event == zmq.EVENT_DISCONNECTED and self.is_up:
                self.is_up = False
                self.disconnects += 1
            elif event == zmq.EVENT_CONNECT_RETRIED:
                self.is_refused = True
            elif event == zmq.EVENT_CONNECTED:
                self.is_accepted = True
            else:
                self.failed_handshakes += 1

    def wait(self, deadline: float, *, until_writable: bool = False, waker: Mailbox[None] | None = None) -> None:
        """Wait for a message or an event of the monitor, until `deadline` (monotonic seconds) at the latest.

        With `until_writable` also return when a message can be sent, and with a `waker` when it wakes this thread.
        """
        poller = zmq.Poller()
        poller.register(self.dealer, zmq.POLLIN | (zmq.POLLOUT if until_writable else 0))
        poller.register(self.monitor, zmq.POLLIN)
        if waker is not None:
            poller.register(waker.reader, zmq.POLLIN)
        poller.poll(int(max(0.0, deadline - time.monotonic()) * 1_000) + 1)
        if waker is not None:
            waker.clear()
        self.read_monitor()

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send a message without waiting; return whether that was possible."""
        try:
            self.dealer.send_multipart(frames, _NOBLOCK)
        except zmq.Again:
            return False
        return True

    def has_messages(self) -> bool:
        """Whether a message has arrived."""
        return bool(int(self.dealer.get(zmq.EVENTS)) & _READABLE)

    def messages(self) -> Iterator[list[bytes]]:
        """Yield the messages that have arrived, at most `MESSAGES_AT_ONCE`."""
        with contextlib.suppress(zmq.Again):
            for _ in range(MESSAGES_AT_ONCE):
                yield self.dealer.recv_multipart(_NOBLOCK)

    def broker_messages(self) -> Iterator[BrokerMessage]:
        """Yield the messages to clients among those that have arrived; others are dropped."""
        for frames in self.messages():
            try:
                yield BrokerMessage.parse(frames)
            except ProtocolError as error:
                log.debug("message from %s dropped: %s", self.endpoint, error)

    def close(self, *, linger_seconds: float = 0.0) -> None:
        """Close both sockets; unsent messages are dropped after `linger_seconds`, while the context is still open."""
        self.dealer.disable_monitor()
        self.monitor.close(linger=0)
        self.dealer.close(linger=int(linger_seconds * 1_000))
