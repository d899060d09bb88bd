"""The channel of a call of a tool: progress notifications, and questions as MCP's two eras have them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from ....models.protocol.questions import InputRequest
from ...jobs.channels.base import TaskEvent
from ...jobs.channels.progress import LINES_AT_ONCE, JobProgress
from ...jobs.channels.question import Outcome, Question
from ...jobs.channels.slot import QuestionSlot
from ..reply_streams import ReplyStream
from .elicitation import form
from .sessions import OpenQuestions

MAX_SECONDS = 600
"""A question over MCP is open for this long at most."""
GONE = "the client of the call has gone, or has cancelled it"
_CANT = (
    "the task asks a question, and this MCP client can't be asked: use one with elicitation (man page mcp-clients), or "
    "nfcli's shell (run SERVICE TASK)"
)


class Way(Enum):
    """How a client is asked: by a request on the stream of its call, by a result of its call, or not at all."""

    REQUEST = 1
    RESULT = 2
    NONE = 3


class ToolChannel:
    """The channel of one call; made on the loop that serves it, the task uses it from other threads.

    `stream` is the reply of the request that is being served, None where the client takes no stream. `begin_wait` is
    called before each question, in the task's thread.
    """

    def __init__(self, way: Way, token: str, stream: ReplyStream | None, questions: OpenQuestions) -> None:
        self.begin_wait: Callable[[], None] = lambda: None
        self._stream = stream
        self._unsent: deque[str] | None = None
        self.has_question = asyncio.Event()
        self._way = way
        self._token = token
        self._questions = questions
        self._loop = asyncio.get_running_loop()
        self._progress = JobProgress(self._send_progress)
        self._slot = QuestionSlot(_CANT if way is Way.NONE else None)

    @property
    def question(self) -> Question | None:
        """The question that waits for an answer."""
        return self._slot.question

    def detach(self) -> None:
        """Keep progress until the client calls again, since the request that is being served has been answered."""
        self._stream, self._unsent = None, deque(maxlen=LINES_AT_ONCE)

    def attach(self, stream: ReplyStream | None) -> None:
        """Go on with another request of the same call."""
        self._stream, unsent, self._unsent = stream, self._unsent or (), None
        for text in unsent:
            self._push_progress(text)

    def send(self, event: TaskEvent) -> None:
        """Send an event as a progress notification, if the client has asked for some."""
        self._progress.send(event)

    def ask(self, request: InputRequest) -> Any:
        """Ask the client, wait for its answer and return it, or what counts without one; TaskError as `ask_for`."""
        return self.ask_for(request)[1]

    def ask_for(self, request: InputRequest) -> tuple[Outcome, Any]:
        """Ask the client, wait for its answer and return how the question ended, with what `ask` returns.

        Raises:
            TaskError: the client can't be asked, has gone, or gave an answer that isn't valid; another question of the
                call is open, or too many calls wait for answers.
        """
        seconds = min(request.timeout or MAX_SECONDS, MAX_SECONDS)
        question = Question(request.model_copy(update={"timeout": seconds}))
        with self._slot.open(question, partial(self._on_loop, self._withdraw, question)):
            self.begin_wait()
            self._on_loop(self._show, question)
            return question.wait(seconds)

    def end(self, reason: str) -> None:
        """End the open question, and let the task ask no other one, for this reason; nothing is sent any more."""
        self._progress.close()
        self._slot.end(reason)

    def _on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the call has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    def _send_progress(self, event: TaskEvent) -> None:
        text = event.message if event.severity in {"DEBUG", "INFO"} else f"{event.severity}: {event.message}"
        self._on_loop(self._push_progress, text)

    def _push_progress(self, text: str) -> None:
        if self._stream is not None:
            self._stream.push_progress(text)
        elif self._unsent is not None:
            self._unsent.append(text)

    def _show(self, question: Question) -> None:
        if self.question is not question:
            return
        if self._way is Way.RESULT:
            self.has_question.set()
        elif self._stream is not None:
            self._questions.add(self._token, question)
            params = form(question.request).model_dump(mode="json", by_alias=True, exclude_none=True)
            self._stream.push({"id": question.request.id, "method": "elicitation/create", "params": params})

    def _withdraw(self, question: Question) -> None:
        self.has_question.clear()
        self._questions.remove(question)
        if self._way is Way.REQUEST and question.outcome is Outcome.TIMEOUT and self._stream is not None:
            params = {"requestId": question.request.id, "reason": "no answer came in time"}
            self._stream.push({"method": "notifications/cancelled", "params": params})
