"""Inputs and results of the tasks that show a worker's jobs, in NorFab's format."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from .base import Report, TaskInput

MAX_LISTED_JOBS = 10_000


class JobListInput(TaskInput):
    """Arguments of `job_list`; with `uuid` the others have no effect."""

    pending: Annotated[bool | None, Field(description="List jobs that wait or run")] = True
    completed: Annotated[bool | None, Field(description="List jobs that have ended")] = True
    task: Annotated[str | None, Field(description="List jobs of this task only")] = None
    last: Annotated[int | None, Field(ge=1, le=MAX_LISTED_JOBS, description="Number of jobs to list at most")] = None
    client: Annotated[str | None, Field(description="List jobs of this client only")] = None
    uuid: Annotated[str | None, Field(description="UUID of the only job to list")] = None


class JobDetailsInput(TaskInput):
    """Arguments of `job_details`."""

    uuid: Annotated[str, Field(description="UUID of the job")]
    result: Annotated[bool, Field(description="Include the result")] = True
    events: Annotated[bool, Field(description="Include the events")] = True


class JobEntry(Report):
    """Entry of `job_list`; times are texts, null for what hasn't happened."""

    uuid: str = Field(description="UUID of the job")
    client_address: str = Field(description="Name of the client that sent the job")
    task: str = Field(description="Name of the task")
    status: str = Field(description="PENDING while it waits or runs, then COMPLETED")
    received_timestamp: str = Field(description="Time at which the job came")
    started_timestamp: str | None = Field(description="Time at which the task began")
    completed_timestamp: str | None = Field(description="Time at which the job ended")
    worker: str = Field(description="Name of the worker")
    service: str = Field(description="Service of the worker")


class JobDetails(Report):
    """One job. Arguments and result of tasks that manage tokens, backups and the audit trail are never included."""

    uuid: str = Field(description="UUID of the job")
    status: str = Field(description="PENDING, STARTED, COMPLETED or FAILED")
    received_timestamp: str = Field(description="Time at which the job came")
    started_timestamp: str | None = Field(description="Time at which the task began")
    completed_timestamp: str | None = Field(description="Time at which the job ended")
    client_address: str = Field(description="Name of the client that sent the job")
    task: str = Field(description="Name of the task")
    args: list[Any] = Field(description="Positional arguments")
    kwargs: dict[str, Any] = Field(description="Keyword arguments, secrets as `***`")
    timeout: float | None = Field(description="Seconds that the job may take")
    result_data: dict[str, Any] | None = Field(description="Result, null where it isn't known or shown")
    job_events: list[dict[str, Any]] = Field(description="Events, the oldest first")
