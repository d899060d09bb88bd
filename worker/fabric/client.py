"""Jobs that this worker sends to other services through the broker, many at once.

One thread owns the connection. Its routing id is not the worker's name, so that replies to these jobs never mix with
the messages that the broker sends to the worker.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import uuid as uuids
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.errors import NfcliError, NoWorkersError
from ...models.mailbox import Mailbox
from ...models.protocol.broker_connection import BrokerAddress, BrokerConnection, random_routing_id
from ...models.protocol.broker_presence import BrokerPresence, Timeouts
from ...models.protocol.broker_replies import ManagementReply, management_request, parse_reply, worker_rows
from ...models.protocol.frames import ALL, BrokerMessage
from ...models.protocol.jobs import Results
from ...models.protocol.pending_job import OnEvent, PendingJob
from .job import MAX_RESULT_BYTES, OutgoingJob

log = logging.getLogger(__name__)

MAX_JOBS = 200
PAUSE_AFTER_ERROR_SECONDS = 1.0
STOP_SECONDS = 2.0
MAX_MESSAGE_BYTES = 2 * MAX_RESULT_BYTES
"""A longer frame ends the connection, and a new one is made; results beyond their own limit cost only themselves."""
MAX_WAITING_MESSAGES = 100

_STOPPED = "this worker is stopping: its jobs for other services are cancelled"


@dataclass
class _ManagementRequest:
    """A request to the broker itself, and the future of its reply."""

    uuid: str
    frames: list[bytes]
    deadline: float
    future: Future[Any] = field(default_factory=Future)
    is_sent: bool = False


class FabricClient:
    """Runs jobs on the workers of other services; each job is sent at most once.

    All methods may be called from any thread, `run_job` from any asyncio loop. A job waits no longer than its time-out.
    If the broker is not there or doesn't answer, it fails within `timeouts.answer` seconds; if the broker goes away
    while the job runs, after `timeouts.comeback` seconds.

    The connection's routing id begins with the name `worker`, whose CURVE pair `keys` is. `max_jobs` may run at once. A
    message with a frame of more than `max_message_bytes` is refused.
    """

    def __init__(
        self,
        worker: str,
        address: BrokerAddress,
        keys: KeyPair,
        *,
        timeouts: Timeouts | None = None,
        max_jobs: int = MAX_JOBS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._timeouts = timeouts or Timeouts()
        self._max_jobs = max_jobs
        self._endpoint = address.endpoint
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._connect = partial(
            BrokerConnection,
            self._context,
            address,
            # Of all connections: replies to jobs that are under way go to it.
            name=random_routing_id(worker),
            keys=keys,
            connect_seconds=self._timeouts.answer,
            max_message_bytes=max_message_bytes,
            receive_hwm=MAX_WAITING_MESSAGES,
        )
        self._inbox: Mailbox[OutgoingJob | _ManagementRequest] = Mailbox()
        self._poller = zmq.Poller()
        self._poller.register(self._inbox.reader, zmq.POLLIN)
        self._use(self._connect())
        self._lock = threading.Lock()
        self._is_running = False
        self._running_jobs = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fabric-client", daemon=True)
        self._counts: Counter[str] = Counter()
        # Used by the thread alone.
        self._jobs: dict[str, OutgoingJob] = {}
        self._requests: dict[str, _ManagementRequest] = {}
        self._broker = BrokerPresence(self._timeouts)

    def _use(self, connection: BrokerConnection) -> None:
        self._connection = connection
        self._known_disconnects = connection.disconnects
        for reader in (connection.dealer, connection.monitor):
            self._poller.register(reader, zmq.POLLIN)

    # -- for other threads -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; jobs are accepted from now on."""
        self._is_running = True
        self._thread.start()

    def stop(self) -> None:
        """Fail all jobs at once with an NfcliError and close the connection."""
        self._refuse_jobs()
        self._stopping.set()
        self._inbox.wake()
        if self._thread.ident is None:
            self._close()
        else:
            self._thread.join(STOP_SECONDS)

    def counters(self) -> dict[str, int]:
        """Return counts: jobs, running, received, sent, invalid, reconnects."""
        counts = {key: self._counts[key] for key in ("jobs", "received", "sent", "invalid")}
        return {**counts, "running": self._running_jobs, "reconnects": max(0, self._connection.handshakes - 1)}

    async def run_job(
        self,
        service: str,
        task: str,
        kwargs: dict[str, Any],
        *,
        timeout: float,  # noqa: ASYNC109  it goes out with the job, and results that arrived before it are returned
        reserve: Callable[[int], str | None] = lambda _size: None,
        listen: Callable[[PendingJob], OnEvent] | None = None,
    ) -> Results:
        """Run a task on all workers of a service and return `{worker: Result}`, one entry for each of them.

        A worker that failed, went away or didn't answer within `timeout` seconds has a failed result with one line.
        Cancelling ends the wait alone: the workers go on, since NFP has no message for it. `reserve` is called from the
        thread of the connection, as by `BrokerJob`, and so is what `listen` returns, with the job's events.

        Raises:
            NoWorkersError: the service has no worker, or the broker can't be reached.
            UsageError: arguments that are not JSON, a timeout that is not a positive number.
            NfcliError: too many jobs are running, or this worker is stopping.
        """
        future = self.submit(service, task, kwargs, timeout=timeout, reserve=reserve, listen=listen)
        return await asyncio.wrap_future(future)

    def submit(
        self,
        service: str,
        task: str,
        kwargs: dict[str, Any],
        *,
        timeout: float,
        target: str | Sequence[str] = ALL,
        **options: Any,
    ) -> Future[Results]:
        """Send a job and return the future of its results, or of what `run_job` raises; it may be cancelled.

        `target` is `all`, `any`, a worker's name, or a list of names; `options` are those of `OutgoingJob`: `reserve`,
        `on_stream`, `listen` and `depth`.

        Raises:
            UsageError, NfcliError: as `run_job`, if nothing was sent.
        """
        now = time.monotonic()
        job = OutgoingJob(
            *(service, task, kwargs, target),
            broker=self._broker,
            endpoint=self._endpoint,
            timeout=timeout,
            now=now,
            **options,
        )
        job.job.waker = self._inbox
        with self._while_running():
            if self._running_jobs >= self._max_jobs:
                limit = f"{self._max_jobs} jobs for other services are running"
                raise NfcliError(f"{limit}: try again when some have ended")
            self._running_jobs += 1
            self._counts["jobs"] += 1
            self._inbox.put(job)
        job.future.add_done_callback(self._count_ended)
        self._inbox.wake()
        return job.future

    def workers(self) -> list[dict[str, str]]:
        """Return a row for each worker that the broker has: name, service, status, `alive (s)`, and so on, by name.

        Raises:
            NoWorkersError: the broker can't be reached, or doesn't answer.
            NfcliError: this worker is stopping.
        """
        uuid = uuids.uuid4().hex
        frames = management_request(uuid, "show_workers").frames()
        request = _ManagementRequest(uuid, frames, time.monotonic() + self._timeouts.answer)
        with self._while_running():
            self._inbox.put(request)
        self._inbox.wake()
        return worker_rows(request.future.result())

    def is_settling(self) -> bool:
        """Whether the broker returned so recently that workers may not have registered again."""
        return self._broker.is_settling(time.monotonic())

    @contextmanager
    def _while_running(self) -> Iterator[None]:
        with self._lock:
            if not self._is_running:
                raise NfcliError(_STOPPED)
            yield

    def _count_ended(self, _future: Future[Results]) -> None:
        with self._lock:
            self._running_jobs -= 1

    def _refuse_jobs(self) -> None:
        with self._lock:
            self._is_running = False

    # -- the thread that owns the connection -----------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._run_once()
                except Exception as error:  # noqa: BLE001  an unexpected error must not end the thread of all jobs
                    log.error("jobs for other services: %s", type(error).__name__)
                    self._stopping.wait(PAUSE_AFTER_ERROR_SECONDS)
        finally:
            self._refuse_jobs()
            self._read_inbox()
            for job in self._jobs.values():
                job.abort(NfcliError(_STOPPED))
            for request in self._requests.values():
                request.future.set_exception(NfcliError(_STOPPED))
            self._close()

    def _run_once(self) -> None:
        self._wait()
        self._connection.read_monitor()
        self._replace_broken_connection()
        self._check_connection(time.monotonic())
        self._read_inbox()
        self._receive()
        now = time.monotonic()
        self._send_due(now)
        self._check_timeouts(now)

    def _replace_broken_connection(self) -> None:
        """Make a new connection: ZeroMQ reconnects by itself, but not after a message of more than the maximum size."""
        broken = self._connection
        if broken.is_up or broken.disconnects == self._known_disconnects:
            return
        self._receive()  # messages that arrived before the break can still be read
        for reader in (broken.dealer, broken.monitor):
            self._poller.unregister(reader)
        broken.close()
        connection = self._connect()
        connection.handshakes, connection.disconnects = broken.handshakes, broken.disconnects
        self._use(connection)

    def _wait(self) -> None:
        """Wait for a message, for room to send what is waiting for it, or for the next timeout."""
        has_unsent = any(not job.is_posted or job.puts for job in self._jobs.values()) or any(
            not request.is_sent for request in self._requests.values()
        )
        self._poller.modify(self._connection.dealer, zmq.POLLIN | (zmq.POLLOUT if has_unsent else 0))
        times = [job.next_time() for job in self._jobs.values()]
        times += [request.deadline for request in self._requests.values()]
        seconds = min(times, default=math.inf) - time.monotonic()
        self._poller.poll(None if seconds == math.inf else int(max(0.0, seconds) * 1_000) + 1)

    def _read_inbox(self) -> None:
        for item in self._inbox.drain():
            if isinstance(item, OutgoingJob):
                self._jobs[item.job.uuid] = item
            else:
                self._requests[item.uuid] = item
        self._drop_ended()

    def _receive(self) -> None:
        """Handle the messages that have arrived; none of them may end the thread."""
        for message in self._connection.broker_messages():
            self._counts["received"] += 1
            self._broker.record_received(time.monotonic())
            try:
                self._handle(message)
            except Exception as error:  # noqa: BLE001  an unexpected error costs one message, not all jobs
                self._counts["invalid"] += 1
                log.error("message dropped: %s", type(error).__name__)

    def _handle(self, message: BrokerMessage) -> None:
        job = self._jobs.get(message.uuid)
        if job is not None:
            job.receive(message, time.monotonic())
            job.complete_if_done()
        elif message.uuid in self._requests and isinstance(reply := parse_reply(message), ManagementReply):
            self._requests.pop(message.uuid).future.set_result(reply.value)

    def _check_connection(self, now: float) -> None:
        """Send all requests again over a new connection: those under way were lost with the old one."""
        connection = self._connection
        if self._broker.update_connection(is_up=connection.is_up, handshakes=connection.handshakes, now=now):
            for job in self._jobs.values():
                job.restart_requests()
            for request in self._requests.values():
                request.is_sent = False

    def _send_due(self, now: float) -> None:
        for request in self._requests.values():
            if not request.is_sent:
                request.is_sent = self._send(request.frames, now)
        for job in self._jobs.values():
            if not job.is_posted:
                job.is_posted = self._send(job.post, now)
            elif (frames := job.request(now)) is not None:
                self._send(frames, now)
            for name, data in job.job.take_outgoing():
                job.put([name], data)
            while job.puts and self._send(job.puts[0], now):
                job.puts.popleft()

    def _send(self, frames: list[bytes], now: float) -> bool:
        if not self._connection.send(frames):
            return False
        self._counts["sent"] += 1
        self._broker.record_sent(now)
        return True

    def _check_timeouts(self, now: float) -> None:
        error = self._connection.error_text()
        for job in self._jobs.values():
            job.advance(now, error)
            job.complete_if_done()
        for request in [each for each in self._requests.values() if now >= each.deadline]:
            del self._requests[request.uuid]
            request.future.set_exception(NoWorkersError(error))
        self._drop_ended()

    def _drop_ended(self) -> None:
        for uuid in [uuid for uuid, job in self._jobs.items() if job.future.done()]:
            del self._jobs[uuid]

    def _close(self) -> None:
        self._connection.close()
        self._context.destroy(linger=0)
        self._inbox.close()
