"""`norfab workers …`: workers of every service."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from ...fields import quote_value
from ..base import CommandGroup, JobArguments, branch
from .show import ALL_SERVICES, Name, mapping


class PingWorkers(JobArguments):
    """Have workers of all services answer, to see which do."""

    SERVICE: ClassVar[str] = ALL_SERVICES
    TASK: ClassVar[str] = "echo"
    COLUMNS: ClassVar[tuple[str, ...]] = ("worker", "answer")
    ANSWER: ClassVar[str] = "pong"

    service: Annotated[Name, Field(description="Service whose workers to ping")] = ALL_SERVICES
    sleep: Annotated[int | None, Field(ge=0, le=60, description="Seconds that a worker waits before it answers")] = None
    raise_error: Annotated[
        Name | None, Field(alias="raise-error", description="Message of an error that workers answer with")
    ] = None

    def job(self) -> dict[str, Any]:
        """Return the arguments of the client's `run_job`."""
        kwargs = self.model_dump(include={"sleep", "raise_error"}, exclude_none=True) | {"ping": self.ANSWER}
        return {"service": self.service, "task": self.TASK, "kwargs": kwargs, **self.targets()}

    def check_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return one worker's result, failed where it isn't what was sent."""
        answer = mapping(mapping(result.get("result")).get("kwargs")).get("ping")
        if result.get("failed") or answer == self.ANSWER:
            return result
        return {**result, "failed": True, "errors": [f"it answered {quote_value(answer)}, not {self.ANSWER}"]}

    def merge(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a row for each worker."""
        return [{"worker": worker, "answer": self.ANSWER, **value} for worker, value in values.items()]


class NorfabWorkersCommands(CommandGroup, prompt="nf[norfab-workers]#"):
    """Commands for workers of all services."""

    ping: PingWorkers = branch("Have workers answer")


class NorfabCommands(CommandGroup, prompt="nf[norfab]#"):
    """Commands for all workers of this environment or fabric."""

    workers: NorfabWorkersCommands = branch("Workers of all services")
