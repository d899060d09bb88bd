"""Services that join a NorFab fabric and answer `list_tasks`: many of them in one process, each with many tasks.

    python many_services.py ENDPOINT KEY SERVICES TASKS

ENDPOINT and KEY are the broker's; the end of stdin ends it. Says `joined` when all have sent READY.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import zmq

from nfcli.models.environment.curve_keys import KeyPair
from nfcli.models.errors import ProtocolError
from nfcli.models.protocol.broker_connection import BrokerAddress, BrokerConnection
from nfcli.models.protocol.broker_key import BrokerKey
from nfcli.models.protocol.broker_replies import KEEPALIVE_SECONDS
from nfcli.models.protocol.frames import (
    WORKER_HEADER,
    Command,
    Signal,
    WorkerJob,
    WorkerMessage,
    decode_object,
    encode_data,
)
from nfcli.models.protocol.jobs import JobRequest, Result

JOIN_SECONDS = 30.0


class Service:
    """One worker of a service of its own."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: BrokerAddress, name: str, tasks: int) -> None:
        self._name = f"{name}-worker-1"
        self._service = name
        self._entries = [_entry(number) for number in range(tasks)]
        keys = KeyPair(*zmq.curve_keypair())
        self.link = BrokerConnection(context, address, name=self._name.encode(), keys=keys)

    def join(self) -> None:
        """Register."""
        self.link.wait_until_up(time.monotonic() + JOIN_SECONDS)
        while not self.signal(Command.READY):
            self.link.wait(time.monotonic() + JOIN_SECONDS, until_writable=True)

    def signal(self, command: bytes) -> bool:
        """Send READY or KEEPALIVE."""
        return self.link.send(Signal(WORKER_HEADER, command, self._service).frames())

    def serve(self) -> None:
        """Answer what has come."""
        for frames in self.link.messages():
            try:
                job = WorkerJob.parse(frames)
            except ProtocolError:  # a keepalive
                continue
            if job.command == Command.POST:
                answer = encode_data({self._name: self._result(JobRequest.model_validate(decode_object(job.data)))})
                self.link.send(WorkerMessage(Command.RESPONSE, job.client, job.uuid, "200", answer).frames())

    def _result(self, request: JobRequest) -> dict[str, Any]:
        value = self._entries if request.task == "list_tasks" else request.kwargs
        return Result(result=value, service=self._service, task=request.task).model_dump(mode="json")


def _entry(number: int) -> dict[str, Any]:
    """Return a `list_tasks` entry of usual size."""
    fields = {
        f"argument_{each}": {"type": "string", "description": f"What the task needs to know, part {each}"}
        for each in range(6)
    }
    result = Result.model_json_schema(mode="serialization")
    return {
        "name": f"task_{number}",
        "description": f"Does the work that is numbered {number}, on all devices that its arguments select.",
        "inputSchema": {"type": "object", "properties": fields, "required": ["argument_0"]},
        "outputSchema": result,
        "fastapi": {"methods": ["POST"]},
        "mcp": {"annotations": {"title": f"Task {number}", "readOnlyHint": True}},
        "agent": {},
    }


def main() -> None:
    """Join, and serve until stdin ends."""
    endpoint, key, services, tasks = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    address = BrokerAddress(endpoint, BrokerKey(key, "argument"))
    joined = [Service(context, address, f"crowd{number}", tasks) for number in range(services)]
    for each in joined:
        each.join()
    sys.stdout.write("joined\n")
    sys.stdout.flush()
    poller = zmq.Poller()
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    for each in joined:
        poller.register(each.link.dealer, zmq.POLLIN)
    next_keepalive = time.monotonic()
    while sys.stdin.fileno() not in dict(poller.poll(100)):
        if time.monotonic() >= next_keepalive:
            next_keepalive += KEEPALIVE_SECONDS
            for each in joined:
                each.signal(Command.KEEPALIVE)
        for each in joined:
            each.serve()
    for each in joined:
        each.link.close()
    context.destroy(linger=0)


if __name__ == "__main__":
    main()
