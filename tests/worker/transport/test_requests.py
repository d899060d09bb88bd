"""The replies that no task makes, byte for byte, and the calls of the executor behind them."""

from __future__ import annotations

from typing import Any

import pytest

from nfcli.models.errors import TaskError
from nfcli.models.protocol.frames import Command, Status
from nfcli.models.protocol.jobs import JobRequest
from nfcli.worker.jobs.tracked_job import JobState
from nfcli.worker.transport.requests import BrokerBodies, DirectBodies, RequestDispatcher

DIRECT, BROKER = DirectBodies("w1", "fastmcp"), BrokerBodies("w1", "fastmcp")


class Executor:
    """An executor that knows one job, and refuses all others."""

    def __init__(self, known: tuple[JobState, bytes | None] | None = None) -> None:
        self._known = known

    def submit(self, *_arguments: Any, **_options: Any) -> None:
        """Refuse."""
        raise TaskError("no")

    def find(self, _client: str, _uuid: str) -> tuple[JobState, bytes | None] | None:
        """Return the job."""
        return self._known


def replies(bodies: Any, command: bytes, known: tuple[JobState, bytes | None] | None = None) -> list[Any]:
    """Return the replies to a request."""
    sent: list[Any] = []
    dispatcher = RequestDispatcher(Executor(known), bodies)  # type: ignore[arg-type]

    def reply(command: bytes, status: Status, payload: bytes) -> None:
        sent.append((command, status, payload))

    if command == Command.GET:
        dispatcher.get("c", "u1", reply)
    else:
        dispatcher.post("c", "u1", JobRequest(task="add"), reply, size=1)
    return sent


def test_states_are_replies_of_status_300() -> None:
    """The keys are in the order that each mode has always sent them in."""
    started = (JobState.STARTED, None)
    direct = b'{"worker":"w1","uuid":"u1","service":"fastmcp","status":"STARTED"}'
    broker = b'{"worker":"w1","uuid":"u1","status":"STARTED","service":"fastmcp"}'
    assert replies(DIRECT, Command.GET, started) == [(Command.RESPONSE, "300", direct)]
    assert replies(BROKER, Command.GET, started) == [(Command.RESPONSE, "300", broker)]


@pytest.mark.parametrize("bodies", [DIRECT, BROKER])
def test_results_are_passed_on_unchanged(bodies: Any) -> None:
    """With status 200."""
    assert replies(bodies, Command.GET, (JobState.COMPLETED, b"{1}")) == [(Command.RESPONSE, "200", b"{1}")]


def test_an_unknown_job_is_a_404_in_direct_mode_and_a_failed_result_at_a_broker() -> None:
    """A 404 from one worker would end the job of NorFab's own client at all the others."""
    body = b'{"worker":"w1","uuid":"u1","service":"fastmcp","status":"JOB NOT FOUND"}'
    assert replies(DIRECT, Command.GET) == [(Command.RESPONSE, "404", body)]
    ((_, status, payload),) = replies(BROKER, Command.GET)
    assert (status, payload.startswith(b'{"w1":{"result":null,"failed":true,')) == ("200", True)


def test_a_refused_job_is_a_400_in_direct_mode_and_a_failed_result_at_a_broker() -> None:
    """With the reason, and the task where the result has one."""
    body = (
        b'{"workers":null,"worker":"w1","uuid":"u1","target":"","status":"FAILED","service":"fastmcp",'
        b'"error":"no","errors":["no"]}'
    )
    assert replies(DIRECT, Command.POST) == [(Command.RESPONSE, "400", body)]
    ((_, status, payload),) = replies(BROKER, Command.POST)
    assert (status, b'"errors":["no"]' in payload, b'"task":"w1:add"' in payload) == ("200", True, True)
