"""A thread that follows the connections of a ROUTER and closes those beyond the limits, which ZeroMQ itself lacks.

ZeroMQ keeps a message until its last frame has come, however many there are, and any number of connections. Its
monitor reports the descriptors of connections; one that is shut down ends as if its client had closed it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from contextlib import suppress

import zmq
from zmq.utils.monitor import recv_monitor_message

from ....models.mailbox import Mailbox
from ...client_network import client_network
from ...limit_counter import LimitCounter
from . import sockets, table
from .table import Peer, PeerTable

log = logging.getLogger(__name__)

MEASURE_SECONDS = 0.1
STOP_SECONDS = 1.0
_MONITORED = (
    zmq.EVENT_ACCEPTED | zmq.EVENT_ACCEPT_FAILED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_MONITOR_STOPPED
)
_EVENTS_AT_ONCE = 100
_SOURCE = int(zmq.SRCFD)


class ConnectionGuard:
    """Limits the connections of one ROUTER. Make it before the socket binds.

    Its thread reads the monitor from `start` to `stop`; the thread that owns the socket calls `note_message`.
    """

    def __init__(self, router: zmq.Socket[bytes], handshake_seconds: float) -> None:
        self._router = router
        self._monitor = router.get_monitor_socket(_MONITORED)
        self._messages: Counter[int] = Counter()
        self._peers = PeerTable(self._messages, handshake_seconds, time.monotonic)
        self._address: object = None
        self._wakeup: Mailbox[None] = Mailbox()
        self._holder = sockets.SocketHolder()
        self._too_many = LimitCounter(log)
        self._too_long = LimitCounter(log)
        self._thread = threading.Thread(target=self._follow, name="connections", daemon=True)

    def counters(self) -> dict[str, int]:
        """Return the number of connections, and how often each limit closed one."""
        return {
            "connections": len(self._peers),
            "connections_closed": self._too_many.count,
            "messages_too_long": self._too_long.count,
        }

    def start(self, endpoint: str) -> None:
        """Follow the connections of the endpoint that the socket is bound to."""
        self._address = int(endpoint.rpartition(":")[2]) if endpoint.startswith("tcp://") else endpoint[len("ipc://") :]
        self._thread.start()

    def stop(self) -> None:
        """End the thread; call before the socket is closed, from the thread that closes it. Safe to repeat."""
        if self._monitor.closed:
            return
        # ZeroMQ's own thread may wait for the monitor to be read: the guard goes on until the monitor is off.
        self._router.disable_monitor()
        self._wakeup.wake()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            self._monitor.close(linger=0)
            self._holder.close()
        self._wakeup.close()

    def note_message(self, frame: zmq.Frame) -> None:
        """Note that a whole message has arrived, of which this is the first frame."""
        with suppress(zmq.ZMQError):
            self._messages[frame.get(_SOURCE)] += 1

    # -- the guard's thread ----------------------------------------------------------------------------------------

    def _follow(self) -> None:
        poller = zmq.Poller()
        poller.register(self._monitor, zmq.POLLIN)
        poller.register(self._wakeup.reader, zmq.POLLIN)
        next_measuring = time.monotonic()
        is_on = True
        while is_on:
            poller.poll(int(MEASURE_SECONDS * 1_000) if len(self._peers) else None)
            try:
                is_on = self._read_events()
                if time.monotonic() >= next_measuring:
                    self._measure()
                    next_measuring = time.monotonic() + MEASURE_SECONDS
            except Exception as error:  # noqa: BLE001  ZeroMQ's thread would wait for ever if nobody read the monitor
                log.error("connections of clients not limited this time: %s", type(error).__name__)

    def _read_events(self) -> bool:
        """Handle the monitor's events; return whether there may be more."""
        for _ in range(_EVENTS_AT_ONCE):
            if not self._monitor.poll(0):
                break
            message = recv_monitor_message(self._monitor)
            event, descriptor = message["event"], int(message["value"])
            if event == zmq.EVENT_MONITOR_STOPPED:
                return False
            if event == zmq.EVENT_ACCEPTED:
                self._accept(descriptor)
            elif event == zmq.EVENT_ACCEPT_FAILED:
                self._too_many.record("ZeroMQ connections refused: the process has no file descriptors left")
            else:
                self._peers.remove(descriptor)
        return True

    def _accept(self, descriptor: int) -> None:
        with self._holder.socket_at(descriptor) as held:
            if held is None or not self._is_ours(held):
                return  # it has ended meanwhile
            network, identity = client_network(sockets.peer_address(held)), sockets.identity(held)
        closing = self._peers.add(descriptor, network, identity)
        if closing is not None:
            peer, reason = closing
            self._too_many.record("ZeroMQ connections of %s closed: %s", peer.network or "this machine", reason)
            self._close(peer)

    def _measure(self) -> None:
        self._peers.settle()
        memory = sockets.resident_bytes() if len(self._peers) else 0
        for peer in self._peers:
            with sockets.socket_at(peer.descriptor) as borrowed:
                if borrowed is None or not self._is_ours(borrowed):
                    continue
                count, total = self._messages[peer.descriptor], sockets.received_bytes(borrowed)
                if total is not None:
                    peer.measure(count, total)
                else:
                    # Nobody counts a socket file's bytes: while some wait, what the process grows by stands for them.
                    peer.measure(count, memory if sockets.has_unread(borrowed) else None)
        for peer in self._peers.too_long():
            self._too_long.record(
                "ZeroMQ connection of %s closed: a message of more than %d MiB, or too many at once",
                *(peer.network or "this machine", table.MAX_INCOMPLETE_BYTES // 1024**2),
            )
            self._close(peer)

    def _close(self, peer: Peer) -> None:
        """Shut a connection down; ZeroMQ closes it then, and reports that."""
        self._peers.remove(peer.descriptor)
        with self._holder.socket_at(peer.descriptor) as held:
            # Its descriptor may be a file's by now, an HTTP connection's, or another client's.
            if held is not None and sockets.identity(held) == peer.identity:
                with suppress(OSError):  # the client was faster
                    held.shutdown(socket.SHUT_RDWR)

    def _is_ours(self, borrowed: socket.socket) -> bool:
        return sockets.local_address(borrowed) == self._address
