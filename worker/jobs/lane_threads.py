"""The threads of one lane, the queue in front of them, and the limits on what is in both."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ...models.errors import TaskError
from ..fair_queue import FairQueue
from .tracked_job import TrackedJob


@dataclass(frozen=True)
class LaneLimits:
    """The limits of a lane. One client's share is `threads_per_client`, and half of the jobs and bytes in flight."""

    threads: int
    threads_per_client: int
    jobs_in_flight: int  # queued or running
    bytes_in_flight: int  # of their requests


class LaneThreads:
    """Runs the jobs of one lane, clients in turn; any thread may call any method.

    `execute` runs a job and must not raise. `name` is in the threads' names.
    """

    def __init__(self, name: str, limits: LaneLimits, execute: Callable[[TrackedJob], None]) -> None:
        self._limits = limits
        self._execute = execute
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: FairQueue[TrackedJob] = FairQueue(limits.threads, limits.threads_per_client)
        # Never more than there are threads: each job in it is begun at once.
        self._ready: queue.SimpleQueue[TrackedJob | None] = queue.SimpleQueue()
        self._in_flight: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._jobs_in_flight = 0
        self._bytes_in_flight = 0
        self._refused = 0
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{n}", daemon=True) for n in range(limits.threads)
        ]

    @property
    def jobs_in_flight(self) -> int:
        """The number of jobs queued or running."""
        return self._jobs_in_flight

    @property
    def refused(self) -> int:
        """The number of jobs that a limit has refused since the start."""
        return self._refused

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, deadline_seconds: float) -> None:
        """Wait until no job is in flight, at most so long; then end the threads."""
        with self._lock:
            self._idle.wait_for(lambda: self._jobs_in_flight == 0, timeout=deadline_seconds)
        for _ in self._threads:
            self._ready.put(None)

    def admit(self, job: TrackedJob) -> None:
        """Count a job as in flight, until `end`.

        Raises:
            TaskError: a limit is reached.
        """
        limits, client = self._limits, job.client
        with self._lock:
            total, total_bytes = self._jobs_in_flight, self._bytes_in_flight + job.size
            if total >= limits.jobs_in_flight or total_bytes > limits.bytes_in_flight:
                raise self._refusal(f"{total} jobs are in flight")
            count, client_bytes = self._in_flight[client], self._bytes[client] + job.size
            # A client without any may send one of whatever size.
            if count and (2 * count >= limits.jobs_in_flight or 2 * client_bytes > limits.bytes_in_flight):
                raise self._refusal(f"this client has {count} jobs in flight")
            self._in_flight[client] += 1
            self._bytes[client] += job.size
            self._jobs_in_flight += 1
            self._bytes_in_flight += job.size

    def _refusal(self, reason: str) -> TaskError:
        self._refused += 1
        return TaskError(f"{reason}, nothing was done: send the job again later")

    def end(self, job: TrackedJob) -> None:
        """Count a job as no longer in flight."""
        client = job.client
        with self._lock:
            self._in_flight[client] -= 1
            self._bytes[client] -= job.size
            if not self._in_flight[client]:
                del self._in_flight[client], self._bytes[client]
            self._jobs_in_flight -= 1
            self._bytes_in_flight -= job.size
            self._idle.notify_all()

    def put(self, job: TrackedJob) -> None:
        """Run a job in one of the threads, as soon as it is its client's turn."""
        with self._lock:
            has_place = self._queue.put(job.client, job)
        if has_place:
            self._ready.put(job)

    def _serve(self) -> None:
        while (job := self._ready.get()) is not None:
            client = job.client
            self._execute(job)
            del job  # it would be kept until the thread's next job
            with self._lock:
                following = self._queue.release(client)
            if following is not None:
                self._ready.put(following)
            del following
