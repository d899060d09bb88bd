"""Questions of a worker of ours, answered by NorFab's own client beside its broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.norfab.sites import EnvironmentJoiner
from support.workers import WorkerRunner

WORKER = "asking-worker-1"
PLUGIN = '''
from nfcli import TaskInput, WorkerContext, task

class Ask(TaskInput):
    default: bool | int | str = False
    timeout: int = 60

@task(arguments=Ask)
def change(worker: WorkerContext, arguments: Ask) -> object:
    """Change a device if the client agrees."""
    worker.event("r1 is compared", severity="WARNING", resource=["r1"])
    preview = {"r1": "+ vlan 5"}
    return worker.request_input("Commit?", arguments.default, arguments.timeout, {"preview": preview})
'''


@pytest.fixture(scope="module")
def client(fabric: Any, joined_environment: EnvironmentJoiner, running_worker: WorkerRunner) -> Iterator[Any]:
    """Run a worker with a plugin that asks; return NorFab's client."""
    environment = joined_environment(fabric, WORKER, plugins=["asking"])
    (environment.folder / "asking.py").write_text(PLUGIN, encoding="utf-8")
    with running_worker(environment, WORKER):
        fabric.await_workers(WORKER)
        yield fabric.client


def _asked(client: Any, uuid: str, **kwargs: Any) -> dict[str, Any]:
    """Submit the job; return its question."""
    client.call("submit_job", service="fastmcp", task="change", workers=[WORKER], kwargs=kwargs, uuid=uuid)
    start, compared, asked = (client.call("next_event", uuid=uuid) for _ in range(3))
    assert start["message"] == "starting"
    assert (compared["severity"], compared["resource"], compared["worker"]) == ("WARNING", ["r1"], WORKER)
    assert (asked["event_type"], asked["status"]) == ("input_request", "waiting_client_input")
    return dict(asked["extras"]["input_request"])


@pytest.mark.parametrize(
    ("default", "given", "result"),
    [
        (False, {"value": True}, True),
        (True, {"value": False}, False),
        (5, {"value": "7"}, 7),
        ("a", {"value": "b"}, "b"),
    ],
)
def test_their_client_answers(client: Any, default: Any, given: dict[str, Any], result: Any) -> None:
    """It sees question and preview, and the job completes with its answer."""
    uuid = f"answered-{default}"
    asked = _asked(client, uuid, default=default)
    assert (asked["question"], asked["default"]) == ("Commit?", default)
    assert 1 <= asked["timeout"] <= 20, "for as long as the client waits for the job"
    assert asked["metadata"] == {"preview": {"r1": "+ vlan 5"}}
    client.call("answer", uuid=uuid, input_id=asked["id"], **given)
    end = client.call("end_job", uuid=uuid)
    assert (end["state"], end["result"][WORKER]["result"]) == ("COMPLETED", result)
    assert [(event["event_type"], event["status"]) for event in end["events"]][:1] == [("input_response", "received")]


def test_their_client_declines(client: Any) -> None:
    """That is no."""
    asked = _asked(client, "declined")
    client.call("answer", uuid="declined", input_id=asked["id"], value=None, cancel=True)
    assert client.call("end_job", uuid="declined")["result"][WORKER]["result"] is False


def test_their_client_says_nothing(client: Any) -> None:
    """That is no too, and the job of their client completes."""
    _asked(client, "silent", default=True, timeout=1)
    end = client.call("end_job", uuid="silent")
    assert (end["state"], end["result"][WORKER]["result"]) == ("COMPLETED", False)
    assert end["events"][0]["status"] == "timeout"


def test_their_client_asks_for_the_state_and_gets_the_question(client: Any) -> None:
    """As it does every 10 s: it shows a question that it has missed."""
    asked = _asked(client, "polled")
    dispatched, state = client.call("get", service="fastmcp", workers=[WORKER], uuid="polled")
    assert (dispatched[0], state[0]) == ("202", "102")
    assert (state[1]["status"], state[1]["input_request"]) == ("WAITING_CLIENT_INPUT", asked)
    client.call("answer", uuid="polled", input_id="of another question", value=True)
    client.call("answer", uuid="polled", input_id=asked["id"], value=True)
    assert client.call("end_job", uuid="polled")["result"][WORKER]["result"] is True
