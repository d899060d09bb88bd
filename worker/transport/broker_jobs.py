"""Jobs that a NorFab broker relays: requests in, replies out through the mailbox of the thread that sends them."""

from __future__ import annotations

import logging
import threading

from ...models.errors import ProtocolError
from ...models.mailbox import Mailbox
from ...models.protocol.frames import Command, Status, WorkerJob, WorkerMessage
from ...models.protocol.jobs import JobRequest
from ..jobs.executor import JobExecutor
from ..jobs.task_context import TaskContext
from .requests import BrokerBodies, RequestDispatcher, SendReply

log = logging.getLogger(__name__)

MAX_JOB_BYTES = 1024 * 1024
"""The same as the limit on messages in direct mode."""

_NAME_CHARACTERS = 64


def fabric_client_name(client: str) -> str:
    """Return the audit trail's name of a client of the fabric: `fabric:` and the name that it gave itself.

    That name isn't authenticated: whoever knows the broker's public key can connect under any.
    """
    text = client.encode("latin-1", errors="replace").decode(errors="replace")
    return "fabric:" + "".join(char if char.isprintable() else "?" for char in text[:_NAME_CHARACTERS])


class IncomingJobs:
    """Answers the requests of one broker connection; used by the thread that empties the mailbox."""

    def __init__(self, worker: TaskContext, executor: JobExecutor, mailbox: Mailbox[WorkerMessage]) -> None:
        self._registry = worker.registry
        self._mailbox = mailbox
        self._bodies = BrokerBodies(worker.name, worker.service)
        self._requests = RequestDispatcher(executor, self._bodies)

    def handle(self, job: WorkerJob, waited_seconds: float = 0.0) -> None:
        """Answer a request that may have been here unread for `waited_seconds`.

        Raises:
            ProtocolError: it can't be parsed, or is an answer to no question; the client has been sent the reason if it
                is a job with a uuid.
        """
        if not job.uuid:
            raise ProtocolError("the uuid is empty: replies could not be matched to requests")
        # A routing id may be any bytes: Latin-1 makes different texts of different ones.
        client, reply = job.client.decode("latin-1"), self._reply_to(job.client, job.uuid)
        if job.command == Command.POST:
            self._post(client, job, reply, waited_seconds)
        elif job.command == Command.GET:
            self._requests.get(client, job.uuid, reply)
        else:
            self._requests.put(client, job.uuid, _bounded(job.data))

    def _post(self, client: str, job: WorkerJob, reply: SendReply, waited_seconds: float) -> None:
        try:
            request = JobRequest.parse(_bounded(job.data))
        except ProtocolError as error:
            reply(Command.RESPONSE, *self._bodies.failure(job.uuid, str(error)))
            raise
        spec = self._registry.find(request.task)
        if spec is None or not spec.run_inline:
            reply(Command.RESPONSE, Status.ACCEPTED, self._bodies.state(job.uuid, "ACCEPTED"))
        size = len(job.data)
        self._requests.post(client, job.uuid, request, reply, size=size, waited_seconds=waited_seconds)

    def _reply_to(self, client: bytes, uuid: str) -> SendReply:
        """Return what sends to a client; it must not refer to the whole job, which a waiting one would keep."""
        mailbox, owner = self._mailbox, threading.current_thread()

        def reply(command: bytes, status: Status, payload: bytes) -> None:
            message = WorkerMessage(command, client, uuid, status, payload)
            mailbox.put(message, wake=threading.current_thread() is not owner)

        return reply


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_JOB_BYTES:
        raise ProtocolError(f"the job has {len(data)} bytes, more than {MAX_JOB_BYTES}, and was not run: split it")
    return data
