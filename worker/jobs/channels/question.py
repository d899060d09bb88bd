"""A question that a task waits for the answer to."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic_core import from_json, to_json

from ....models.errors import TaskError
from ....models.protocol.questions import InputRequest
from .base import one_line

MAX_TIMEOUT_SECONDS = 3_600
MAX_METADATA_BYTES = 256 * 1024


class Outcome(StrEnum):
    """How a question ended; the values are the statuses of NFP's event `input_response`."""

    RECEIVED = "received"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


class Question:
    """One question, which ends once: with an answer, a refusal to answer, a reason, or its time.

    Any thread may call any method; one waits.
    """

    def __init__(self, request: InputRequest) -> None:
        self.request = request
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._outcome: Outcome | None = None
        self._value: Any = None
        self._reason: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the question takes no answer any more."""
        return self._ended.is_set()

    @property
    def outcome(self) -> Outcome | None:
        """How the question ended, None while it is open."""
        return self._outcome

    def answer(self, value: Any) -> None:
        """Answer the question with a value as `InputRequest.read` returns it; TaskError if it has ended."""
        self._end(Outcome.RECEIVED, value)

    def decline(self) -> None:
        """End the question as one that the client doesn't want to answer; TaskError if it has ended."""
        self._end(Outcome.CANCELLED, self.request.without_answer)

    def abandon(self, reason: str) -> None:
        """End the question, if it is open, and the wait for it with this reason."""
        with self._lock:
            if self._outcome is None:
                self._outcome, self._reason = Outcome.CANCELLED, reason
        self._ended.set()

    def wait(self, seconds: float) -> tuple[Outcome, Any]:
        """Wait so long at most; return how the question ended, and what the task gets.

        Raises:
            TaskError: it was abandoned, with the reason.
        """
        self._ended.wait(seconds)
        with self._lock:
            if self._outcome is None:
                self._outcome, self._value = Outcome.TIMEOUT, self.request.without_answer
                self._ended.set()
            if self._reason is not None:
                raise TaskError(self._reason)
            return self._outcome, self._value

    def _end(self, outcome: Outcome, value: Any) -> None:
        with self._lock:
            if self._outcome is not None:
                raise TaskError("the question has ended")
            self._outcome, self._value = outcome, value
        self._ended.set()


def make_request(question: str, default: Any, timeout: float, metadata: Mapping[str, Any] | None) -> InputRequest:
    """Return the request of a question that a task asks.

    Raises:
        TaskError: a value is not valid, with the rule.
    """
    text = one_line(str(question))
    if not text:
        raise TaskError("a question needs text")
    if default is not None and not isinstance(default, bool | int | float | str):
        raise TaskError(
            f"the default of a question must be true, false, a number, text or None, got {type(default).__name__}"
        )
    if isinstance(default, float) and not math.isfinite(default):
        raise TaskError("the default of a question must be a finite number")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 1 <= timeout <= MAX_TIMEOUT_SECONDS:
        raise TaskError(f"the timeout of a question must be 1 to {MAX_TIMEOUT_SECONDS} seconds")
    return InputRequest(question=text, default=default, timeout=int(timeout), metadata=_read_metadata(metadata))


def _read_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if not metadata:
        return {}
    try:
        encoded = to_json(dict(metadata), inf_nan_mode="null")
    except (ValueError, TypeError):
        raise TaskError("the metadata of a question must be a mapping of JSON values") from None
    if len(encoded) > MAX_METADATA_BYTES:
        size = len(encoded)
        raise TaskError(f"the metadata of a question takes {size} bytes, more than {MAX_METADATA_BYTES}: shorten it")
    return dict(from_json(encoded))
