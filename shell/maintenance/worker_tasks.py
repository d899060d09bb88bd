"""Tasks on one worker, each of which has to succeed; among them those that carry tokens to or from a file."""

from __future__ import annotations

from typing import Any, Self, TypeVar

from pydantic import BaseModel, ValidationError

from ...models.errors import NoWorkersError, TaskError, TaskTimeoutError, UsageError
from ...models.inventory.schema import SERVICE
from ...models.protocol.jobs import ResultStatus, failure_reason
from ..client.client import Client
from ..output.console import Console
from ..text import escape_line

ReportT = TypeVar("ReportT", bound=BaseModel)


def only_worker(client: Client, worker: str | None) -> str:
    """Return `worker`, or the name of the only worker if that is None.

    Raises:
        UsageError: no worker is named, and there are several, among them those that are expected and missing.
        NoWorkersError: no worker serves `fastmcp`.
    """
    if worker is not None:
        return worker
    names = client.worker_names(SERVICE)
    missing = client.missing_workers()
    if len(names) == 1 and not missing:
        return names[0]
    if not names:
        start = f"no worker serves {SERVICE!r}: start one with nfcli -w"
        raise NoWorkersError("; ".join(missing.values()) or start)
    listed = ", ".join(sorted([*names, *(f"{name} (missing)" for name in missing)]))
    raise UsageError(f"each worker has its own tokens: name one with --worker: {listed}")


class WorkerTasks:
    """Runs tasks on one worker and returns their values; `error_prefix` begins the messages of errors."""

    def __init__(self, client: Client, worker: str, *, error_prefix: str = "") -> None:
        self._client = client
        self._worker = worker
        self._error_prefix = error_prefix

    def run(self, task: str, seconds: float, **kwargs: Any) -> Any:
        """Run a task and return its value.

        Raises:
            TaskError: the task failed, or (`TaskTimeoutError`) wasn't answered within `seconds`.
            NoWorkersError: the worker can't be reached.
        """
        return self._run(task, seconds, kwargs).get("result")

    def report(self, model: type[ReportT], task: str, seconds: float, **kwargs: Any) -> ReportT:
        """Run a task and return its value as a `model`.

        Raises:
            NfcliError: as `run`, or the value isn't a valid `model`.
        """
        try:
            return model.model_validate(self.run(task, seconds, **kwargs))
        except ValidationError:
            raise TaskError(
                f"{self._error_prefix}the result of {task} has not the form that this nfcli expects: "
                "use the same version on both sides"
            ) from None

    def _run(self, task: str, seconds: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        results = self._client.run_job(SERVICE, task, kwargs=kwargs, workers=[self._worker], timeout=seconds)
        result = results[self._worker]
        if result.get("failed"):
            kind = TaskTimeoutError if result.get("status") == ResultStatus.TIMEOUT else TaskError
            raise kind(self._error_prefix + escape_line(failure_reason(result)))
        return result


class TransferClient(WorkerTasks):
    """Runs the tasks of a transfer; writes the worker's notes and, at a terminal, the progress to stderr."""

    def __init__(self, client: Client, worker: str, console: Console) -> None:
        super().__init__(client, worker, error_prefix=f"{worker}: ")
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._console.draw("")

    def show_progress(self, done: int, size: int) -> None:
        """Show how much of the transfer is done, at a terminal."""
        if self._console.can_draw:
            self._console.draw(f"{self._worker}: {100 * done // size} %")

    def _run(self, task: str, seconds: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        result = super()._run(task, seconds, kwargs)
        for message in result.get("messages") or ():
            self._console.note(f"{self._worker}: {message}")
        return result
