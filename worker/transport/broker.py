"""Fabric mode: the worker's connection to a NorFab broker, which relays jobs to it and their replies to clients.

One thread owns the sockets. Jobs run in others; their replies come back through a mailbox, which wakes that thread.
`registration.py` decides which signals are due, `name_probe.py` whether another worker uses the name.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from functools import partial

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.errors import NoWorkersError, ProtocolError, WorkerStartError
from ...models.mailbox import Mailbox
from ...models.protocol.broker_connection import BrokerAddress, BrokerConnection, random_routing_id
from ...models.protocol.broker_replies import HOLD_SECONDS, KEEPALIVE_SECONDS
from ...models.protocol.connection import CONNECT_SECONDS
from ...models.protocol.frames import BROKER_HEADER, WORKER_HEADER, Command, Signal, WorkerJob, WorkerMessage
from ..jobs.executor import JobExecutor
from ..jobs.task_context import TaskContext
from .broker_jobs import IncomingJobs
from .name_probe import NameOwner, NameProbe
from .registration import Registration
from .stall_watch import POLL_SECONDS, StallWatch

log = logging.getLogger(__name__)

# nfcli's clients send no longer ones, and the broker relays any: a longer one ends the connection.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_WAITING_MESSAGES = 100
LINGER_SECONDS = 0.5
PAUSE_SECONDS = 0.1
_COUNTED = (
    *("received", "sent", "invalid", "denied", "dropped"),
    *("reconnects", "keepalives_sent", "keepalives_received"),
)
_JOBS = frozenset({Command.POST, Command.GET, Command.PUT})
_READABLE = int(zmq.POLLIN)
_COMMAND = 2


class BrokerTransport:
    """Serves the jobs that a broker relays to the worker's name.

    Keepalives come every `keepalive_seconds` in both directions; a broker may be silent for `hold_seconds` before a new
    connection is made, and may take `connect_seconds` to reply to a management request.
    """

    def __init__(
        self,
        worker: TaskContext,
        executor: JobExecutor,
        *,
        address: BrokerAddress,
        keys: KeyPair,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        hold_seconds: float = HOLD_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self._worker = worker
        self._address = address
        self._keys = keys
        self._keepalive_seconds = keepalive_seconds
        self._hold_seconds = hold_seconds
        self._connect_seconds = connect_seconds
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._mailbox: Mailbox[WorkerMessage] = Mailbox()
        self._jobs = IncomingJobs(worker, executor, self._mailbox)
        self._connection: BrokerConnection | None = None
        self._handshakes = 0
        self._new_registration = partial(Registration, keepalive_seconds=keepalive_seconds, hold_seconds=hold_seconds)
        self._registration = self._new_registration(time.monotonic())
        self._new_probe = partial(
            NameProbe, self._context, address, name=worker.name, keys=keys, keepalive_seconds=keepalive_seconds
        )
        self._probe: NameProbe | None = None
        self._probe_at = 0.0
        self._owner: NameOwner | None = None
        self._logged: set[str] = set()
        self._stopping, self._has_registered = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fabric", daemon=True)
        self._counts: Counter[str] = Counter()
        self._stalls = StallWatch(POLL_SECONDS)

    def connect(self) -> str:
        """Check that no other worker uses the name at the broker; return the broker's endpoint.

        An unreachable broker is no error: the worker joins it once it is reachable. Takes up to 2.5 s then, and some
        3.5 s if a worker of this name has just been killed.

        Raises:
            WorkerStartError: another worker uses the name.
        """
        probe = self._new_probe(wait_full_window=False)
        try:
            now = time.monotonic()
            while (owner := probe.step(now)) is None and now < probe.last_reply + self._connect_seconds:
                probe.connection.wait(min(probe.next_step(), probe.last_reply + self._connect_seconds))
                now = time.monotonic()
            if owner is None:
                self._warn_unreachable(probe.connection)
        finally:
            probe.close()
        if owner is NameOwner.ALIVE:
            raise WorkerStartError(
                f"worker {self._worker.name} is already registered at the broker at {self._address.endpoint}: "
                "stop that one or choose another name"
            )
        self._owner = owner
        return self._address.endpoint

    def start(self) -> None:
        """Start serving; if `connect` reached the broker, wait until it lists the worker, for 2.5 s at most."""
        self._thread.start()
        if self._owner is not None:
            self._wait_until_registered(time.monotonic() + self._connect_seconds)

    def wait(self) -> None:
        """Block until the serving thread has ended."""
        self._thread.join()

    def is_responsive(self) -> bool:
        """Whether the serving thread has gone round its loop lately; from any thread."""
        return self._mailbox.is_being_read()

    def counters(self) -> dict[str, int]:
        """Return counts of messages, of new connections to the broker, and of keepalives in both directions."""
        return {key: self._counts[key] for key in _COUNTED}

    @property
    def is_joined(self) -> bool:
        """Whether there is a connection under the worker's name, which may be interrupted; from any thread."""
        return self._connection is not None

    def stop(self) -> None:
        """End the thread, send the replies that are ready, sign off; from the thread that called `connect`."""
        self._stopping.set()
        self._mailbox.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout=2 * LINGER_SECONDS)
        self._context.destroy(linger=int(LINGER_SECONDS * 1_000))
        self._mailbox.close()

    def _wait_until_registered(self, deadline: float) -> None:
        name = random_routing_id(self._worker.name)
        connection = BrokerConnection(self._context, self._address, name=name, keys=self._keys)
        try:
            while self._has_registered.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() < deadline:
                if any(row["name"] == self._worker.name for row in connection.workers()):
                    return
                self._stopping.wait(self._keepalive_seconds / 100)
        except NoWorkersError as error:
            log.debug("registration not confirmed: %s", error)
        finally:
            connection.close()

    # -- the thread that owns the sockets --------------------------------------------------------------------------

    def _serve(self) -> None:
        if self._owner is not None:
            self._join(has_stale_entry=self._owner is NameOwner.STALE)
        while not self._stopping.is_set():
            try:
                self._run_once()
            except Exception as error:  # noqa: BLE001  a fault here must not end the thread
                log.error("connection to the broker failed: %s", type(error).__name__)
                self._stopping.wait(PAUSE_SECONDS)
        self._send_replies()
        self._sign_off()

    def _run_once(self) -> None:
        self._poll()
        if self._connection is not None:
            self._connection.read_monitor()
            self._stalls.begin_round(has_messages=self._connection.has_messages())
            for frames in self._connection.messages():
                self._receive(frames)
        self._tick(time.monotonic())
        self._send_replies()

    def _poll(self) -> None:
        """Wait for messages, replies in the mailbox, or the time of the next step."""
        poller, now, due = zmq.Poller(), time.monotonic(), [self._probe_at]
        poller.register(self._mailbox.reader, _READABLE)
        connections = [self._connection, None if self._probe is None else self._probe.connection]
        for connection in connections:
            if connection is not None:
                poller.register(connection.dealer, _READABLE)
                poller.register(connection.monitor, _READABLE)
        if self._probe is not None:
            due = [self._probe.next_step()]
        elif self._connection is not None:
            due = []
        if self._connection is not None:
            is_up = self._connection.is_up
            due.append(self._registration.next_change(now) if is_up else self._registration.lost_at())
        poller.poll(int(min(POLL_SECONDS, max(0.0, min(due) - now)) * 1_000) + 1)

    def _receive(self, frames: list[bytes]) -> None:
        """Handle one message; no fault of it ends the thread."""
        self._counts["received"] += 1
        try:
            if len(frames) > _COMMAND and frames[_COMMAND] in _JOBS:
                self._jobs.handle(WorkerJob.parse(frames), self._stalls.waited_seconds())
            else:
                self._handle_signal(Signal.parse(frames))
        except ProtocolError as error:
            self._counts["invalid"] += 1
            log.debug("message dropped: %s", error)
        except Exception as error:  # noqa: BLE001  the same
            self._counts["invalid"] += 1
            log.error("message dropped: %s", type(error).__name__)

    def _handle_signal(self, signal: Signal) -> None:
        if signal.header != BROKER_HEADER or signal.command == Command.READY:
            raise ProtocolError("not a signal that brokers send")
        if signal.command == Command.KEEPALIVE:
            self._counts["keepalives_received"] += 1
            self._registration.keepalive_received(time.monotonic())
            if self._logged:
                self._logged.clear()
                log.info("broker at %s is reachable again", self._address.endpoint)
        else:
            self._registration.reregister(time.monotonic())

    def _tick(self, now: float) -> None:
        """Take the steps that are due."""
        if self._probe is not None:
            self._check_name(self._probe, now)
        if self._connection is not None:
            self._maintain(self._connection, now)
        elif self._probe is None and now >= self._probe_at:
            self._probe = self._new_probe(wait_full_window=False)

    def _check_name(self, probe: NameProbe, now: float) -> None:
        owner = probe.step(now)
        if owner is None and now >= probe.last_reply + self._connect_seconds:
            self._warn_unreachable(probe.connection)
        if owner is None and (self._connection is not None or now < probe.last_reply + self._hold_seconds):
            return
        # A broker that doesn't reply may still relay jobs; and ZeroMQ abandons some connections for good.
        is_joining = probe.connection.is_up and owner is not NameOwner.ALIVE
        self._end_probe(now)
        if self._connection is None and is_joining:
            self._join(has_stale_entry=owner is NameOwner.STALE)
        elif owner is NameOwner.NONE:
            self._registration.reregister(now)
        elif owner is NameOwner.ALIVE and (
            self._connection is None or self._registration.last_keepalive < probe.started
        ):
            # Connecting again would take the name back, and so forth.
            self._log_once(
                f"another worker uses the name {self._worker.name} at the broker at {self._address.endpoint}: this one "
                "gets no jobs until it is gone: stop one of the two, or rename it",
                level=logging.CRITICAL,
            )
            self._drop_connection()

    def _maintain(self, connection: BrokerConnection, now: float) -> None:
        registration = self._registration
        if connection.handshakes > self._handshakes:
            self._counts["reconnects"] += int(self._has_registered.is_set())
            self._handshakes = connection.handshakes
            registration.connected(now)
        if registration.is_lost(now):
            # A new connection is made once the broker replies to a probe: another worker may have taken the name.
            self._warn_unreachable(connection)
            self._sign_off()
            self._probe_at = 0.0
            return
        if not connection.is_up:
            if self._handshakes:
                self._warn_unreachable(connection)
                self._reconnect(connection)
            return
        due = registration.due_signals(now)
        if due and not self._send_signals(due):
            registration.send_failed(now)
        if not registration.is_silent(now):
            self._end_probe(now)
        elif self._probe is None and now >= self._probe_at:
            self._probe = self._new_probe(wait_full_window=True)

    def _send_signals(self, commands: list[bytes]) -> bool:
        """Send signals; return whether all of them were."""
        for command in commands:
            if not self._send(Signal(WORKER_HEADER, command, self._worker.service).frames()):
                return False
            if command == Command.KEEPALIVE:
                self._counts["keepalives_sent"] += 1
            elif command == Command.READY and not self._has_registered.is_set():
                self._has_registered.set()
                log.info("registered at the broker at %s", self._address.endpoint)
        return True

    def _join(self, *, has_stale_entry: bool) -> None:
        self._registration = self._new_registration(time.monotonic(), has_stale_entry=has_stale_entry)
        self._connect()

    def _connect(self) -> None:
        self._handshakes = 0
        self._connection = BrokerConnection(
            self._context,
            self._address,
            name=self._worker.name.encode(),
            keys=self._keys,
            max_message_bytes=MAX_MESSAGE_BYTES,
            receive_hwm=MAX_WAITING_MESSAGES,
        )

    def _reconnect(self, broken: BrokerConnection) -> None:
        """Make a new connection: ZeroMQ reconnects by itself, but not after a message of more than the maximum size."""
        # Messages that arrived before the break can still be read.
        for frames in broken.messages():
            self._receive(frames)
        broken.close()
        self._connect()

    def _drop_connection(self, *, linger_seconds: float = 0.0) -> None:
        if self._connection is not None:
            self._connection.close(linger_seconds=linger_seconds)
        self._connection = None

    def _end_probe(self, now: float) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None
            self._probe_at = now + self._keepalive_seconds

    def _sign_off(self) -> None:
        """Send DISCONNECT, so that the broker relays no more jobs, and close the connection and the probe's."""
        self._end_probe(0.0)
        if self._connection is not None:
            if self._connection.is_up:
                self._send_signals([Command.DISCONNECT])
            self._drop_connection(linger_seconds=LINGER_SECONDS)

    def _send_replies(self) -> None:
        for message in self._mailbox.drain():
            self._send(message.frames())

    def _send(self, frames: list[bytes]) -> bool:
        is_sent = self._connection is not None and self._connection.send(frames)
        self._counts["sent" if is_sent else "dropped"] += 1
        return is_sent

    def _warn_unreachable(self, connection: BrokerConnection) -> None:
        self._log_once(
            f"{connection.error_text()}; the worker joins it once it is reachable, and serves MCP clients meanwhile"
        )

    def _log_once(self, text: str, level: int = logging.WARNING) -> None:
        """Log a state once, until the broker is reachable again."""
        if text not in self._logged:
            self._logged.add(text)
            log.log(level, text)
