"""Run jobs: each once per uuid, in a few threads, with limits on how many are in flight.

The executor knows neither sockets nor frames: a transport submits requests and gets the result's bytes by a callback.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pydantic_core import PydanticSerializationError, to_json

from ...models.errors import NfcliError, TaskError
from ...models.protocol.jobs import JobRequest, Result, ResultStatus
from ...models.protocol.questions import InputAnswer
from ...models.tasks.audit import Operation
from ..admission.admission import Admission, AdmissionError
from .channels.job_channel import CANCELLED, STOPPING, JobChannel
from .encoding import encode_result
from .finished_jobs import FinishedJobs
from .history import JobHistory, encode_record
from .lane_threads import JobLimits, LaneThreads
from .task import Lane, TaskSpec
from .task_context import TaskContext
from .tracked_job import Deliver, JobKey, JobState, StartDeadline, TrackedJob

if TYPE_CHECKING:
    from ..audit.actor import Actor

log = logging.getLogger(__name__)

OnJob = Callable[[str, str, float], None]

SHOWN_SECONDS = 30.0
STOP_GRACE_SECONDS = 3.0

_UNSIGNED_ANSWERS = "answers to questions aren't signed, and the task takes signed jobs only: it can't ask"
_LATE = "nothing was done: send it again; if it was not delayed, the clocks of client and worker differ"


class JobExecutor:
    """Runs the jobs of one worker; any thread may call any method.

    `identify` returns a client as the audit trail names it, given the key that distinguishes it. `admission` decides
    who may run restricted tasks; None: all clients. `on_job` is called with the task of each job that was run or
    refused, empty for an unknown one, its outcome, and the seconds that it took.
    """

    def __init__(
        self,
        worker: TaskContext,
        identify: Callable[[str], Actor | str],
        *,
        admission: Admission | None = None,
        limits: JobLimits | None = None,
        on_job: OnJob | None = None,
    ) -> None:
        self._worker = worker
        self._on_job = on_job
        self._limits = limits = limits or JobLimits()
        self._identify = identify
        self._admission = admission
        self._lock = threading.Lock()
        self._jobs: dict[JobKey, TrackedJob] = {}
        self._finished = FinishedJobs(limits.kept_jobs, limits.kept_result_bytes)
        self.history = JobHistory(self._lock, self._jobs, self._finished, identify)
        self._total = self._late = 0
        self._lanes = {lane: LaneThreads(lane, limits.of_lane(lane), self._execute_safely) for lane in Lane}

    def start(self) -> None:
        """Start the threads."""
        for lane in self._lanes.values():
            lane.start()

    def submit(
        self,
        client: str,
        uuid: str,
        request: JobRequest,
        deliver: Deliver,
        *,
        notify: Deliver | None = None,
        size: int = 0,
        waited_seconds: float = 0.0,
        peer: str = "",
    ) -> None:
        """Run a job and pass its result to `deliver`, in the thread that ran it: the caller's if the task runs inline.

        A uuid that the client has sent before isn't run again: `deliver` gets the first run's result. A job that timed
        out in the queue is new when it is sent again; a queued one has the longest of the timeouts it was sent with.

        `client` distinguishes clients: jobs of different ones never meet, whatever their uuid. `deliver` gets the JSON
        object `{worker: Result}`; before it, `notify` gets the JSON of a `JobEvent` when the task starts and for each
        of its events and questions. Neither may block or raise. `size` is the number of bytes of the request,
        `waited_seconds` for how long it may have been here unread, `peer` where it came from, as libzmq reports it.

        Raises:
            TaskError: the limits on jobs in flight are reached, or the worker is stopping; the job wasn't run and may
                be sent again.
        """
        deadline, key = StartDeadline.of(request, waited_seconds), (client, uuid)
        with self._lock:
            running, finished = self._jobs.get(key), self._finished.find(key)
            if running is not None and not running.is_late:
                if len(running.waiting) >= self._limits.callbacks:
                    raise TaskError(f"{self._limits.callbacks} requests wait for this job: send no more of them")
                running.deadline = running.deadline.later(deadline)
                running.waiting.append(deliver)
                return
            if finished is not None and not finished.was_run:
                self._finished.forget(key)
                finished = None
            if finished is None:
                spec = self._worker.registry.find(request.task)
                job = TrackedJob(client, uuid, request, deadline, spec, size, peer, waiting=[deliver], notify=notify)
                lane = self._admit(job)
        if finished is not None:
            deliver(finished.payload or self._discarded_result(finished))
        elif spec is not None and spec.run_inline and not self._needs_signature(spec):
            self._execute(job)
        else:
            lane.put(job)

    def find(self, client: str, uuid: str) -> tuple[JobState, bytes | None] | None:
        """Return a job's state; None for a uuid that is not known.

        With it, once the job is completed, its result's JSON, and while it waits for an answer, the question's.
        """
        with self._lock:
            job = self._jobs.get((client, uuid)) or self._finished.find((client, uuid))
            if job is None:
                return None
            state, payload, channel = job.state, job.payload, job.channel
        if state is JobState.STARTED and channel is not None and (question := channel.open_request) is not None:
            return JobState.WAITING, to_json(question)
        if state is JobState.COMPLETED and payload is None:
            payload = self._discarded_result(job)
        return state, payload

    def answer(self, client: str, uuid: str, answer: InputAnswer) -> None:
        """Answer the open question of a client's running job, or cancel the job, running or queued.

        Raises:
            TaskError: there is no such job or question, or the question takes another kind of answer; the question
                stays open then.
        """
        is_cancellation = answer.cancel and not answer.input_id
        with self._lock:
            job = self._jobs.get((client, uuid))
            channel = None if job is None else job.channel
            if job is not None and is_cancellation:
                job.is_cancelled = True
        if channel is None:
            if job is None or not is_cancellation:
                raise TaskError("it is for no running job of this client")
        elif is_cancellation:
            channel.cancel()
        else:
            channel.answer(answer)

    def forget_tokens(self, now: float) -> None:
        """Forget results that show tokens, a while after they were sent; `now` is monotonic. A listing can be repeated.

        Until then a client whose connection was lost, or that asks a broker for the result, still gets it.
        """
        with self._lock:
            self._finished.forget_tokens(now - SHOWN_SECONDS)

    def counters(self) -> dict[str, int]:
        """Return how many jobs are running or queued; and since the start: submitted, refused by a limit, too late."""
        with self._lock:
            lanes = self._lanes.values()
            return {
                "running_jobs": sum(lane.jobs_in_flight for lane in lanes),
                "total_jobs": self._total,
                "refused_jobs": sum(lane.refused for lane in lanes),
                "late_jobs": self._late,
            }

    def stop(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Refuse new jobs, fail queued ones, and wait for running ones, at most `grace_seconds`."""
        self._worker.stopping.set()
        with self._lock:
            channels = [job.channel for job in self._jobs.values() if job.channel is not None]
        for channel in channels:
            channel.end(STOPPING)
        deadline = time.monotonic() + grace_seconds
        for lane in self._lanes.values():
            lane.stop(max(0.0, deadline - time.monotonic()))

    def _needs_signature(self, spec: TaskSpec) -> bool:
        return spec.restricted and self._admission is not None and self._admission.requires_signatures

    def _admit(self, job: TrackedJob) -> LaneThreads:
        if self._worker.stopping.is_set():
            raise TaskError(f"worker {self._worker.name} is stopping, nothing was done: send the job again later")
        lane = self._lane_of(job)
        lane.admit(job)
        self._jobs[job.key] = job
        self._total += 1
        return lane

    def _lane_of(self, job: TrackedJob) -> LaneThreads:
        return self._lanes[Lane.GENERAL if job.spec is None else job.spec.lane]

    def _execute_safely(self, job: TrackedJob) -> None:
        try:
            self._execute(job)
        except Exception as error:  # noqa: BLE001  a fault here must not end a thread that runs all clients' jobs
            log.error("result of a job not delivered: %s", type(error).__name__)

    def _execute(self, job: TrackedJob) -> None:
        """Run one job and deliver its result."""
        try:
            payload = self._run(job)
            if job.request.deadline is None:  # one of NorFab's clients, which show it as the last event
                job.tell(job.event(self._worker, "completed", "result_ready", "completed"))
            record = encode_record(job)
            with self._lock:
                waiting = self._complete(job, payload, record)
            if job.channel is not None and (dropped := job.channel.close()):
                log.info("task %s: progress lines dropped: %d", job.request.task[:64], dropped)
            for deliver in waiting:
                deliver(payload)
        finally:
            # `stop` waits until the results are delivered, not only until the tasks have ended.
            self._lane_of(job).end(job)

    def _run(self, job: TrackedJob) -> bytes:
        """Run one job in a context of its own; return the result's JSON."""
        spec = job.spec
        if spec is not None and spec.run_inline:
            return self._run_in(job, self._worker)
        audit = None if spec is None else spec.audit
        client = "" if audit is None else self._actor(job)
        channel = self._open_channel(job)
        worker = replace(
            self._worker,
            client=client,
            client_key=job.client,
            uuid=job.uuid,
            timeout=job.request.timeout,
            issued=job.request.issued,
            depth=job.request.depth,
            seconds_left=lambda: -job.deadline.seconds_late(self._worker.clock()),
            is_relayed=self._admission is not None and self._admission.is_relay(job.client),
            result_format=job.request.result_format,
            channel=channel,
            cancelled=channel.cancelled,
        )
        return self._run_in(job, worker, audit)

    def _open_channel(self, job: TrackedJob) -> JobChannel:
        lane, clock = self._lane_of(job), self._worker.clock
        channel = JobChannel(
            partial(job.event, self._worker),
            job.tell,
            begin_wait=partial(lane.give_place, job),
            seconds_left=lambda: -job.deadline.seconds_late(clock()),
        )
        if job.spec is not None and self._needs_signature(job.spec) and not self._knows_clients:
            channel.end(_UNSIGNED_ANSWERS)
        with self._lock:
            job.channel = channel
        return channel

    @property
    def _knows_clients(self) -> bool:
        """Whether the transport authenticates clients, and so their answers."""
        return self._admission is not None and self._admission.is_direct

    def _actor(self, job: TrackedJob) -> Actor:
        worker = self._worker
        return worker.audit.actor_of(
            self._identify(job.client),
            uuid=job.uuid,
            origin=job.request.origin,
            peer=job.peer,
            is_token=worker.store.lookup,
        )

    def _run_in(self, job: TrackedJob, worker: TaskContext, audit: Operation | None = None) -> bytes:
        request, started, outcome = job.request, time.monotonic(), ""
        if self._worker.stopping.is_set():
            result = self._failure(job, "the worker is stopping, nothing was done: send the job again later")
        elif (late := self._check_deadline(job)) >= 0:
            result = self._failure(job, f"the job could begin {late:.1f} s after its deadline only, {_LATE}")
            result.status, outcome = ResultStatus.TIMEOUT, "late"
        elif job.is_cancelled:
            result, outcome = self._failure(job, f"{CANCELLED}, nothing was done"), "cancelled"
        elif request.args:
            result = self._failure(job, "positional arguments are not supported: name each one in kwargs")
        elif (refusal := self._refusal(job, worker)) is not None:
            result, audit, outcome = self._failure(job, refusal), None, "refused"
        else:
            job.state, job.was_run, job.started = JobState.STARTED, True, time.time()
            job.tell(job.event(self._worker, "starting"))
            iso_times = request.result_format.has_iso_times
            result = worker.registry.run(worker, request.task, request.kwargs, uuid=job.uuid, iso_times=iso_times)
        job.has_failed = result.failed
        if audit is not None and (result.failed or result.result is False):
            result = self._record_unchanged(job, worker, audit, result)
        if self._on_job is not None:
            task = "" if job.spec is None else job.spec.name
            self._on_job(task, outcome or ("failed" if result.failed else "ok"), time.monotonic() - started)
        try:
            return encode_result(self._worker.name, result)
        except (PydanticSerializationError, ValueError):
            failure = self._failure(job, f"the result of task {request.task[:64]} can't be written as JSON")
            return to_json({self._worker.name: failure})

    def _check_deadline(self, job: TrackedJob) -> float:
        """Return how late a job is, below 0 while it may begin; one that is late is new when it is sent again."""
        with self._lock:
            late = job.deadline.seconds_late(self._worker.clock())
            job.is_late = late >= 0
            self._late += job.is_late
        return late

    def _refusal(self, job: TrackedJob, worker: TaskContext) -> str | None:
        """Return why the client may not run the task, None if it may; a verified client is named in the context.

        The refusal is recorded in the audit trail.
        """
        spec = job.spec
        if spec is None or not spec.restricted or self._admission is None:
            return None
        try:
            signer = self._admission.admit(
                *(job.client, job.uuid, job.request),
                names_actor=spec.audit is not None,
                revokes=spec.audit == "delete",
            )
        except AdmissionError as error:
            if worker.audit.refused(self._actor(job), str(error)):
                log.warning("job refused: %s", error)
            return str(error)
        except Exception as error:  # noqa: BLE001  fail closed, with an answer
            log.error("job refused: %s", type(error).__name__)
            return f"internal error in the admission of task {job.request.task[:64]}: {type(error).__name__}"
        if signer is not None and worker is not self._worker:
            worker.client = replace(self._actor(job), name=signer, authenticated="signature")
        return None

    def _record_unchanged(self, job: TrackedJob, worker: TaskContext, operation: Operation, result: Result) -> Result:
        """Write the audit line of a job that changed nothing; return the result, a failed one if that can't be done.

        The task itself writes the line of a change, before it is committed.
        """
        request = job.request
        try:
            worker.audit.log_failed_change(
                operation=operation,
                actor=worker.client,
                arguments=request.kwargs,
                result=result,
                is_token=worker.store.lookup,
            )
        except Exception as error:  # noqa: BLE001  the job needs a result
            reason = str(error) if isinstance(error, NfcliError) else type(error).__name__
            log.error("audit line of task %s, which changed nothing, not written: %s", request.task, reason)
            return result if result.failed else self._failure(job, reason)
        return result

    def _failure(self, job: TrackedJob, reason: str) -> Result:
        return Result(
            failed=True,
            errors=[reason],
            status=ResultStatus.ERROR,
            task=f"{self._worker.name}:{job.request.task}",
            service=self._worker.service,
            juuid=job.uuid,
        )

    def _discarded_result(self, job: TrackedJob) -> bytes:
        reason = "the job was run, but its result is no longer kept: check what it has changed"
        return to_json({self._worker.name: self._failure(job, reason)})

    def _complete(self, job: TrackedJob, payload: bytes, record: bytes) -> list[Deliver]:
        """Keep the result for later requests, within the limits; return the callbacks that wait for it."""
        job.state, job.payload, job.record, job.completed = JobState.COMPLETED, payload, record, time.time()
        job.events.clear()
        # Neither the arguments as they came, which may hold secrets, nor the callbacks are kept.
        job.request, job.notify = JobRequest(task=job.request.task), None
        waiting, job.waiting = job.waiting, []
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]
            self._finished.add(job)
        return waiting
