"""Jobs that come by way of a NorFab broker: what a worker answers to POST and GET.

Whatever goes wrong is told in a 200 with a failed result: a 4xx from one worker ends the job of NorFab's own client at
all the others.
"""

from __future__ import annotations

import logging
import threading
from functools import partial

from ...models.errors import ProtocolError, TaskError
from ...models.protocol.frames import Command, Status, WorkerJob, WorkerMessage, encode_data
from ...models.protocol.jobs import JobRequest, failed_result
from ..jobs.executor import JobExecutor, JobState
from ..jobs.task_context import TaskContext
from ..mailbox import Outbox

log = logging.getLogger(__name__)

MAX_JOB_BYTES = 1024 * 1024
"""As long as a message may be in direct mode."""

_NAME_CHARACTERS = 64


def client_name(client: str) -> str:
    """Return what the audit trail calls a client of the fabric: `fabric:` and the name that it gave itself.

    Nobody vouches for that name: whoever knows the broker's public key can connect under any.
    """
    text = client.encode("latin-1", errors="replace").decode(errors="replace")
    return "fabric:" + "".join(char if char.isprintable() else "?" for char in text[:_NAME_CHARACTERS])


class FabricJobs:
    """Takes jobs and puts what is to be sent into an outbox; used by the thread that empties it."""

    def __init__(self, worker: TaskContext, executor: JobExecutor, outbox: Outbox[WorkerMessage]) -> None:
        self._worker = worker
        self._executor = executor
        self._outbox = outbox

    def take(self, job: WorkerJob) -> None:
        """Run a job, or answer for one.

        Raises:
            ProtocolError: it can't be read; the sender has been told where it can be.
        """
        if not job.uuid:
            raise ProtocolError("the uuid is empty: answers could not be told apart")
        if job.command == Command.POST:
            self._run(job)
        elif job.command == Command.GET:
            self._answer_get(job)
        else:
            log.debug("PUT has no use here: dropped")

    def _run(self, job: WorkerJob) -> None:
        try:
            request = self._request(job.data)
        except ProtocolError as error:
            self._fail(job, str(error))
            raise
        if not self._worker.registry.runs_inline(request.task):
            self._say(job, Status.ACCEPTED, "ACCEPTED")
        client, uuid, size, taker = job.client, job.uuid, len(job.data), threading.current_thread()

        def reply(command: bytes, payload: bytes) -> None:
            message = WorkerMessage(command, client, uuid, Status.DONE, payload)
            self._outbox.put(message, wake=threading.current_thread() is not taker)

        deliver, notify = partial(reply, Command.RESPONSE), partial(reply, Command.EVENT)
        try:
            self._executor.submit(_key(client), uuid, request, deliver, notify=notify, size=size)
        except TaskError as error:
            self._fail(job, str(error), request.task)

    @staticmethod
    def _request(data: bytes) -> JobRequest:
        if len(data) > MAX_JOB_BYTES:
            raise ProtocolError(f"the job has {len(data)} bytes, more than {MAX_JOB_BYTES}, and was not run: split it")
        return JobRequest.parse(data)

    def _answer_get(self, job: WorkerJob) -> None:
        found = self._executor.find(_key(job.client), job.uuid)
        if found is None:
            reason = (
                "this worker knows no such job (it may have been restarted): look what was done before you repeat it"
            )
            self._fail(job, reason)
        elif found[0] is not JobState.COMPLETED:
            self._say(job, Status.PENDING, found[0].value)
        else:
            self._answer(job, Status.DONE, found[1] or b"{}")

    def _say(self, job: WorkerJob, status: Status, state: str) -> None:
        about = {"worker": self._worker.name, "uuid": job.uuid, "status": state, "service": self._worker.service}
        self._answer(job, status, encode_data(about))

    def _fail(self, job: WorkerJob, reason: str, task: str = "") -> None:
        name, service = self._worker.name, self._worker.service
        result = failed_result(reason, task=f"{name}:{task}", service=service, juuid=job.uuid)
        self._answer(job, Status.DONE, encode_data({name: result}))

    def _answer(self, job: WorkerJob, status: Status, data: bytes) -> None:
        self._outbox.put(WorkerMessage(Command.RESPONSE, job.client, job.uuid, status, data))


def _key(client: bytes) -> str:
    """Return an identity, which may be any bytes, as text that no other one has."""
    return client.decode("latin-1")
