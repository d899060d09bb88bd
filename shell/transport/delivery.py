"""Send one job over a broker connection and wait for its results."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...models.errors import NoWorkersError
from ...models.protocol.broker_connection import BrokerConnection
from ...models.protocol.broker_job import BrokerJob
from ...models.protocol.broker_presence import BrokerPresence, Timeouts
from ...models.protocol.pending_job import PendingJob


class Delivery:
    """The delivery of one job to its missing workers; `notify` is called when the broker goes away and returns."""

    def __init__(
        self, connection: BrokerConnection, job: PendingJob, notify: Callable[[str], None], timeouts: Timeouts
    ) -> None:
        self._connection = connection
        self._job = job
        self._notify = notify
        self._broker = BrokerPresence(timeouts, handshakes=connection.handshakes)
        self._machine = BrokerJob(job, self._broker, endpoint=connection.endpoint, now=time.monotonic())
        self._at = f"the broker at {connection.endpoint}"
        self._is_away = False

    def run(self) -> None:
        """Return when all results are there, or their workers have failed, at the job's deadline at the latest."""
        if not self._post():
            takes_none = f"{self._at} takes no messages: see its log"
            error = NoWorkersError(takes_none if self._connection.is_up else self._connection.error_text())
            for name in sorted(self._job.missing):
                self._job.fail_gone(name, error)
        while not self._machine.is_done:
            wake_at = self._machine.next_time()
            wake_at = wake_at if self._is_away else min(wake_at, self._broker.away_at)
            is_writing = bool(self._machine.puts) and self._connection.is_up
            self._connection.wait(wake_at, until_writable=is_writing, waker=self._job.waker)
            self._receive()
            now = time.monotonic()
            self._check_broker(now)
            self._machine.advance(now, self._connection.error_text())
            frames = self._machine.request(now)
            if frames is not None and self._connection.send(frames):
                self._broker.record_sent(now)
            for name, data in self._job.take_outgoing():
                self._machine.put([name], data)
            self._send_puts()
            if self._job.is_abandoned:
                return

    def _send_puts(self) -> None:
        puts = self._machine.puts
        while puts and self._connection.send(puts[0]):
            puts.popleft()

    def _post(self) -> bool:
        """Send the POST; return whether that was possible."""
        while not self._connection.send(self._machine.post):
            if not self._connection.is_up or time.monotonic() >= self._job.deadline:
                return False
            self._connection.wait(self._job.deadline, until_writable=True)
        self._machine.is_posted = True
        self._broker.record_sent(time.monotonic())
        return True

    def _receive(self) -> None:
        for message in self._connection.broker_messages():
            now = time.monotonic()
            self._broker.record_received(now)
            if message.uuid == self._job.uuid:
                self._machine.receive(message, now)

    def _check_broker(self, now: float) -> None:
        connection = self._connection
        if self._broker.update_connection(is_up=connection.is_up, handshakes=connection.handshakes, now=now):
            self._machine.restart_requests()
        if self._broker.is_away(now) == self._is_away:
            return
        self._is_away = not self._is_away
        if self._is_away:
            fault = "has gone away" if self._broker.is_disconnected else "doesn't answer"
            self._notify(f"{self._at} {fault}: waiting for it, up to {self._broker.timeouts.comeback:g} s")
        else:
            self._notify(f"{self._at} is back")
