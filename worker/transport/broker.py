"""Fabric mode: the worker's connection to a NorFab broker, which brings it jobs and takes their answers.

One thread owns the sockets. Jobs run elsewhere; their answers come back through the outbox and wake that thread. What
it says when is decided in `fabric_registration.py`, who else has the worker's name in `fabric_name.py`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.errors import NoWorkersError, ProtocolError, WorkerStartError
from ...models.protocol.broker_connection import BrokerAddress, BrokerConnection, random_routing_id
from ...models.protocol.broker_replies import HOLD_SECONDS, KEEPALIVE_SECONDS
from ...models.protocol.connection import CONNECT_SECONDS
from ...models.protocol.frames import BROKER_HEADER, WORKER_HEADER, Command, Signal, WorkerJob, WorkerMessage
from ..jobs.executor import JobExecutor
from ..jobs.task_context import TaskContext
from ..mailbox import Outbox
from .broker_jobs import FabricJobs
from .name_probe import Holder, NameWatch
from .registration import Registration

log = logging.getLogger(__name__)

# Longer ones no client of ours sends, and the broker relays what anybody sends: they cost the connection, not memory.
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


class FabricServer:
    """Serves jobs that come from a broker, under the worker's name.

    Args:
        worker: whose jobs.
        executor: runs them.
        address: the broker's.
        keys: the worker's CURVE pair.
        keepalive_seconds: between two keepalives, in both directions.
        hold_seconds: how long to wait for the broker's keepalives before a new connection is made.
        connect_seconds: how long the broker may take to answer a question.
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
        self._outbox: Outbox[WorkerMessage] = Outbox()
        self._jobs = FabricJobs(worker, executor, self._outbox)
        self._link: BrokerConnection | None = None
        self._handshakes = 0
        self._registration = self._new_registration(is_left=False)
        self._watch: NameWatch | None = None
        self._watch_at = 0.0
        self._holder: Holder | None = None
        self._told: set[str] = set()
        self._stopping, self._said_ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fabric", daemon=True)
        self._counts: Counter[str] = Counter()

    def connect(self) -> str:
        """Find out whether the worker's name is free at the broker; return the broker's endpoint.

        A broker that isn't there is no error: the worker joins as soon as it is. Takes up to 2.5 s then, and some 3.5 s
        where a worker of this name has been killed a moment ago.

        Raises:
            WorkerStartError: another worker has that name.
        """
        watch = self._new_watch(is_patient=False)
        try:
            now = time.monotonic()
            while (holder := watch.step(now)) is None and now < watch.heard_at + self._connect_seconds:
                watch.link.wait(min(watch.next_step(), watch.heard_at + self._connect_seconds))
                now = time.monotonic()
            if holder is None:
                self._tell_absent(watch.link)
        finally:
            watch.close()
        if holder is Holder.SOMEBODY:
            raise WorkerStartError(
                f"worker {self._worker.name} is already registered at the broker at {self._address.endpoint}: "
                "stop that one or choose another name"
            )
        self._holder = holder
        return self._address.endpoint

    def start(self) -> None:
        """Start serving; where `connect` has found the broker, wait until it lists the worker, for 2.5 s at most."""
        self._thread.start()
        if self._holder is not None:
            self._wait_until_listed(time.monotonic() + self._connect_seconds)

    def wait(self) -> None:
        """Block until the serving thread has ended."""
        self._thread.join()

    def counters(self) -> dict[str, int]:
        """Return counts of messages, of new connections to the broker, and of keepalives in both directions."""
        return {key: self._counts[key] for key in _COUNTED}

    def stop(self) -> None:
        """End the thread, hand over what is ready to go, sign off; from the thread that called `connect`."""
        self._stopping.set()
        self._outbox.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout=2 * LINGER_SECONDS)
        self._context.destroy(linger=int(LINGER_SECONDS * 1_000))
        self._outbox.close()

    def _wait_until_listed(self, deadline: float) -> None:
        name = random_routing_id(self._worker.name)
        link = BrokerConnection(self._context, self._address, name=name, keys=self._keys)
        try:
            while self._said_ready.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() < deadline:
                if any(row["name"] == self._worker.name for row in link.workers()):
                    return
                self._stopping.wait(self._keepalive_seconds / 100)
        except NoWorkersError as error:
            log.debug("not known to be registered: %s", error)
        finally:
            link.close()

    # -- the thread that owns the sockets --------------------------------------------------------------------------

    def _serve(self) -> None:
        if self._holder is not None:
            self._join(is_left=self._holder is Holder.SILENT)
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001  a fault here must not end the thread that serves everybody
                log.error("the connection to the broker failed: %s", type(error).__name__)
                self._stopping.wait(PAUSE_SECONDS)
        self._leave()

    def _turn(self) -> None:
        self._poll()
        if self._link is not None:
            self._link.read_monitor()
            for frames in self._link.messages():
                self._receive(frames)
        self._advance(time.monotonic())
        for message in self._outbox.take():
            self._send(message.frames())

    def _poll(self) -> None:
        """Wait until there is something to do."""
        poller, now, due = zmq.Poller(), time.monotonic(), [self._watch_at]
        poller.register(self._outbox.reader, _READABLE)
        links = [self._link, None if self._watch is None else self._watch.link]
        for link in links:
            if link is not None:
                poller.register(link.dealer, _READABLE)
                poller.register(link.monitor, _READABLE)
        if self._watch is not None:
            due = [self._watch.next_step()]
        elif self._link is not None:
            due = []
        if self._link is not None:
            is_up = self._link.is_up
            due.append(self._registration.next_change(now) if is_up else self._registration.lost_at())
        poller.poll(int(max(0.0, min(due) - now) * 1_000) + 1)

    def _receive(self, frames: list[bytes]) -> None:
        """Take one message; nothing that arrives here may end the thread."""
        self._counts["received"] += 1
        try:
            if len(frames) > _COMMAND and frames[_COMMAND] in _JOBS:
                self._jobs.take(WorkerJob.parse(frames))
            else:
                self._hear(Signal.parse(frames))
        except ProtocolError as error:
            self._counts["invalid"] += 1
            log.debug("message dropped: %s", error)
        except Exception as error:  # noqa: BLE001  the same
            self._counts["invalid"] += 1
            log.error("message dropped: %s", type(error).__name__)

    def _hear(self, signal: Signal) -> None:
        if signal.header != BROKER_HEADER or signal.command == Command.READY:
            raise ProtocolError("not a signal of a broker's")
        if signal.command == Command.KEEPALIVE:
            self._counts["keepalives_received"] += 1
            self._registration.heard(time.monotonic())
            if self._told:
                self._told.clear()
                log.info("the broker at %s is heard again", self._address.endpoint)
        else:
            self._registration.forgotten(time.monotonic())

    def _advance(self, now: float) -> None:
        """Do what is due."""
        if self._watch is not None:
            self._look(self._watch, now)
        if self._link is not None:
            self._keep_up(self._link, now)
        elif self._watch is None and now >= self._watch_at:
            self._watch = self._new_watch(is_patient=False)

    def _look(self, watch: NameWatch, now: float) -> None:
        holder = watch.step(now)
        if holder is None and now >= watch.heard_at + self._connect_seconds:
            self._tell_absent(watch.link)
        if holder is None and (self._link is not None or now < watch.heard_at + self._hold_seconds):
            return
        # A broker that answers no questions may still bring jobs; and ZeroMQ gives some connections up for good.
        is_joining = watch.link.is_up and holder is not Holder.SOMEBODY
        self._end_watch(now)
        if self._link is None and is_joining:
            self._join(is_left=holder is Holder.SILENT)
        elif holder is Holder.NOBODY:
            self._registration.forgotten(now)
        elif holder is Holder.SOMEBODY and (self._link is None or self._registration.heard_at < watch.began):
            # It would only be a fight: each connection takes the name from the other one.
            self._tell(
                f"another worker has taken the name {self._worker.name} at the broker at {self._address.endpoint}: no "
                "jobs come here until it is gone: stop one of the two, or rename it",
                level=logging.CRITICAL,
            )
            self._drop_link()

    def _keep_up(self, link: BrokerConnection, now: float) -> None:
        registration = self._registration
        if link.handshakes > self._handshakes:
            self._counts["reconnects"] += int(self._said_ready.is_set())
            self._handshakes = link.handshakes
            registration.connected(now)
        if registration.is_lost(now):
            self._give_up(link)
            return
        if not link.is_up:
            if self._handshakes:
                self._tell_absent(link)
                self._renew(link)
            return
        if not self._signal(registration.signals(now)):
            registration.not_sent(now)
        if not registration.is_silent(now):
            self._end_watch(now)
        elif self._watch is None and now >= self._watch_at:
            self._watch = self._new_watch(is_patient=True)

    def _signal(self, commands: list[bytes]) -> bool:
        """Send signals; return whether all of them were."""
        for command in commands:
            if not self._send(Signal(WORKER_HEADER, command, self._worker.service).frames()):
                return False
            if command == Command.KEEPALIVE:
                self._counts["keepalives_sent"] += 1
            elif command == Command.READY and not self._said_ready.is_set():
                self._said_ready.set()
                log.info("registered at the broker at %s", self._address.endpoint)
        return True

    def _give_up(self, link: BrokerConnection) -> None:
        """Leave a connection on which the broker has been silent for too long; a new one is made once it answers.

        Meanwhile somebody else may have been given the name.
        """
        self._tell_absent(link)
        if link.is_up:
            self._signal([Command.DISCONNECT])
        self._end_watch(0.0)
        self._drop_link(linger_seconds=LINGER_SECONDS)
        self._watch_at = 0.0

    def _join(self, *, is_left: bool) -> None:
        self._registration = self._new_registration(is_left=is_left)
        self._connect()

    def _connect(self) -> None:
        self._handshakes = 0
        self._link = BrokerConnection(
            self._context,
            self._address,
            name=self._worker.name.encode(),
            keys=self._keys,
            max_message_bytes=MAX_MESSAGE_BYTES,
            max_waiting=MAX_WAITING_MESSAGES,
        )

    def _renew(self, broken: BrokerConnection) -> None:
        """Connect anew: ZeroMQ does it by itself, but not where a message was longer than allowed."""
        # What came before the break is still there.
        for frames in broken.messages():
            self._receive(frames)
        broken.close()
        self._connect()

    def _drop_link(self, *, linger_seconds: float = 0.0) -> None:
        if self._link is not None:
            self._link.close(linger_seconds=linger_seconds)
        self._link = None

    def _end_watch(self, now: float) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
            self._watch_at = now + self._keepalive_seconds

    def _leave(self) -> None:
        """Sign off, so that nobody's job is sent here any more."""
        for message in self._outbox.take():
            self._send(message.frames())
        self._end_watch(0.0)
        if self._link is not None:
            if self._link.is_up:
                self._signal([Command.DISCONNECT])
            self._drop_link(linger_seconds=LINGER_SECONDS)

    def _send(self, frames: list[bytes]) -> bool:
        is_sent = self._link is not None and self._link.send(frames)
        self._counts["sent" if is_sent else "dropped"] += 1
        return is_sent

    def _tell_absent(self, link: BrokerConnection) -> None:
        self._tell(f"{link.error_text()}; the worker joins it when it can, MCP clients are served meanwhile")

    def _tell(self, text: str, level: int = logging.WARNING) -> None:
        """Log a state of things, once until the broker is heard again."""
        if text not in self._told:
            self._told.add(text)
            log.log(level, text)

    def _new_registration(self, *, is_left: bool) -> Registration:
        return Registration(
            time.monotonic(),
            is_left=is_left,
            keepalive_seconds=self._keepalive_seconds,
            hold_seconds=self._hold_seconds,
        )

    def _new_watch(self, *, is_patient: bool) -> NameWatch:
        return NameWatch(
            self._context,
            self._address,
            name=self._worker.name,
            keys=self._keys,
            keepalive_seconds=self._keepalive_seconds,
            is_patient=is_patient,
        )
