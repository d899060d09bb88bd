"""The question that a task has open, one at a time, and the end of its questions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ....models.errors import TaskError
from .question import Question


class QuestionSlot:
    """Holds the open question of one task; `refusal` is why the task can't ask, None while it can. From any thread."""

    def __init__(self, refusal: str | None = None) -> None:
        self._refusal = refusal
        self._lock = threading.Lock()
        self._question: Question | None = None

    @property
    def question(self) -> Question | None:
        """The question that waits for an answer, None without one."""
        with self._lock:
            return self._question

    @contextmanager
    def open(self, question: Question, closed: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Have a question open for the length of a `with` block; `closed` is called once it is not any more.

        Raises:
            TaskError: the task can't ask any more, or another question of it is open.
        """
        with self._lock:
            if self._refusal is not None:
                raise TaskError(self._refusal)
            if self._question is not None:
                raise TaskError("a task can ask one question at a time")
            self._question = question
        try:
            yield
        finally:
            with self._lock:
                self._question = None
            closed()

    def end(self, reason: str) -> None:
        """End the open question, and let the task ask no other one, for this reason; the first reason stays."""
        with self._lock:
            self._refusal = self._refusal or reason
            question = self._question
        if question is not None:
            question.abandon(reason)
