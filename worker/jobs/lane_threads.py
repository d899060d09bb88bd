"""The threads of one lane, the queue in front of them, and the limits on what is in both."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ...models.errors import TaskError
from ..fair_queue import FairQueue
from .task import Lane
from .tracked_job import TrackedJob

THREADS = 5
"""Threads for tasks that don't change tokens, plugins' among them."""
THREADS_PER_CLIENT = 3
# Changes that wait for a locked database wait together, so those of one client need not wait for each other.
_CHANGE_THREADS, _CHANGE_THREADS_PER_CLIENT = 6, 5
_READ_THREADS, _READ_THREADS_PER_CLIENT = 3, 2
MAX_WITHOUT_PLACE = 100
"""Jobs of a lane that run on after they have given their place away, each in a thread."""
MAX_WITHOUT_PLACE_PER_CLIENT = 5


@dataclass(frozen=True)
class LaneLimits:
    """The limits of a lane. One client's share is `threads_per_client`, and half of the jobs and bytes in flight."""

    threads: int
    threads_per_client: int
    jobs_in_flight: int  # queued or running
    bytes_in_flight: int  # of their requests


@dataclass(frozen=True)
class JobLimits:
    """The limits of an executor; those on jobs in flight are each lane's own."""

    jobs_in_flight: int = 1_000  # queued or running
    bytes_in_flight: int = 8 * 1024 * 1024  # of their requests, which take some twenty times as many in memory
    callbacks: int = 100  # that wait for the same job
    kept_jobs: int = 10_000  # whose uuid is known, so that they aren't run again
    kept_result_bytes: int = 8 * 1024 * 1024

    def of_lane(self, lane: Lane) -> LaneLimits:
        """Return the limits of one lane."""
        threads = {
            Lane.GENERAL: (THREADS, THREADS_PER_CLIENT),
            Lane.CHANGES: (_CHANGE_THREADS, _CHANGE_THREADS_PER_CLIENT),
            Lane.READS: (_READ_THREADS, _READ_THREADS_PER_CLIENT),
        }
        return LaneLimits(*threads[lane], self.jobs_in_flight, self.bytes_in_flight)


class LaneThreads:
    """Runs the jobs of one lane, clients in turn; any thread may call any method.

    `execute` runs a job and must not raise. `name` is in the threads' names.
    """

    def __init__(self, name: str, limits: LaneLimits, execute: Callable[[TrackedJob], None]) -> None:
        self._name = name
        self._limits = limits
        self._execute = execute
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: FairQueue[TrackedJob] = FairQueue(limits.threads, limits.threads_per_client)
        # Never more than there are threads: each job in it is begun at once.
        self._ready: queue.SimpleQueue[TrackedJob | None] = queue.SimpleQueue()
        self._in_flight: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._without_place: Counter[str] = Counter()
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
            if not job.has_place:
                self._without_place[client] -= 1
                self._without_place += Counter()  # drops zero counts
            self._jobs_in_flight -= 1
            self._bytes_in_flight -= job.size
            self._idle.notify_all()

    def give_place(self, job: TrackedJob) -> None:
        """Give the place of a running job to the next one: another thread serves until the end of this job's.

        For a job that begins to wait for its client, which may take long; it doesn't get a place again.

        Raises:
            TaskError: too many jobs do so, of this client or in all.
        """
        client = job.client
        with self._lock:
            if not job.has_place:
                return
            if self._without_place[client] >= MAX_WITHOUT_PLACE_PER_CLIENT:
                raise TaskError(f"{MAX_WITHOUT_PLACE_PER_CLIENT} jobs of this client have asked questions: answer them")
            if self._without_place.total() >= MAX_WITHOUT_PLACE:
                raise TaskError(f"{MAX_WITHOUT_PLACE} jobs have asked questions: send the job again later")
            threading.Thread(target=self._serve, name=f"{self._name}-more", daemon=True).start()
            job.has_place = False
            self._without_place[client] += 1
            following = self._queue.release(client)
        if following is not None:
            self._ready.put(following)

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
            if not job.has_place:
                return  # another thread serves
            del job  # it would be kept until the thread's next job
            with self._lock:
                following = self._queue.release(client)
            if following is not None:
                self._ready.put(following)
            del following
