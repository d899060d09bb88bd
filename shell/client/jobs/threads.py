"""Threads for the jobs that run beside each other; each has a connection of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from ....models.errors import UsageError
from ....models.protocol.pending_job import OnEvent
from .job import Job
from .runner import REFRESH_SECONDS, JobRunner, Submission

MAX_THREADS = 32
"""Jobs of a client that run at the same time; others wait for one of them to end."""
STOP_SECONDS = 5.0


class JobThreads:
    """Runs jobs in a few threads, started as they are needed; any thread may call any method.

    `make_runner` makes a thread's own runner; `borrow_runner` lends the one that runs the jobs whose uuid was chosen by
    the caller: through a broker, workers recognize a repeated one by its sender as well.
    """

    def __init__(
        self,
        make_runner: Callable[[], JobRunner],
        borrow_runner: Callable[[], AbstractContextManager[JobRunner]],
        *,
        max_threads: int = MAX_THREADS,
    ) -> None:
        self._make_runner = make_runner
        self._borrow_runner = borrow_runner
        self._max_threads = max_threads
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._unfinished: set[Job] = set()
        self._is_stopped = False

    def submit(self, submission: Submission, listen: Callable[..., None], on_event: OnEvent | None) -> Job:
        """Have a job run; `listen` is `listen_to` with its other arguments.

        Raises:
            UsageError: the threads were stopped.
        """
        job = Job(submission, listen, on_event)
        with self._lock:
            if self._is_stopped:
                raise UsageError("this client is closed: create another one with make_client")
            self._unfinished.add(job)
            if len(self._threads) < min(len(self._unfinished), self._max_threads):
                thread = threading.Thread(target=self._work, name="jobs", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._waiting.put(job)
        return job

    def stop(self) -> None:
        """Cancel all jobs and end the threads. Safe to repeat."""
        with self._lock:
            self._is_stopped = True
            unfinished, threads = list(self._unfinished), list(self._threads)
        for job in unfinished:
            job.cancel()
        for _ in threads:
            self._waiting.put(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(STOP_SECONDS)

    def _work(self) -> None:
        runner: JobRunner | None = None
        while (job := self._waiting.get()) is not None:
            try:
                if job.has_own_uuid:
                    with self._borrow_runner() as borrowed:
                        job.run(borrowed)
                else:
                    runner = runner or self._make_runner()
                    runner.transport.refresh(REFRESH_SECONDS)
                    job.run(runner)
            except Exception as error:  # noqa: BLE001  raised to whoever waits for the job, which would never end
                job.fail(error)
            with self._lock:
                self._unfinished.discard(job)
        if runner is not None:
            runner.transport.close()
