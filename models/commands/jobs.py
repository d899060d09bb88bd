"""`show jobs …`: the jobs that were sent with `nowait`, their results and events."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from ..tasks.audit import LastLines
from .base import LocalTime, ShellCommand

DEFAULT_LAST = 20
_ROW_COLUMNS = ("uuid", LocalTime("submitted"), "service", "task", "workers")
_EVENT_COLUMNS = ("worker", "timestamp", "severity", "status", "resource", "message")

_Word = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[!-~]+$")]


class ShowJobs(ShellCommand):
    """Show the jobs that were sent with nowait, or one of them: its state, results or events."""

    HANDLER: ClassVar[str] = "show_jobs"

    last: Annotated[LastLines, Field(description="How many of the newest jobs to list")] = DEFAULT_LAST
    service: Annotated[_Word | None, Field(description="Service of the jobs to list")] = None
    uuid: Annotated[_Word | None, Field(description="Job to show, by its uuid or the beginning of it")] = None
    result: Annotated[bool, Field(description="Show the results of the job that uuid names")] = False
    events: Annotated[bool, Field(description="Show the events of the job that uuid names")] = False

    @model_validator(mode="after")
    def _has_one_purpose(self) -> Self:
        if self.uuid is None and (self.result or self.events):
            raise PydanticCustomError("jobs_uuid", "result and events need uuid: name the job")
        if self.result and self.events:
            raise PydanticCustomError("jobs_both", "show either the result or the events")
        if self.uuid is not None and self.model_fields_set & {"last", "service"}:
            raise PydanticCustomError("jobs_one", "uuid names one job: omit last and service")
        return self

    def columns(self, data: Any = None) -> tuple[str, ...]:  # noqa: ARG002  as in ShellCommand
        """Return the columns of the list of jobs or events; none for what one job has returned."""
        if self.uuid is None:
            return _ROW_COLUMNS
        return _EVENT_COLUMNS if self.events else ()
