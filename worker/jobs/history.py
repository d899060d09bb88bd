"""What is known of a worker's jobs: who sent which when, with what arguments and events, and what came of it.

Arguments and results of restricted tasks are never part of it: they are tokens, or say who has one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from ...models.commands.schemas.documents import holds_secret, properties
from ...models.inventory.masking import MASK, mask_section
from ...models.protocol.jobs import JobEvent, JobRequest
from .finished_jobs import FinishedJobs
from .task import TaskSpec, spellings_of
from .tracked_job import JobKey, TrackedJob

if TYPE_CHECKING:
    from ..audit.actor import Actor


def is_private(spec: TaskSpec | None) -> bool:
    """Whether arguments and results of a task are kept to those who run it; None, an unknown one, may be misspelt."""
    return spec is None or spec.restricted or spec.shows_tokens


def encode_record(job: TrackedJob) -> bytes:
    """Return the JSON of a job's arguments and events, for a job that ends; secrets among the arguments are `***`.

    What JSON can't hold, such as half of a surrogate pair, is left out: a record must not keep a result back.
    """
    record = _record(job, job.request)
    try:
        return to_json(record, fallback=str)
    except (ValueError, RecursionError):
        return to_json({**record, "args": [], "kwargs": {}, "events": []})


def _record(job: TrackedJob, request: JobRequest) -> dict[str, Any]:
    kwargs = {} if is_private(job.spec) else _masked(job.spec, request.kwargs)
    args = [] if is_private(job.spec) else mask_section(request.args)
    return {"args": args, "kwargs": kwargs, "timeout": request.timeout, "events": list(job.events)}


def _masked(spec: TaskSpec | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as they may be shown: a task's model may declare secrets that no name gives away."""
    hidden: frozenset[str] = frozenset() if spec is None else _secret_arguments(spec.input_model)
    return {name: MASK if name in hidden else mask_section({name: value})[name] for name, value in kwargs.items()}


@cache
def _secret_arguments(model: type[BaseModel]) -> frozenset[str]:
    """Return all names of the arguments that a task's model declares to be secrets: not in its `repr`, or passwords."""
    schema, found = model.model_json_schema(), set[str]()
    for key, field in model.model_fields.items():
        spellings = spellings_of(key, field)
        declared = [(properties(schema).get(name), schema) for name in spellings]
        if not field.repr or holds_secret(declared, with_names=False):
            found.update(spellings)
    return frozenset(found)


class JobRecord(BaseModel):
    """One job; times are seconds since the epoch. `kwargs` and `result` are empty where they are private or forgotten.

    `result` is the JSON object `{worker: Result}`; `is_private`: the task manages tokens, or isn't known.
    """

    uuid: str
    client: str
    task: str
    state: str
    received: float
    started: float | None
    completed: float | None
    has_failed: bool
    is_private: bool
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    timeout: float | None = None
    events: list[JobEvent] = []
    result: dict[str, Any] | None = None


class JobHistory:
    """The jobs of an executor since its start, the newest of them; any thread may call any method.

    `running` are the jobs that haven't ended and `finished` the others, both guarded by `lock`; `identify` returns a
    client as the audit trail names it.
    """

    def __init__(
        self,
        lock: threading.Lock,
        running: Mapping[JobKey, TrackedJob],
        finished: FinishedJobs,
        identify: Callable[[str], Actor | str],
    ) -> None:
        self._lock = lock
        self._running = running
        self._finished = finished
        self._identify = identify

    def newest_first(self) -> list[JobRecord]:
        """Return all jobs without arguments, events and results, the last that came first."""
        with self._lock:
            jobs = [*self._running.values(), *self._finished.history]
        names: dict[str, str] = {}
        for job in jobs:
            if job.client not in names:
                names[job.client] = self.client_name(job.client)
        records = [self._summary(job, names[job.client]) for job in jobs]
        return sorted(records, key=lambda record: record.received, reverse=True)

    def find(self, uuid: str) -> JobRecord | None:
        """Return the newest job of a uuid with all that may be shown of it, None for an unknown one."""
        with self._lock:
            jobs = [job for job in (*self._running.values(), *self._finished.history) if job.uuid == uuid]
            if not jobs:
                return None
            job = max(jobs, key=lambda each: each.received)
            payload, sealed, request = job.payload, job.record, job.request
            is_running = job.completed is None
            details = _record(job, request) if is_running else from_json(sealed) if sealed else {}
        summary = self._summary(job, self.client_name(job.client))
        result = None if payload is None or summary.is_private else from_json(payload)
        return JobRecord.model_validate({**dict(summary), **details, "result": result})

    def client_name(self, client: str) -> str:
        """Return the name of a client: of its key file in direct mode, at a broker the one that it gave itself."""
        found = self._identify(client)
        return found.removeprefix("fabric:") if isinstance(found, str) else found.name

    def _summary(self, job: TrackedJob, client: str) -> JobRecord:
        return JobRecord(
            uuid=job.uuid,
            client=client,
            task=job.request.task,
            state=job.state.value,
            received=job.received,
            started=job.started,
            completed=job.completed,
            has_failed=job.has_failed,
            is_private=is_private(job.spec),
        )
