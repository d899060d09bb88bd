"""Questions of a task and their answers as frames, directly and through a broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from nfcli.models.environment.curve_keys import ensure_key_pair
from nfcli.models.protocol.frames import BrokerMessage, ClientMessage, Command, encode_data
from nfcli.worker.transport.broker_jobs import MAX_JOB_BYTES
from support.direct_server import WAIT_MILLISECONDS

MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b"\xff\xfe",
    b'{"offset":4096}',
    b'{"input_id":1,"value":true}',
    b'{"input_id":"","value":true}',
    b'{"input_id":"x","value":true}',
    b'{"input_id":"x","cancel":1}',
    b'{"input_id":"x","value":"' + b"v" * (MAX_JOB_BYTES - 100) + b'"}',
]


class Talk:
    """What one client sends, and what comes to it, as frames."""

    def __init__(self, dealer: zmq.Socket[bytes]) -> None:
        self._dealer = dealer

    def send(self, command: bytes, uuid: str, data: Any) -> None:
        """Send a message to w1; `data` is JSON or bytes as they are."""
        encoded = data if isinstance(data, bytes) else encode_data(data)
        self._dealer.send_multipart(ClientMessage(command, "fastmcp", b'["w1"]', uuid, encoded).frames())

    def next(self) -> tuple[str, Any]:
        """Return status and data of the next message that isn't an acknowledgement; of an event, its type and data."""
        while True:
            assert self._dealer.poll(WAIT_MILLISECONDS), "nothing comes"
            message = BrokerMessage.parse(self._dealer.recv_multipart())
            data = json.loads(message.data)
            if message.command == Command.EVENT and data["message"] not in {"starting", "completed"}:
                return data["event_type"], data
            if message.command == Command.RESPONSE and message.status not in {"201", "202"}:
                return message.status, data

    def ask(self, uuid: str = "u1") -> str:
        """Send the job that asks; return the id of its question."""
        self.send(Command.POST, uuid, {"task": "ask"})
        kind, event = self.next()
        assert kind == "input_request"
        return str(event["extras"]["input_request"]["id"])

    def answer(self, input_id: str, *, uuid: str = "u1", **more: Any) -> None:
        """Answer a question in the shape of NorFab's client."""
        self.send(Command.PUT, uuid, {"input_id": input_id, "value": True, "cancel": False, "metadata": {}} | more)

    def sees(self, kind: str, status: str) -> None:
        """Check the next message, an event."""
        found, event = self.next()
        assert (found, event["status"]) == (kind, status)

    def result(self) -> Any:
        """Return the result of w1, which must be what comes next."""
        status, data = self.next()
        assert status == "200"
        return data["w1"]


@pytest.fixture(params=["direct", "broker"])
def connect(request: pytest.FixtureRequest) -> Callable[[str], Talk]:
    """Connect clients by name, to a worker itself or to its broker."""
    if request.param == "broker":
        request.getfixturevalue("joined")
        join = request.getfixturevalue("connect_client")
        return lambda name: Talk(join(name.encode()).dealer)
    server, reach = request.getfixturevalue("server"), request.getfixturevalue("connect_peer")

    def connect_directly(name: str) -> Talk:
        keys = ensure_key_pair(server.environment.folder, name)
        public = (server.environment.folder / f"{name}.key").read_text()
        authorized = server.environment.clients_folder / f"{name}.key"
        authorized.touch(0o600)
        authorized.write_text(public)
        return Talk(reach(keys).dealer)

    return connect_directly


@pytest.mark.parametrize("value", [True, False])
def test_a_put_answers_a_question(connect: Callable[[str], Talk], value: bool) -> None:
    """The task has the answer at once, and the client hears that it was taken."""
    client = connect("ann")
    client.answer(client.ask(), value=value)
    client.sees("input_response", "received")
    assert client.result()["result"] is value


def test_a_get_has_the_question(connect: Callable[[str], Talk]) -> None:
    """102, for clients that have missed the event; NorFab's ask every 10 s."""
    client = connect("ann")
    input_id = client.ask()
    client.send(Command.GET, "u1", {})
    status, data = client.next()
    request = data.pop("input_request")
    assert (status, data) == (
        "102",
        {"worker": "w1", "uuid": "u1", "service": "fastmcp", "status": "WAITING_CLIENT_INPUT"},
    )
    assert (request["id"], request["question"]) == (input_id, "Commit?")
    assert request["metadata"] == {"preview": "+vlan 5"}
    client.answer(input_id, cancel=True)
    client.sees("input_response", "cancelled")
    assert client.result()["result"] is False


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_answer_does_nothing(connect: Callable[[str], Talk], data: bytes) -> None:
    """It draws no reply, which would end the job at its client; the right answer still counts."""
    client = connect("ann")
    input_id = client.ask()
    client.send(Command.PUT, "u1", data)
    client.send(Command.PUT, "no-such-job", data)
    client.answer(input_id)
    client.sees("input_response", "received")
    assert client.result()["result"] is True


def test_an_answer_that_comes_late_or_twice_does_nothing(connect: Callable[[str], Talk]) -> None:
    """Neither to the job that it was for nor to the next one."""
    client = connect("ann")
    first = client.ask()
    client.answer(first, value=False)
    client.answer(first, value=True)
    client.sees("input_response", "received")
    assert client.result()["result"] is False
    client.answer(first, value=True)
    second = client.ask("u2")
    client.answer(first, value=True, uuid="u2")
    client.answer(second, value=False, uuid="u2")
    client.sees("input_response", "received")
    assert client.result()["result"] is False


def test_the_answer_of_another_client_does_nothing(connect: Callable[[str], Talk]) -> None:
    """It knows the uuid and the question's id, and has a job of the same uuid."""
    ann, eve = connect("ann"), connect("eve")
    of_ann, of_eve = ann.ask(), eve.ask()
    eve.answer(of_ann)
    eve.answer("", cancel=True, uuid="u2")
    eve.answer(of_eve, value=True)
    eve.sees("input_response", "received")
    assert eve.result()["result"] is True
    ann.answer(of_ann, value=False)
    ann.sees("input_response", "received")
    assert ann.result()["result"] is False


def test_a_client_cancels_its_job(connect: Callable[[str], Talk]) -> None:
    """With an answer to no question."""
    client = connect("ann")
    client.ask()
    client.answer("", cancel=True)
    client.sees("input_response", "cancelled")
    assert client.result()["errors"] == ["the job was cancelled by its client"]
