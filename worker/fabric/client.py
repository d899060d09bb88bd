"""Jobs that this worker sends to other services of its fabric, through the broker, many at once.

One thread owns the connection, whose name is its own: answers to these jobs never mix with what comes for the worker.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import uuid as uuids
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.errors import NfcliError, NoWorkersError
from ...models.protocol.broker_connection import BrokerAddress, BrokerConnection, random_routing_id
from ...models.protocol.broker_replies import ManagementReply, management_request, parse_reply, worker_rows
from ...models.protocol.frames import ALL, BrokerMessage, Command
from ..mailbox import Mailbox
from .job import Patience, Results, SentJob

log = logging.getLogger(__name__)

MAX_JOBS = 200
FAULT_PAUSE_SECONDS = 1.0
STOP_SECONDS = 2.0

_STOPPED = "this worker is stopping: its jobs for other services are given up"


@dataclass
class _Question:
    """What the broker itself is asked."""

    uuid: str
    frames: list[bytes]
    deadline: float
    future: Future[Any] = field(default_factory=Future)
    is_sent: bool = False


class FabricClient:
    """Runs jobs on the workers of other services; a job is sent once, whatever happens.

    All methods may be called from any thread, `run_job` from any asyncio loop. Nobody waits longer than a job's
    time-out; a broker that isn't there, or says nothing, is told within `patience.answer` seconds, and one that goes
    away while jobs run is waited for until `patience.comeback` is over.

    Args:
        worker: name of this worker; the connection's name is made of it.
        address: the broker's.
        keys: this worker's CURVE pair.
        patience: how long to wait for what.
    """

    def __init__(self, worker: str, address: BrokerAddress, keys: KeyPair, *, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._endpoint = address.endpoint
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._link = BrokerConnection(self._context, address, name=random_routing_id(worker), keys=keys)
        self._link.connect_seconds = self._patience.answer
        self._inbox: Mailbox[SentJob | _Question] = Mailbox()
        self._poller = zmq.Poller()
        for reader in (self._link.dealer, self._link.monitor, self._inbox.reader):
            self._poller.register(reader, zmq.POLLIN)
        self._lock = threading.Lock()
        self._is_running = False
        self._in_flight = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fabric-client", daemon=True)
        self._counts: Counter[str] = Counter()
        # What the thread alone uses.
        self._jobs: dict[str, SentJob] = {}
        self._questions: dict[str, _Question] = {}
        self._handshakes = 0
        self._silent_since: float | None = None
        self._settled_at = -math.inf

    # -- for other threads -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start serving."""
        self._is_running = True
        self._thread.start()

    def stop(self) -> None:
        """End all jobs at once, their callers get an NfcliError; close the connection."""
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
        return {**counts, "running": self._in_flight, "reconnects": max(0, self._handshakes - 1)}

    async def run_job(
        self,
        service: str,
        task: str,
        kwargs: dict[str, Any],
        *,
        timeout: float,  # noqa: ASYNC109  the broker's side is told, and what came until then is handed over
    ) -> Results:
        """Run a task on all workers of a service and return `{worker: Result}`, one entry for each of them.

        A worker that failed, went away or didn't answer within `timeout` seconds has a failed result with one line.
        Who is cancelled waits no longer, though the workers go on: there is no way to tell them.

        Raises:
            NoWorkersError: the service has no worker, or the broker can't be reached.
            UsageError: arguments that are no JSON, a timeout that isn't a positive number.
            NfcliError: too many jobs are under way, or this worker stops.
        """
        return await asyncio.wrap_future(self.submit(service, task, kwargs, timeout=timeout))

    def run(
        self, service: str, task: str, kwargs: dict[str, Any], *, timeout: float, target: str | Sequence[str] = ALL
    ) -> Results:
        """Do what `run_job` does, blocking, on `target`: `all`, `any`, a worker's name, or a list of names."""
        return self.submit(service, task, kwargs, timeout=timeout, target=target).result()

    def submit(
        self, service: str, task: str, kwargs: dict[str, Any], *, timeout: float, target: str | Sequence[str] = ALL
    ) -> Future[Results]:
        """Send a job and return what will have its results, or what `run_job` raises; it may be cancelled.

        Raises:
            UsageError, NfcliError: as `run_job`, decided here.
        """
        times = {"timeout": timeout, "now": time.monotonic()}
        job = SentJob(service, task, kwargs, target, endpoint=self._endpoint, patience=self._patience, **times)
        with self._lock:
            if not self._is_running:
                raise NfcliError(_STOPPED)
            if self._in_flight >= MAX_JOBS:
                raise NfcliError(f"{MAX_JOBS} jobs for other services are under way: try again when some have ended")
            self._in_flight += 1
            self._counts["jobs"] += 1
            self._inbox.put(job)
        job.future.add_done_callback(self._ended)
        self._inbox.wake()
        return job.future

    def workers(self) -> list[dict[str, str]]:
        """Return a row for each worker that the broker has: name, service, status, `alive (s)`, and so on, by name.

        Raises:
            NoWorkersError: the broker can't be reached, or doesn't answer.
            NfcliError: this worker stops.
        """
        uuid = uuids.uuid4().hex
        asked = _Question(
            uuid, management_request(uuid, "show_workers").frames(), time.monotonic() + self._patience.answer
        )
        with self._lock:
            if not self._is_running:
                raise NfcliError(_STOPPED)
            self._inbox.put(asked)
        self._inbox.wake()
        return worker_rows(asked.future.result())

    def is_settling(self) -> bool:
        """Whether the broker is back since so short a time that workers may not have registered again."""
        return time.monotonic() < self._settled_at

    def _ended(self, _future: Future[Results]) -> None:
        with self._lock:
            self._in_flight -= 1

    def _refuse_jobs(self) -> None:
        with self._lock:
            self._is_running = False

    # -- the thread that owns the connection -----------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001  a fault must not end the thread that serves everybody
                    log.error("jobs for other services: %s", type(error).__name__)
                    self._stopping.wait(FAULT_PAUSE_SECONDS)
        finally:
            self._refuse_jobs()
            self._take_inbox()
            for job in self._jobs.values():
                job.fail(NfcliError(_STOPPED))
            for asked in self._questions.values():
                asked.future.set_exception(NfcliError(_STOPPED))
            self._close()

    def _turn(self) -> None:
        self._wait()
        self._link.read_monitor()
        self._note_connection(time.monotonic())
        self._take_inbox()
        self._receive()
        now = time.monotonic()
        self._send(now)
        self._look_at_time(now)

    def _wait(self) -> None:
        """Wait until something comes, something can be sent that waits for that, or time is up for something."""
        waits_to_send = any(not job.is_posted for job in self._jobs.values()) or any(
            not asked.is_sent for asked in self._questions.values()
        )
        self._poller.modify(self._link.dealer, zmq.POLLIN | (zmq.POLLOUT if waits_to_send else 0))
        times = [job.next_time() for job in self._jobs.values()]
        times += [asked.deadline for asked in self._questions.values()]
        if self._silent_since is not None and any(job.is_dispatched for job in self._jobs.values()):
            times.append(self._silent_since + self._patience.comeback)
        seconds = min(times, default=math.inf) - time.monotonic()
        self._poller.poll(None if seconds == math.inf else int(max(0.0, seconds) * 1_000) + 1)

    def _take_inbox(self) -> None:
        for item in self._inbox.drain():
            if isinstance(item, SentJob):
                self._jobs[item.uuid] = item
            else:
                self._questions[item.uuid] = item
        self._drop_ended()

    def _receive(self) -> None:
        """Take in what has come; nothing that arrives here may end the thread."""
        for message in self._link.broker_messages():
            self._counts["received"] += 1
            self._note_heard(time.monotonic())
            try:
                self._handle(message)
            except Exception as error:  # noqa: BLE001  a fault here costs one message, not everybody's jobs
                self._counts["invalid"] += 1
                log.error("message dropped: %s", type(error).__name__)

    def _handle(self, message: BrokerMessage) -> None:
        job = self._jobs.get(message.uuid)
        if job is not None:
            job.receive(message, is_settling=self.is_settling())
            job.settle()
        elif message.uuid in self._questions and message.command == Command.MMI:
            heard = parse_reply(message)
            if isinstance(heard, ManagementReply):
                self._questions.pop(message.uuid).future.set_result(heard.value)

    def _note_heard(self, now: float) -> None:
        """The broker says something; where it was silent for long, its workers may come back only by and by."""
        if self._silent_since is not None and now - self._silent_since > 2 * self._patience.poll:
            self._settled_at = now + self._patience.comeback
        self._silent_since = None

    def _note_connection(self, now: float) -> None:
        """Ask all again at once where the connection is new: what was under way when it broke is lost."""
        if self._link.handshakes != self._handshakes:
            if self._handshakes:
                self._settled_at = now + self._patience.comeback
            self._handshakes = self._link.handshakes
            for job in self._jobs.values():
                job.poll_at(now)
            for asked in self._questions.values():
                asked.is_sent = False
        if not self._link.is_up and self._silent_since is None:
            self._silent_since = now

    def _send(self, now: float) -> None:
        for asked in self._questions.values():
            if not asked.is_sent:
                asked.is_sent = self._hand_over(asked.frames, now)
        for job in self._jobs.values():
            if not job.is_posted:
                job.is_posted = self._hand_over(job.post, now)
            elif (frames := job.question(now)) is not None:
                self._hand_over(frames, now)

    def _hand_over(self, frames: list[bytes], now: float) -> bool:
        if not self._link.send(frames):
            return False
        self._counts["sent"] += 1
        if self._silent_since is None:
            self._silent_since = now
        return True

    def _look_at_time(self, now: float) -> None:
        problem = self._link.error_text()
        is_lost = self._silent_since is not None and now - self._silent_since >= self._patience.comeback
        for job in self._jobs.values():
            job.look_at_time(now, problem, is_lost=is_lost)
            job.settle()
        for asked in [each for each in self._questions.values() if now >= each.deadline]:
            del self._questions[asked.uuid]
            asked.future.set_exception(NoWorkersError(problem))
        self._drop_ended()

    def _drop_ended(self) -> None:
        for uuid in [uuid for uuid, job in self._jobs.items() if job.future.done()]:
            del self._jobs[uuid]

    def _close(self) -> None:
        self._link.close()
        self._context.destroy(linger=0)
        self._inbox.close()
