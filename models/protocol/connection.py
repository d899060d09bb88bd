"""A DEALER connected to one place, and what its monitor has told: the connection's state is known without a message."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import zmq
from zmq.utils.monitor import recv_monitor_message

from ..environment.curve_keys import KeyPair

CONNECT_SECONDS = 2.5
MESSAGES_AT_ONCE = 100
MAX_WAITING = 1_000
KEEPALIVE_SECONDS = 5
KEEPALIVE_PROBES = 3
MAX_MESSAGE_BYTES = 512 * 1024 * 1024
"""A listing of 100,000 tokens is about 20 MB; what is connected to is authenticated by its key."""

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


class Connection:
    """A DEALER that connects, and connects again, to one endpoint; used by one thread at a time.

    As far as `read_monitor` has heard: `handshakes` counts the connections that came about, `losses` those that broke
    again, `is_up` says whether the last of them stands. `is_denied`: the other side doesn't let this key in.
    `is_refused`: nobody listens. `is_accepted`: somebody does. `failed_handshakes` counts connections that ended before
    they came about.

    Args:
        context: of the sockets.
        endpoint: where to connect.
        routing_id: the name that the other side knows this connection by.
        keys: this side's CURVE pair; None with `server_key` None: no CURVE.
        server_key: the other side's public key, 40 characters of Z85.
        drops_while_down: messages that are sent while there is no connection are refused and those that wait are
            dropped when it breaks, instead of being kept for the next one.
        max_message_bytes: a longer frame from the other side costs the connection, and ZeroMQ makes no other one; None:
            `MAX_MESSAGE_BYTES`.
        max_waiting: messages that may wait here to be read.
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
        connect_seconds: float | None = None,
        max_message_bytes: int | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.endpoint = endpoint
        self.is_up = False
        self.handshakes = 0
        self.disconnects = 0
        self.is_denied = False
        self.is_refused = False
        self.is_accepted = False
        self.failed_handshakes = 0
        self.connect_seconds = CONNECT_SECONDS if connect_seconds is None else connect_seconds
        self.connect_deadline = time.monotonic() + self.connect_seconds
        self.dealer = context.socket(zmq.DEALER)
        options: dict[int, int | bytes] = {
            zmq.ROUTING_ID: routing_id,
            zmq.IPV6: int("[" in endpoint),
            zmq.LINGER: 0,
            zmq.IMMEDIATE: int(drops_while_down),
            zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES if max_message_bytes is None else max_message_bytes,
            zmq.RCVHWM: max_waiting,
            zmq.RECONNECT_IVL: 100,
            # Not ZeroMQ's own heartbeats: they can end the process of the other side, and ours (libzmq issue 3937).
            zmq.HEARTBEAT_IVL: 0,
            zmq.TCP_KEEPALIVE: 1,
            zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_SECONDS,
            zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_SECONDS,
            zmq.TCP_KEEPALIVE_CNT: KEEPALIVE_PROBES,
        }
        if keys is not None and server_key is not None:
            options |= {
                zmq.CURVE_PUBLICKEY: keys.public,
                zmq.CURVE_SECRETKEY: keys.secret,
                zmq.CURVE_SERVERKEY: server_key,
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

    def wait(self, deadline: float, *, until_writable: bool = False) -> None:
        """Wait until something has come, or the monitor tells something, or `deadline` (monotonic seconds) is there.

        `until_writable`: until a message can be sent as well.
        """
        poller = zmq.Poller()
        poller.register(self.dealer, zmq.POLLIN | (zmq.POLLOUT if until_writable else 0))
        poller.register(self.monitor, zmq.POLLIN)
        poller.poll(int(max(0.0, deadline - time.monotonic()) * 1_000) + 1)
        self.read_monitor()

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send a message if that can be done without waiting; return whether it was."""
        try:
            self.dealer.send_multipart(frames, _NOBLOCK)
        except zmq.Again:
            return False
        return True

    def messages(self) -> Iterator[list[bytes]]:
        """Yield the messages that have arrived, up to a bound: the caller has other things to do."""
        with contextlib.suppress(zmq.Again):
            for _ in range(MESSAGES_AT_ONCE):
                yield self.dealer.recv_multipart(_NOBLOCK)

    def close(self, *, linger_seconds: float = 0.0) -> None:
        """Close both sockets; what wasn't sent is dropped, or after `linger_seconds` in which the context goes on."""
        self.dealer.disable_monitor()
        self.monitor.close(linger=0)
        self.dealer.close(linger=int(linger_seconds * 1_000))
