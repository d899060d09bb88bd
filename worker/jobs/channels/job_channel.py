"""The channel of a job: its events, and the questions that a PUT of its client answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ....models.errors import TaskError
from ....models.protocol.jobs import JobEvent
from ....models.protocol.questions import InputAnswer, InputRequest
from .base import TaskEvent
from .progress import JobProgress
from .question import Outcome, Question
from .slot import QuestionSlot

CANCELLED = "the job was cancelled by its client"
STOPPING = "the worker is stopping"


class JobChannel:
    """The channel of one job, from its start to its end; any thread may call any method.

    `cancelled` is set when the client has cancelled the job. `event` makes a progress event of a text, `notify` sends
    one to the client, and `seconds_left` returns for how long the client waits for the job. `begin_wait` is called
    before a question, and gives the job's place to others; it raises a TaskError where too many jobs wait already.
    """

    def __init__(
        self,
        event: Callable[[str], JobEvent],
        notify: Callable[[JobEvent], None],
        *,
        begin_wait: Callable[[], None],
        seconds_left: Callable[[], float],
    ) -> None:
        self.cancelled = threading.Event()
        self._event = event
        self._notify = notify
        self._begin_wait = begin_wait
        self._seconds_left = seconds_left
        self._lock = threading.Lock()
        self._progress: JobProgress | None = None
        self._slot = QuestionSlot()
        self._is_closed = False

    @property
    def open_request(self) -> InputRequest | None:
        """The question that waits for an answer, None without one."""
        question = self._slot.question
        return None if question is None else question.request

    def send(self, event: TaskEvent) -> None:
        """Send an event of the task; few tasks have any, so the first one makes what limits them."""
        with self._lock:
            if self._is_closed:
                return
            progress = self._progress = self._progress or JobProgress(self._send_progress)
        progress.send(event)

    def ask(self, request: InputRequest) -> Any:
        """Ask the client, wait for its answer and return it, or what counts without one.

        Raises:
            TaskError: the job was cancelled or has ended, nobody waits for it any more, the worker is stopping, another
                question of the job is open, or too many jobs wait for answers.
        """
        question = Question(self._within_job(request))
        with self._slot.open(question):
            self._begin_wait()
            return self._wait(question)

    def answer(self, given: InputAnswer) -> None:
        """Answer the open question; TaskError for an answer to none, or of another kind."""
        question = self._slot.question
        if question is None or question.request.id != given.input_id:
            raise TaskError("it answers no open question")
        if given.cancel:
            question.decline()
            return
        try:
            value = question.request.read(given.value)
        except TaskError as error:
            self.send(TaskEvent(f"{error}: {question.request.question}", severity="WARNING"))
            raise
        question.answer(value)

    def cancel(self) -> None:
        """Tell the task that its result is not wanted any more."""
        self.cancelled.set()
        self.end(CANCELLED)

    def end(self, reason: str) -> None:
        """End the open question, and let the task ask no other one, for this reason."""
        self._slot.end(reason)

    def close(self) -> int:
        """End the channel with its job; return how many events were dropped. None is being sent when this returns."""
        self.end("the job has ended")
        with self._lock:
            self._is_closed = True
        if self._progress is None:
            return 0
        self._progress.close()
        return self._progress.dropped

    def _within_job(self, request: InputRequest) -> InputRequest:
        """Return a request whose time ends with the client's; TaskError if that has ended."""
        left = self._seconds_left()
        if left <= 0:
            raise TaskError("the client no longer waits for the job, and can't be asked")
        return request.model_copy(update={"timeout": max(1, int(min(request.timeout or 1, left)))})

    def _wait(self, question: Question) -> Any:
        request, outcome = question.request, Outcome.CANCELLED
        self._send(request, "input_request", "waiting_client_input", {"input_request": request.model_dump()})
        try:
            outcome, value = question.wait(request.timeout or 1)
        finally:
            self._send(request, "input_response", outcome, {"input_response": {"input_id": request.id, "metadata": {}}})
        return value

    def _send_progress(self, event: TaskEvent) -> None:
        changes = {"severity": event.severity, "status": event.status, "resource": event.resource or []}
        self._notify(self._event(event.message).model_copy(update=changes))

    def _send(self, request: InputRequest, event_type: str, status: str, extras: dict[str, Any]) -> None:
        timeout = request.timeout if event_type == "input_request" else None
        changes = {"event_type": event_type, "status": str(status), "extras": extras, "timeout": timeout}
        self._notify(self._event(request.question).model_copy(update=changes))
