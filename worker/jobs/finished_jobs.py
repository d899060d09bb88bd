"""The memory of jobs that have been completed, so that none is run twice."""

from __future__ import annotations

import time
from collections import OrderedDict, deque

from .tracked_job import JobKey, TrackedJob


class FinishedJobs:
    """Completed jobs, the newest of them: `max_jobs`, and results of `max_result_bytes` together. Not thread-safe.

    A job whose result is no longer kept has neither payload nor record; both count as its result. `history` has the
    newest jobs in the order in which they ended, forgotten ones included.
    """

    def __init__(self, max_jobs: int, max_result_bytes: int) -> None:
        self._max_jobs = max_jobs
        self._max_result_bytes = max_result_bytes
        self._jobs: OrderedDict[JobKey, TrackedJob] = OrderedDict()
        self._with_payload: OrderedDict[JobKey, TrackedJob] = OrderedDict()
        self._with_tokens: OrderedDict[JobKey, float] = OrderedDict()
        self._bytes = 0
        self.history: deque[TrackedJob] = deque(maxlen=max_jobs)

    def find(self, key: JobKey) -> TrackedJob | None:
        """Return a job, None if it isn't known."""
        return self._jobs.get(key)

    def add(self, job: TrackedJob) -> None:
        """Keep a completed job; the oldest ones over the limits are forgotten, or their results are."""
        self._jobs[job.key] = self._with_payload[job.key] = job
        if job.spec is not None and job.spec.shows_tokens:
            self._with_tokens[job.key] = time.monotonic()
        self.history.append(job)
        self._bytes += _size(job)
        while self._bytes > self._max_result_bytes and len(self._with_payload) > 1:
            self._discard_payload(next(iter(self._with_payload)))
        while len(self._jobs) > self._max_jobs:
            self.forget(next(iter(self._jobs)))

    def forget(self, key: JobKey) -> None:
        """Remove a job: its uuid is new when it is sent again."""
        if key in self._with_payload:
            self._discard_payload(key)
        self._with_tokens.pop(key, None)
        del self._jobs[key]

    def forget_tokens(self, before: float) -> None:
        """Forget the jobs whose results show tokens and that were completed before a monotonic time."""
        while self._with_tokens and next(iter(self._with_tokens.values())) <= before:
            self.forget(next(iter(self._with_tokens)))

    def _discard_payload(self, key: JobKey) -> None:
        job = self._with_payload.pop(key)
        self._bytes -= _size(job)
        job.payload = job.record = None


def _size(job: TrackedJob) -> int:
    return len(job.payload or b"") + len(job.record or b"")
