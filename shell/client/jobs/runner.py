"""Run jobs over one transport: which workers are meant, which have to be started, and what each one answers."""

from __future__ import annotations

import random
import threading
import time
import uuid as uuids
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypedDict

from ....models.errors import JobInterruptedError, NfcliError, NoWorkersError, UsageError
from ....models.inventory.schema import SERVICE
from ....models.protocol.frames import ALL, ANY
from ....models.protocol.jobs import (
    DEFAULT_TIMEOUT_SECONDS,
    Page,
    ResultFormat,
    Results,
    encode_request,
)
from ....models.protocol.pending_job import PendingJob
from ....models.protocol.signatures import JobSigner
from ...transport.base import Transport
from ..fleet import Fleet, MissingWorker

REFRESH_SECONDS = 2.5
"""Limit for refreshing the list of workers."""

ANY_SECONDS = 1.0
"""How long each worker may take to answer before another one is chosen for a job that any of them may do."""


class JobOptions(TypedDict, total=False):
    """What `Client.run_job` takes of a job beside service and task."""

    uuid: str | None
    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    workers: str | Sequence[str]
    timeout: float


@dataclass
class Submission:
    """What is to be run where. The `deadline`, in monotonic seconds, counts from when it was made.

    `has_own_uuid`: the caller chose the uuid.

    Raises:
        UsageError: an argument is not valid.
    """

    service: str
    task: str
    _: KW_ONLY
    uuid: str | None = None
    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    workers: str | Sequence[str] = ALL
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    origin: str = ""
    page: Page | None = None

    def __post_init__(self) -> None:
        self._data = self._encode()
        check_names(self.workers)
        self.deadline = time.monotonic() + self.timeout
        self.has_own_uuid = bool(self.uuid)
        self.job_uuid = self.uuid or uuids.uuid4().hex

    def _encode(self, seconds_left: float | None = None) -> bytes:
        """Return the request, whose deadline is in `seconds_left`, by default in all of its time."""
        return encode_request(
            self.task,
            self.kwargs or {},
            args=self.args or (),
            timeout=self.timeout,
            origin=self.origin,
            seconds_left=seconds_left,
            result_format=ResultFormat(times="iso8601", page=self.page),
        )

    def pending(self, seconds: float = 0.0, **options: Any) -> PendingJob:
        """Return the job to send, with its deadline put off by `seconds`."""
        deadline = self.deadline + seconds
        data = self._encode(deadline - time.monotonic()) if seconds else self._data
        return PendingJob(
            *(self.service, self.task, self.job_uuid, data),
            timeout=self.timeout,
            deadline=deadline,
            may_be_repeated=self.has_own_uuid,
            **options,
        )


class WorkerStarter:
    """Starts the workers of a job that aren't running; any thread may call it.

    `before_first_job` is called once, before the first job; `restart` with each target of a later one that isn't
    running: it returns whether it started that worker.
    """

    def __init__(
        self, before_first_job: Callable[[], None] | None = None, restart: Callable[[str], bool] | None = None
    ) -> None:
        self._before_first_job = before_first_job
        self._restart = restart
        self._lock = threading.Lock()

    def ensure(self, names: list[str], transport: Transport) -> tuple[dict[str, NfcliError], float]:
        """Start the workers of a job that aren't running.

        Returns:
            The errors of those that couldn't be started, by name; how many seconds it took if the list of workers may
            have changed, else 0.
        """
        if self._before_first_job is None and self._restart is None:
            return {}, 0.0
        started = time.monotonic()
        with self._lock:
            not_started, has_changed = self._start(names, transport)
        if not has_changed:
            return not_started, 0.0
        transport.wait_registered()
        return not_started, time.monotonic() - started

    def _start(self, names: list[str], transport: Transport) -> tuple[dict[str, NfcliError], bool]:
        not_started: dict[str, NfcliError] = {}
        has_changed = False
        if self._before_first_job is not None:
            self._before_first_job()
            self._before_first_job = None
            return not_started, True
        for name in names if self._restart is not None else ():
            try:
                if self._restart is not None and not transport.is_running(name):
                    has_changed |= self._restart(name)
            except NfcliError as error:
                not_started[name] = error
        return not_started, has_changed


class ExpectedWorkers:
    """The workers of `fastmcp` that a client expects; any thread may call it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._lock = threading.Lock()

    def missing(self, transport: Transport) -> dict[str, MissingWorker]:
        """Return those that the transport doesn't list; remember those that it does."""
        with self._lock:
            self._fleet.record(transport.registered(SERVICE))
            return self._fleet.missing(transport.candidates(SERVICE))

    def forget(self, name: str, present: Collection[str]) -> None:
        """Expect one no longer; raises as `Fleet.forget`."""
        with self._lock:
            self._fleet.forget(name, present)


