"""Questions that a running task asks: passed on to whoever can answer them, once each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ....models.errors import UsageError
from ....models.protocol.jobs import Event
from ....models.protocol.pending_job import OnEvent, PendingJob

if TYPE_CHECKING:
    from ....models.protocol.questions import InputRequest

ANSWER_SECONDS = 1.0
"""How long an answer may take to the worker: No is sent before its own time-out, which may fail the task."""

_KIND = "input_request"


@dataclass(frozen=True)
class Question:
    """A question of a task that waits for the answer.

    `default` says by its type what is asked for: true or false, a number, or text. `preview` is what the task would do,
    None where it doesn't say; `choices` are the only answers, empty where any is possible. `seconds` are left to
    answer, as of its arrival; infinite where there is no limit.
    """

    worker: str
    service: str
    task: str
    uuid: str
    text: str
    default: Any = False
    seconds: float = math.inf
    preview: Any = None
    choices: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


OnInput = Callable[[Question], Any]
"""Returns the answer to a question; None: there is none."""


class Listener:
    """Takes the events of one job: each goes to `on_event`, and a question to `on_input` as well, which answers it.

    Where that gives no answer, or is None and `refuses`, the answer is No, or that there is none.
    """

    def __init__(
        self, job: PendingJob, on_event: OnEvent | None, on_input: OnInput | None, *, refuses: bool = True
    ) -> None:
        self._job = job
        self._on_event = on_event
        self._on_input = on_input or ((lambda _: None) if refuses else None)
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        request = _request(event) if event["event_type"] == _KIND else None
        if request is not None:
            key = (event["worker"], request.id)
            if key in self._seen:
                return
            self._seen.add(key)
        if self._on_event is not None:
            self._on_event(event)
        if request is not None and self._on_input is not None:
            self._job.send_data(event["worker"], _encode(request, self._on_input(self._question(event, request))))

    def _question(self, event: Event, request: InputRequest) -> Question:
        limit = request.timeout or event.get("timeout") or math.inf
        limits = [limit - min(ANSWER_SECONDS, limit / 2), self._job.deadline - time.monotonic()]
        choices = (event.get("extras") or {}).get(_KIND, {}).get("choices")
        return Question(
            *(event["worker"], event["service"], event["task"], self._job.uuid, request.question, request.default),
            seconds=max(0.0, min(limits)),
            preview=request.metadata.get("preview"),
            choices=tuple(map(str, choices)) if isinstance(choices, list) else (),
            metadata=request.metadata,
        )


def listen_to(job: PendingJob, *, on_event: OnEvent | None, on_input: OnInput | None, refuses: bool = True) -> None:
    """Pass on the events of a job, and have its questions answered; the arguments are those of a `Listener`."""
    job.on_event = Listener(job, on_event, on_input, refuses=refuses)


def _request(event: Event) -> InputRequest | None:
    from pydantic import ValidationError  # noqa: PLC0415  few jobs ask anything, and all others would load it

    from ....models.protocol.questions import InputRequest  # noqa: PLC0415  as above

    try:
        return InputRequest.model_validate((event.get("extras") or {}).get(_KIND))
    except ValidationError:
        return None


def _encode(request: InputRequest, value: Any) -> bytes:
    from ....models.protocol.questions import InputAnswer  # noqa: PLC0415  as above

    is_declined = value is None and not isinstance(request.default, bool)
    answer = InputAnswer(input_id=request.id, value=False if value is None else value, cancel=is_declined)
    try:
        return answer.model_dump_json().encode()
    except ValueError:
        raise UsageError("the answer to a question must be a JSON value") from None
