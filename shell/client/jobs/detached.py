"""Jobs whose results nobody waits for: sent, recorded, and asked for later by whoever has the record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ....models.environment.paths import Environment
from ....models.errors import EnvironmentFolderError, NfcliError
from ....models.protocol.frames import encode_data
from ....models.protocol.jobs import Results, failure_reason
from ....models.protocol.pending_job import PendingJob
from .records import JobRecord, JobRecords, utc_now
from .runner import REFRESH_SECONDS, JobRunner, Submission


@dataclass(frozen=True)
class StartedJob:
    """A job that was sent; `workers` have it, `failed` are the failed results of those that don't."""

    uuid: str
    workers: list[str]
    failed: Results


@dataclass(frozen=True)
class FetchedResults:
    """What the workers of a job have to say: `results` of those that have one, the `states` of the others.

    The results of those that don't know the job, `unknown`, say that.
    """

    record: JobRecord
    results: Results
    states: dict[str, str]
    unknown: frozenset[str] = frozenset()

    def describe(self) -> dict[str, Any]:
        """Return the job with the state of each worker."""
        known = {name: result for name, result in self.results.items() if name not in self.unknown}
        ended = {name: "failed" if result.get("failed") else "completed" for name, result in known.items()}
        states = {name: {**self.states, **ended}.get(name, "unknown").lower() for name in self.record.workers}
        return {**self.record.row(), "timeout": self.record.timeout, "workers": states}


class DetachedJobs:
    """The jobs of an environment that nobody waits for.

    Each is sent over a connection of its own, `make_runner` makes them: a broker's workers give results to the sender
    alone, and whoever asks for them later takes its identity.
    """

    def __init__(self, environment: Environment, make_runner: Callable[[str], JobRunner]) -> None:
        self.records = JobRecords(environment)
        self._make_runner = make_runner

    def start(self, submission: Submission) -> StartedJob:
        """Send a job, and return once its workers have it; raises as `Client.start_job`."""
        self.records.read()  # nothing is sent that can't be recorded
        runner = self._make_runner("")
        try:
            runner.transport.refresh(min(REFRESH_SECONDS, submission.timeout))
            submitted = utc_now()
            job, failed = runner.run(submission, is_detached=True)
        finally:
            runner.transport.close()
        failed = {name: result for name, result in failed.items() if name not in job.accepted}
        workers = sorted(job.accepted)
        if not workers:
            reasons = "; ".join(f"{name}: {failure_reason(result)}" for name, result in failed.items())
            raise NfcliError(f"no worker has taken the job: {reasons}")
        record = JobRecord(
            uuid=job.uuid,
            service=job.service,
            task=job.task,
            workers=workers,
            submitted=submitted,
            timeout=job.timeout,
            identity=runner.transport.identity,
        )
        try:
            self.records.add(record)
        except EnvironmentFolderError as error:
            fault = f"job {job.uuid} was sent to {', '.join(workers)}: don't repeat it"
            raise EnvironmentFolderError(f"{fault}, but it can't be asked for later: {error}") from None
        return StartedJob(job.uuid, workers, failed)

    def fetch(self, uuid: str, timeout: float) -> FetchedResults:
        """Return what the workers of a job have to say by now; raises as `Client.fetch_results`."""
        record = self.records.find(uuid)
        runner = self._make_runner(record.identity)
        try:
            runner.transport.refresh(min(REFRESH_SECONDS, timeout))
            job = PendingJob(
                *(record.service, record.task, record.uuid),
                encode_data({"task": record.task, "kwargs": {}, "args": []}),
                timeout=timeout,
                deadline=time.monotonic() + timeout,
                is_query=True,
            )
            results = runner.query(job, record.workers)
        finally:
            runner.transport.close()
        return FetchedResults(record, results, job.states, frozenset(job.unknown))
