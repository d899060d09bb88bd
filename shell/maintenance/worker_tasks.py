"""Tasks on one worker, each of which has to succeed."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ...models.errors import TaskError, TaskTimeoutError
from ...models.inventory.service import SERVICE
from ...models.protocol.jobs import ResultStatus, failure_reason
from ..client.client import Client
from ..text import escape_line

ReportT = TypeVar("ReportT", bound=BaseModel)


class WorkerTasks:
    """Runs tasks on one worker and returns their values.

    Args:
        client: reaches the worker.
        worker: the worker's name.
        error_prefix: begins the messages of errors.
    """

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
