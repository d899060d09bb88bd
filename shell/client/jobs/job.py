"""A job that runs beside others: a future of its results, and the events on the way."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from ....models.errors import NfcliError, UsageError
from ....models.mailbox import Mailbox
from ....models.protocol.jobs import Event, Results
from ....models.protocol.pending_job import OnEvent, PendingJob
from ....models.protocol.questions import InputAnswer
from .markdown import to_markdown
from .runner import JobRunner, Submission

MAX_EVENTS = 10_000
"""Of one job, the latest of which are kept."""


class Job:
    """A submitted job; created by `Client.submit_job`. All methods may be called from any thread.

    `uuid`, `service` and `task` are as they were sent; `future` is that of the results, not to be changed.
    """

    def __init__(self, submission: Submission, listen: Callable[..., None], on_event: OnEvent | None) -> None:
        self.uuid = submission.job_uuid
        self.service = submission.service
        self.task = submission.task
        self.has_own_uuid = submission.has_own_uuid
        self._submission = submission
        self._listen = listen
        self._on_event = on_event
        self.future: Future[Results] = Future()
        self._changed = threading.Condition()
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._count = 0
        self._pending: PendingJob | None = None
        self._watchers: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "pending"
        return f"<Job {self.uuid} {self.service}.{self.task} {state}>"

    def result(self, timeout: float | None = None, *, markdown: bool = False) -> Any:
        """Wait for the results and return them as `Client.run_job` does.

        Raises:
            TimeoutError: they are not there within `timeout` seconds; the job goes on.
            CancelledError: it was cancelled (`concurrent.futures.CancelledError`).
            NfcliError: as `Client.run_job`.
        """
        results = self.future.result(timeout)
        return to_markdown(self.service, self.task, results) if markdown else results

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end and return the error that `result` raises, None where it returns results."""
        try:
            self.future.result(timeout)
        except TimeoutError:
            if not self.done():
                raise
            return self.future.exception()
        except (NfcliError, CancelledError) as error:
            return error
        return None

    def done(self) -> bool:
        """Whether it has ended."""
        return self.future.done()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.done() and (self.future.cancelled() or isinstance(self.future.exception(), CancelledError))

    def cancel(self) -> bool:
        """End the wait for the results; return false where it had ended before.

        Workers of nfcli are notified: a job that they have queued isn't begun, and a task that is running may end. It
        may still do all that it was to do; NorFab's workers do.
        """
        if self.future.cancel():
            self._notify()
            return True
        with self._changed:
            pending = self._pending
        if pending is None or self.done():
            return False
        pending.abandon()
        return True

    def add_done_callback(self, callback: Callable[[Job], None]) -> None:
        """Have a function called with this job once it has ended, in the thread that waited for it, or at once."""
        self.future.add_done_callback(lambda _: callback(self))

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield the events of its workers as they come, from the first one on, until the job has ended.

        It ends as well if none comes for `timeout` seconds. Each call begins at the first; the latest 10,000 are kept.
        """
        seen = 0
        while True:
            with self._changed:
                self._changed.wait_for(partial(self._has_news, seen), timeout)
                seen, found = self.events_after(seen)
            if not found:
                return
            yield from found

    def events_after(self, seen: int) -> tuple[int, list[Event]]:
        """Return how many events there were, and those of them that came after the first `seen`."""
        with self._changed:
            dropped = self._count - len(self._events)
            return self._count, list(islice(self._events, max(0, seen - dropped), None))

    @contextmanager
    def watching(self, callback: Callable[[], object]) -> Iterator[None]:
        """Have a function called at each event and at the end, from whichever thread; it must not wait."""
        with self._changed:
            self._watchers.append(callback)
        try:
            yield
        finally:
            with self._changed:
                self._watchers.remove(callback)

    def _has_news(self, seen: int) -> bool:
        return self._count > seen or self.done()

    def send_response(
        self,
        input_id: str,
        value: Any = None,
        worker: str | None = None,
        cancel: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Answer a question: an event `input_request`, whose `extras` have it with its `id`.

        Args:
            input_id: the question's id.
            value: the answer.
            worker: who asked; None: all workers that the job is still running on.
            cancel: decline to answer.
            metadata: passed on.

        Raises:
            UsageError: the job isn't running, or the value is no JSON.
        """
        answer = InputAnswer(input_id=input_id, value=value, cancel=cancel, metadata=metadata or {})
        try:
            data = answer.model_dump_json().encode()
        except ValueError:
            raise UsageError("the answer must be a JSON value") from None
        with self._changed:
            pending = self._pending
        if pending is None or self.done():
            raise UsageError(f"job {self.uuid} is not running: there is nobody to answer")
        for name in [worker] if worker is not None else sorted(pending.missing):
            pending.send_data(name, data)

    # -- the thread that waits for it ------------------------------------------------------------------------------

    def run(self, runner: JobRunner) -> None:
        """Run it to its end, unless it was cancelled before."""
        if not self.future.set_running_or_notify_cancel():
            return
        waker: Mailbox[None] = Mailbox()
        try:
            results = self._run(runner, waker)
        except BaseException as error:  # noqa: BLE001  passed on to those that wait for the results
            self.future.set_exception(error)
        else:
            self.future.set_result(results)
        finally:
            self._notify()
            with self._changed:
                if self._pending is not None:
                    self._pending.waker = None
            waker.close()

    def _run(self, runner: JobRunner, waker: Mailbox[None]) -> Results:
        if time.monotonic() >= self._submission.deadline:
            raise NfcliError(f"the job was not sent within {self._submission.timeout:g} s: others were before it")
        job, results = runner.run(self._submission, self._attach, waker=waker)
        if job.is_abandoned and job.missing:
            raise CancelledError
        return results

    def fail(self, error: BaseException) -> None:
        """End it with an error, before it was begun."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
            self._notify()

    def _attach(self, pending: PendingJob) -> None:
        self._listen(pending, on_event=self._report)
        with self._changed:
            self._pending = pending

    def _report(self, event: Event) -> None:
        """Keep an event, and pass it on to those that wait for events."""
        with self._changed:
            self._events.append(event)
            self._count += 1
            self._notify()
        if self._on_event is not None:
            self._on_event(event)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
            for callback in self._watchers:
                callback()
