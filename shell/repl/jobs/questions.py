"""Questions of running tasks: asked at the terminal, or answered by what the command carries."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ....models.errors import TaskError
from ...output.console import Console
from ...output.render import to_text
from ...text import escape_line
from ..secret_input import is_yes

MAX_PREVIEW_LINES = 500
_YES = "yes"

Ask = Callable[[str, float], str | None]
"""Asks with a text, for so many seconds; returns what was typed, None where nothing was in time, or Ctrl-C."""


class Question(Protocol):
    """A question of a task; `shell/client/jobs/questions.py` documents it."""

    @property
    def worker(self) -> str:
        """Who asks."""

    @property
    def text(self) -> str:
        """The question."""

    @property
    def default(self) -> Any:
        """Says by its type what is asked for."""

    @property
    def seconds(self) -> float:
        """How long there is to answer."""

    @property
    def preview(self) -> Any:
        """What the task would do."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The only answers, empty where any is possible."""


class QuestionDesk:
    """Answers the questions of the command that runs. `has_refused`: there was one that nobody could be asked.

    `ask` is called at a terminal; None: stdin is one, and prompt_toolkit asks there, or nobody can be asked.
    """

    def __init__(self, console: Console, ask: Ask | None = None) -> None:
        self.has_refused = False
        self._console = console
        self._ask = ask
        self._given: str | None = None
        self._is_running = False

    @contextmanager
    def running(self, answer: str | None) -> Iterator[None]:
        """Answer the questions of one command, with the `answer` that it carries if it has one."""
        self._given, self._is_running, self.has_refused = answer, True, False
        try:
            yield
        finally:
            self._is_running = False

    def __call__(self, question: Question) -> Any:
        """Return the answer to a question, None where there is none, as between commands: completion runs jobs too."""
        if not self._is_running:
            return None
        asks = f"{question.worker} asks: {question.text}"
        is_for_yes = isinstance(question.default, bool)
        if self._given is not None and is_for_yes:
            self._console.note(f"{asks} answered {self._given}")
            return self._given == _YES
        ask = self._ask or (_ask_at_terminal if sys.stdin.isatty() and sys.stderr.isatty() else None)
        if ask is None:
            remedy = "add answer yes or answer no to the command" if is_for_yes else "run the command at a terminal"
            self._console.error(f"{asks} refused, because nobody can be asked here: {remedy}")
            self.has_refused = True
            return None
        with self._console.paused():
            return self._ask_for(question, ask)

    def _ask_for(self, question: Question, ask: Ask) -> Any:
        if question.preview is not None:
            lines = to_text(question.preview).splitlines()
            self._console.note(f"{question.worker} would do this:")
            for line in lines[:MAX_PREVIEW_LINES]:
                self._console.note(f"  {line}")
            if len(lines) > MAX_PREVIEW_LINES:
                self._console.note(f"  and {len(lines) - MAX_PREVIEW_LINES} more lines")
        text = f"{question.worker} asks: {question.text}"
        if isinstance(question.default, bool):
            typed = ask(f"{escape_line(text)} [y/N]", question.seconds)
            if typed is None:
                self._console.note("no answer: No")
            return typed is not None and is_yes(typed)
        hint = "/".join(question.choices) or ("" if question.default is None else str(question.default))
        return self._ask_for_value(
            question, ask, f"{escape_line(text)} [{escape_line(hint)}]" if hint else escape_line(text)
        )

    def _ask_for_value(self, question: Question, ask: Ask, text: str) -> Any:
        """Ask until there is a valid answer: the worker ignores others, and goes on to wait for one."""
        from ....models.protocol.questions import InputRequest  # noqa: PLC0415  few tasks ask anything

        request = InputRequest(question=question.text, default=question.default)
        deadline = time.monotonic() + question.seconds
        while (typed := ask(text, max(0.0, deadline - time.monotonic()))) is not None:
            if typed == "":
                return question.default
            try:
                request.read(typed)
            except TaskError as error:
                self._console.note(str(error))
            else:
                return typed
        self._console.note("no answer")
        return None


def _ask_at_terminal(text: str, seconds: float) -> str | None:
    from .countdown import ask_in_time  # noqa: PLC0415  0.2 s, only where a task asks

    return ask_in_time(text, seconds)
