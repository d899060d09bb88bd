"""The jobs that carry tokens between a file and one worker: each has to succeed, and how far they are is shown."""

from __future__ import annotations

import sys
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ValidationError

from ...models.errors import NoWorkersError, TaskError, UsageError
from ...models.inventory.service import SERVICE
from ...models.protocol.jobs import ResultStatus
from ..client.client import Client
from ..output.console import Console
from ..text import escape_line

_ALL_PERCENT = 100

ReportT = TypeVar("ReportT", bound=BaseModel)


def only_worker(client: Client, worker: str | None) -> str:
    """Return the name of the worker whose tokens are meant: the one that was named, or the only one.

    Raises:
        UsageError: there are several workers and none is named.
        NoWorkersError: there is none.
    """
    names = client.worker_names(SERVICE)
    if worker is not None or len(names) == 1:
        return worker or names[0]
    if not names:
        raise NoWorkersError(f"no worker serves {SERVICE!r}: start one with nfcli -w")
    raise UsageError(f"each worker has tokens of its own: name one with --worker: {', '.join(names)}")


class WorkerJobs:
    """The jobs of one transfer; what goes wrong at the worker is raised, what it has to say besides is printed."""

    def __init__(self, client: Client, worker: str, console: Console) -> None:
        self._client = client
        self._worker = worker
        self._console = console
        self._is_watched = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._draw("")

    def run(self, task: str, seconds: float, **kwargs: Any) -> Any:
        """Run a task and return its value.

        Raises:
            NfcliError: the worker failed, or can't be reached.
        """
        results = self._client.run_job(SERVICE, task, kwargs=kwargs, workers=[self._worker], timeout=seconds)
        result = results[self._worker]
        if result.get("failed"):
            reason = "; ".join(escape_line(error) for error in result.get("errors") or ["failed without a reason"])
            if task == "restore_commit" and result.get("status") == ResultStatus.TIMEOUT:
                reason += ": whether the tokens were replaced is not known, restore again"
            raise TaskError(f"{self._worker}: {reason}")
        for message in result.get("messages") or ():
            self._draw("")
            self._console.note(f"{self._worker}: {message}")
        return result.get("result")

    def report(self, model: type[ReportT], task: str, seconds: float, **kwargs: Any) -> ReportT:
        """Run a task and return what it reports.

        Raises:
            NfcliError: as `run`, or the report isn't one.
        """
        try:
            return model.model_validate(self.run(task, seconds, **kwargs))
        except ValidationError:
            raise TaskError(f"{self._worker}: the answer to {task} is not what nfcli's workers give") from None

    def show(self, done: int, size: int) -> None:
        """Show how far the transfer is, at a terminal."""
        self._draw(f"{self._worker}: {_ALL_PERCENT * done // size} %")

    def _draw(self, text: str) -> None:
        if self._is_watched:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
