"""Turn clients' POST, GET and PUT requests into calls of the executor, and send the results as replies.

Direct mode and a broker connection frame the same replies differently, and differ in the JSON of replies that no
task makes: direct mode serves nfcli's clients, and a broker relays to NorFab's own clients as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ...models.errors import ProtocolError, TaskError
from ...models.protocol.frames import Command, Status, decode_data, encode_data
from ...models.protocol.jobs import JobRequest, failed_result
from ...models.protocol.questions import InputAnswer
from ..jobs.executor import JobExecutor
from ..jobs.tracked_job import JobState

SendReply = Callable[[bytes, Status, bytes], None]
"""Sends a reply to one request: command, status and JSON. Any thread may call it; it neither blocks nor raises."""


class DirectBodies:
    """Replies of direct mode, which are a broker's: requests that can't be served get a 4xx."""

    def __init__(self, worker: str, service: str) -> None:
        self._worker = worker
        self._service = service

    def state(self, uuid: str, state: str) -> bytes:
        """Return the JSON of a job-state reply."""
        return encode_data({"worker": self._worker, "uuid": uuid, "service": self._service, "status": state})

    def waiting(self, uuid: str, question: bytes) -> bytes:
        """Return the JSON of the reply to a GET for a job that waits for an answer; `question` is a request's JSON."""
        body = {"worker": self._worker, "uuid": uuid, "service": self._service, "status": JobState.WAITING.value}
        return encode_data({**body, "input_request": decode_data(question)})

    def unknown_job(self, uuid: str) -> tuple[Status, bytes]:
        """Return the reply to a GET for an unknown job."""
        return Status.NOT_FOUND, self.state(uuid, "JOB NOT FOUND")

    def failure(self, uuid: str, reason: str, task: str = "") -> tuple[Status, bytes]:  # noqa: ARG002  not in the body
        """Return the reply to a refused request."""
        return Status.BAD_REQUEST, self.failure_body(uuid, reason)

    def failure_body(self, uuid: str, reason: str, target: str = "") -> bytes:
        """Return the JSON of a reply to a refused request; `target` is what it was sent to, if that is the reason."""
        body = {
            "workers": None,
            "worker": self._worker,
            "uuid": uuid,
            "target": target,
            "status": "FAILED",
            "service": self._service,
            "error": reason,
            "errors": [reason],
        }
        return encode_data(body)


class BrokerBodies(DirectBodies):
    """Replies by way of a broker.

    Whatever is refused gets a 200 with a failed result: a 4xx from one worker ends the job of NorFab's own client at
    all the others.
    """

    def state(self, uuid: str, state: str) -> bytes:
        """Return the JSON of a job-state reply."""
        return encode_data({"worker": self._worker, "uuid": uuid, "status": state, "service": self._service})

    def unknown_job(self, uuid: str) -> tuple[Status, bytes]:
        """Return the reply to a GET for an unknown job."""
        reason = "this worker knows no such job (it may have been restarted): check what was done before you repeat it"
        return self.failure(uuid, reason)

    def failure(self, uuid: str, reason: str, task: str = "") -> tuple[Status, bytes]:
        """Return the reply to a refused request."""
        result = failed_result(reason, task=f"{self._worker}:{task}", service=self._service, juuid=uuid)
        return Status.DONE, encode_data({self._worker: result})


class RequestDispatcher:
    """Answers POST, GET and PUT; used by the thread that receives requests."""

    def __init__(self, executor: JobExecutor, bodies: DirectBodies) -> None:
        self._executor = executor
        self._bodies = bodies

    def post(
        self,
        client: str,
        uuid: str,
        request: JobRequest,
        reply: SendReply,
        *,
        size: int,
        peer: str = "",
        waited_seconds: float = 0.0,
    ) -> None:
        """Submit a job; its events and its result, or why it is refused, go to `reply`.

        `client` is the key that the executor tells clients apart by, `size` the bytes of the request, `peer` where it
        came from, as libzmq reports it, `waited_seconds` for how long it may have been here unread.
        """
        deliver, notify = partial(reply, Command.RESPONSE, Status.DONE), partial(reply, Command.EVENT, Status.DONE)
        try:
            self._executor.submit(
                *(client, uuid, request, deliver),
                notify=notify,
                size=size,
                peer=peer,
                waited_seconds=waited_seconds,
            )
        except TaskError as error:
            reply(Command.RESPONSE, *self._bodies.failure(uuid, str(error), request.task))

    def put(self, client: str, uuid: str, data: bytes) -> None:
        """Answer a question of a client's job, or cancel the job.

        There is no reply: a refusal of an answer that came late would end the job at NorFab's clients.

        Raises:
            ProtocolError: the data is no answer, or the answer counts for nothing.
        """
        try:
            self._executor.answer(client, uuid, InputAnswer.parse(data))
        except TaskError as error:
            raise ProtocolError(f"answer refused: {error}") from None

    def get(self, client: str, uuid: str, reply: SendReply) -> None:
        """Reply with a job's result, or with its state while it is queued or running."""
        found = self._executor.find(client, uuid)
        if found is None:
            status, body = self._bodies.unknown_job(uuid)
        elif found[0] is JobState.WAITING and found[1] is not None:
            status, body = Status.WAITING_CLIENT_INPUT, self._bodies.waiting(uuid, found[1])
        elif found[0] is not JobState.COMPLETED:
            status, body = Status.PENDING, self._bodies.state(uuid, found[0].value)
        else:
            status, body = Status.DONE, found[1] or b"{}"
        reply(Command.RESPONSE, status, body)
