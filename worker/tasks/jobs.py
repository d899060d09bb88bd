"""Tasks that show the jobs of this worker since its start. Tokens, and who has one, are not among what they show."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from ...models.errors import TaskError
from ...models.protocol.jobs import EVENT_TIME, JobEvent, Result
from ...models.tasks.jobs import MAX_LISTED_JOBS, JobDetails, JobDetailsInput, JobEntry, JobListInput
from ..jobs.history import JobHistory, JobRecord
from ..jobs.task import task
from ..jobs.task_context import TaskContext
from ..jobs.tracked_job import JobState

_PRIVATE = "arguments and results of this task are not shown: they may be tokens"


@task(arguments=JobListInput, result=list[JobEntry], mcp=False, is_read=True, restricted=True)
def job_list(worker: TaskContext, arguments: JobListInput) -> list[dict[str, Any]]:
    """List the worker's newest jobs since its start, the last that came first: who sent which task when."""
    records = [record for record in _history(worker).newest_first() if _matches(record, arguments)]
    return [
        JobEntry(
            uuid=record.uuid,
            client_address=record.client,
            task=record.task,
            status="COMPLETED" if record.state == JobState.COMPLETED else "PENDING",
            worker=worker.name,
            service=worker.service,
            **_times(worker, record),
        ).model_dump()
        for record in records[: arguments.last or MAX_LISTED_JOBS]
    ]


def _matches(record: JobRecord, wanted: JobListInput) -> bool:
    if wanted.uuid:
        return record.uuid == wanted.uuid
    is_listed = wanted.completed if record.state == JobState.COMPLETED else wanted.pending
    return (
        is_listed is not False and wanted.task in {None, "", record.task} and wanted.client in {None, "", record.client}
    )


@task(arguments=JobDetailsInput, result=JobDetails, mcp=False, is_read=True, restricted=True)
def job_details(worker: TaskContext, arguments: JobDetailsInput) -> Result:
    """Show one job: its arguments, secrets masked, its events and result; of tasks that manage tokens, events alone."""
    record = _history(worker).find(arguments.uuid)
    if record is None:
        raise TaskError(
            f"no job {arguments.uuid[:64]!r} of worker {worker.name} is known: job_list has the newest since its start"
        )
    result = None if record.result is None or not arguments.result else _result_data(worker, record)
    details = JobDetails(
        uuid=record.uuid,
        status="FAILED" if record.has_failed and record.state == JobState.COMPLETED else record.state,
        client_address=record.client,
        task=record.task,
        args=record.args,
        kwargs=record.kwargs,
        timeout=record.timeout,
        result_data=result,
        job_events=[_event(record, each) for each in record.events] if arguments.events else [],
        **_times(worker, record),
    )
    return Result(result=details.model_dump(), messages=[_PRIVATE] if record.is_private else [])


def _history(worker: TaskContext) -> JobHistory:
    if worker.jobs is None:
        raise TaskError("jobs are not recorded here")
    return worker.jobs


def _result_data(worker: TaskContext, record: JobRecord) -> dict[str, Any]:
    return {
        "client_address": record.client,
        "uuid": record.uuid,
        "status_code": "200",
        "result": record.result,
        "worker": worker.name,
        "service": worker.service,
    }


def _event(record: JobRecord, event: JobEvent) -> dict[str, Any]:
    hidden = {"worker", "service", "uuid", *(["extras"] if record.is_private else [])}
    shown = event.model_dump(exclude=hidden, exclude_none=True)
    return {**shown, "client_address": record.client, "juuid": record.uuid, "created_at": _utc_text(event.timestamp)}


def _utc_text(timestamp: str) -> str:
    try:
        local = datetime.strptime(timestamp, EVENT_TIME).astimezone()
    except ValueError:
        return ""
    return f"{local.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _times(worker: TaskContext, record: JobRecord) -> dict[str, Any]:
    to_text = _iso_time if worker.result_format.has_iso_times else time.ctime
    return {
        f"{name}_timestamp": None if seconds is None else to_text(seconds)
        for name, seconds in (
            ("received", record.received),
            ("started", record.started),
            ("completed", record.completed),
        )
    }


def _iso_time(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).astimezone().isoformat(timespec="milliseconds")
