"""What workers of other services tell and ask while they run a job for a call of a tool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from pydantic import ValidationError

from ....models.errors import TaskError
from ....models.protocol.jobs import Event, is_automatic
from ....models.protocol.pending_job import OnEvent, PendingJob
from ....models.protocol.questions import InputAnswer, InputRequest
from ...jobs.channels.base import TaskEvent, one_line
from ...jobs.channels.question import MAX_METADATA_BYTES, MAX_TIMEOUT_SECONDS, Outcome
from .tool_channel import ToolChannel

MAX_QUESTIONS = 100
"""Questions of one job, of all its workers; others aren't asked."""
_REQUEST, _WARNINGS = "input_request", frozenset({"WARNING", "ERROR", "CRITICAL"})

Listen = Callable[[PendingJob], OnEvent]
"""Returns what takes the events of a job, in another thread."""


class JobQuestions:
    """Passes events on to the channel of a call, and its client's answers back; belongs to the loop that serves it.

    The workers' questions come one after another, each for as long as its worker waits. `refusals` says why a worker
    had no answer, by its name.
    """

    def __init__(self, channel: ToolChannel) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._seen: set[tuple[str, str]] = set()
        self._asking: set[asyncio.Task[None]] = set()
        self.refusals: dict[str, str] = {}

    def listen(self, job: PendingJob) -> OnEvent:
        """Return what takes the events of a job."""

        def on_event(event: Event) -> None:
            if event["event_type"] in {"progress", _REQUEST} and not is_automatic(event):
                self._loop.call_soon_threadsafe(self._take, job, event)

        return on_event

    def close(self) -> None:
        """Ask nothing any more."""
        for task in self._asking:
            task.cancel()

    def _take(self, job: PendingJob, event: Event) -> None:
        worker = event["worker"]
        if event["event_type"] != _REQUEST:
            severity: Any = event["severity"] if event["severity"] in _WARNINGS else "INFO"
            self._channel.send(TaskEvent(f"{worker}: {event['message']}", severity))
            return
        request = _read(event)
        if request is None or (worker, request.id) in self._seen or len(self._seen) >= MAX_QUESTIONS:
            return
        self._seen.add((worker, request.id))
        asking = self._loop.create_task(self._ask(job, worker, request))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    async def _ask(self, job: PendingJob, worker: str, request: InputRequest) -> None:
        deadline = self._loop.time() + (request.timeout or MAX_TIMEOUT_SECONDS)
        async with self._turn:
            left = int(deadline - self._loop.time())
            if left < 1:
                return  # the worker no longer waits
            question = one_line(f"{worker}: {request.question}")
            # With an id of its own: that of the worker is not known to be unique.
            asked = InputRequest(question=question, default=request.default, timeout=left, metadata=request.metadata)
            try:
                outcome, value = await anyio.to_thread.run_sync(
                    partial(self._channel.ask_for, asked), abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
                )
            except TaskError as error:
                self.refusals[worker] = str(error)
                outcome, value = Outcome.CANCELLED, None
        if outcome is Outcome.TIMEOUT:
            return
        is_declined = outcome is Outcome.CANCELLED and not isinstance(value, bool)
        answer = InputAnswer(input_id=request.id, value=None if is_declined else value, cancel=is_declined)
        job.send_data(worker, answer.model_dump_json().encode())


def _read(event: Event) -> InputRequest | None:
    try:
        request = InputRequest.model_validate((event.get("extras") or {}).get(_REQUEST))
        is_small = len(json.dumps(request.metadata)) <= MAX_METADATA_BYTES
    except (ValidationError, ValueError, RecursionError):
        return None
    is_plain = request.default is None or isinstance(request.default, bool | int | float | str)
    return request if is_small and is_plain else None
