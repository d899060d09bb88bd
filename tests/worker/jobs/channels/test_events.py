"""Events of a task, as the client gets them."""

from __future__ import annotations

import json
from queue import SimpleQueue
from typing import Any

import pytest

from nfcli.models.errors import TaskError
from nfcli.models.protocol.jobs import JobRequest
from nfcli.worker.jobs.channels.base import MAX_LINE_CHARACTERS, MAX_RESOURCES, TaskEvent
from support.job_bench import WAIT_SECONDS, JobBench


def test_an_event_has_severity_status_and_resource(bench: JobBench) -> None:
    """As NorFab's workers send it; what isn't given is as for a line of progress."""
    events = _events_of(
        bench,
        {"message": "plain"},
        {"message": "r1 is down", "severity": "warning", "status": "failed", "resource": "r1"},
        {"message": "two", "resource": ["r1", "r2\n"]},
    )
    seen = [(each["message"], each["severity"], each["status"], each["resource"]) for each in events]
    assert seen == [
        ("plain", "INFO", "running", []),
        ("r1 is down", "WARNING", "failed", "r1"),
        ("two", "INFO", "running", ["r1", "r2"]),
    ]
    assert {each["event_type"] for each in events} == {"progress"}


def test_an_event_is_bounded() -> None:
    """A task may pass whatever it has."""
    event = TaskEvent("x\n" * 10**6, resource=["y" * 5_000] * 500).checked()
    assert len(event.message) <= MAX_LINE_CHARACTERS
    assert [len(each) for each in event.resource] == [MAX_LINE_CHARACTERS] * MAX_RESOURCES


@pytest.mark.parametrize("wrong", [{"severity": "LOUD"}, {"status": "busy"}])
def test_an_event_of_no_known_kind_is_refused(wrong: dict[str, Any]) -> None:
    """The author sees the names there are."""
    with pytest.raises(TaskError, match=r"of an event must be one of .*, got '(LOUD|busy)'"):
        TaskEvent("x", **wrong).checked()


def _events_of(bench: JobBench, *events: dict[str, Any]) -> list[dict[str, Any]]:

    def tell(worker: Any, _arguments: Any) -> None:
        for event in events:
            worker.event(**event)

    spec = bench.worker.registry.get("report")
    bench.worker.registry.add(type(spec)("tell", tell, spec.input_model, Any, None))
    done: SimpleQueue[bytes] = SimpleQueue()
    told: list[dict[str, Any]] = []
    request = JobRequest(task="tell")
    bench.executor.submit("c", "u1", request, done.put, notify=lambda payload: told.append(json.loads(payload)))
    assert not json.loads(done.get(timeout=WAIT_SECONDS))["w1"]["failed"]
    return [each for each in told if each["message"] not in {"starting", "completed"}]