class JobRunner:
    """Runs jobs over one transport; used by one thread at a time. `starter` and `expected` may be shared."""

    def __init__(
        self, transport: Transport, signer: JobSigner, starter: WorkerStarter, expected: ExpectedWorkers
    ) -> None:
        self.transport = transport
        self._signer = signer
        self._starter = starter
        self._expected = expected

    def run(
        self, submission: Submission, begin: Callable[[PendingJob], None] | None = None, **options: Any
    ) -> tuple[PendingJob, Results]:
        """Run a job on a fresh list of workers; return it, and the result of each targeted worker.

        `begin` is called with the job before it is sent; `options` are attributes of `PendingJob`. The results of a job
        that nobody waits for are those of the workers that failed or had ended.

        Raises:
            NfcliError: as `Client.run_job`.
        """
        names, absent = self.targets(submission.service, submission.workers)
        not_started, seconds = self._starter.ensure(names, self.transport)
        if seconds:
            names, absent = self.targets(submission.service, submission.workers)
        job = submission.pending(seconds, not_started=not_started, **options)
        if begin is not None:
            begin(job)
        if submission.workers == ANY:
            return job, self._run_on_any(job, names)
        return job, self._run(job, names, absent)

    def without_starting(self) -> JobRunner:
        """Return a runner over the same transport that starts no worker."""
        return JobRunner(self.transport, self._signer, WorkerStarter(), self._expected)

    def query(self, job: PendingJob, names: Sequence[str]) -> Results:
        """Request the results of a job that was sent before; its `states` are those of workers that have none yet."""
        known = set(self.transport.candidates(ALL))
        for name in sorted(set(names) - known):
            job.fail(name, f"worker {name} is not known to {self.transport.SOURCE} any more")
        job.missing = set(names) & known
        if job.missing:
            self.transport.send(job)
            job.expire()
        return dict(sorted(job.results.items()))

    def missing(self, service: str) -> dict[str, MissingWorker]:
        """Return the expected workers of a service that the transport doesn't list."""
        return self._expected.missing(self.transport) if service in (SERVICE, ALL) else {}

    def targets(self, service: str, workers: str | Sequence[str]) -> tuple[list[str], dict[str, NfcliError]]:
        """Return the workers to send a job to, and the errors of those that it should reach and can't."""
        candidates = self.transport.candidates(service)
        missing = self.missing(service)
        absent: dict[str, NfcliError] = {name: missing[name].error() for name in missing if name not in candidates}
        if not candidates and not absent:
            services, source = self.transport.services(), self.transport.SOURCE
            raise NoWorkersError(f"no worker serves {service!r}: {source} has {_join(services)}")
        if workers == ALL:
            return candidates, absent
        if workers == ANY:
            if not candidates:
                raise _unreachable(absent)
            return candidates, {}
        names = [workers] if isinstance(workers, str) else list(dict.fromkeys(workers))
        if not names:
            raise NoWorkersError("the list of workers is empty: name at least one, or use all")
        unknown = [name for name in names if name not in candidates and name not in absent]
        if unknown:
            there = _join(sorted({*candidates, *absent}))
            raise NoWorkersError(f"unknown worker {_join(map(repr, unknown))}: there is {there}")
        return [name for name in names if name in candidates], {name: absent[name] for name in names if name in absent}

    def _run_on_any(self, job: PendingJob, names: list[str]) -> Results:
        """Try one worker after the other until one can be reached: one that answers first, then those that seem to run.

        A worker that accepts a job and doesn't answer can't be tried and left: it may do the job later.
        """
        failure: NoWorkersError | None = None
        shuffled = sorted(random.sample(names, len(names)), key=self.transport.is_running, reverse=True)
        seconds = min(ANY_SECONDS, (job.deadline - time.monotonic()) / (len(names) + 1))
        first = next((name for name in shuffled if len(names) > 1 and self.transport.answers(name, seconds)), None)
        for name in sorted(shuffled, key=lambda name: name != first):
            try:
                return self._run(job, [name])
            except NoWorkersError as error:
                failure = error
        raise failure or NoWorkersError("there is no worker: start one with nfcli -w")

    def _run(self, job: PendingJob, names: list[str], absent: Mapping[str, NfcliError] | None = None) -> Results:
        for name, error in (absent or {}).items():
            job.fail_gone(name, error)
        job.missing = set(names)
        if job.missing:
            self._send(job)
            if not job.is_abandoned:
                job.expire()
        targets = {*names, *(absent or {})}
        if job.unreached.keys() >= targets:
            raise _unreachable(job.unreached)
        return {name: job.results[name] for name in sorted(targets) if name in job.results}

    def _send(self, job: PendingJob) -> None:
        """Sign a job for its missing workers, and send it; signed for one worker, it may be sent to another later."""
        request = job.data
        job.data = self._signer.sign(request, uuid=job.uuid, service=job.service, workers=sorted(job.missing))
        try:
            self.transport.send(job)
        except KeyboardInterrupt:
            raise JobInterruptedError(job.interruption()) from None
        finally:
            job.data = request


def _unreachable(unreached: Mapping[str, NfcliError]) -> NfcliError:
    """Return the error of a job that reached no worker; its class is that of the workers' errors, if they agree."""
    kinds = {type(error) for error in unreached.values()}
    kind = kinds.pop() if len(kinds) == 1 else NoWorkersError
    error = kind("; ".join(dict.fromkeys(str(error) for error in unreached.values())))
    error.has_reached_none = True
    return error


def check_names(workers: object) -> None:
    """Raise UsageError for targets that are no names."""
    if not (isinstance(workers, Collection) and all(isinstance(name, str) for name in workers)):
        raise UsageError(f"workers must be all, any, a name or a list of names, got {workers!r}")


def _join(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
