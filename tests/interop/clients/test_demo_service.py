"""The service that tests of discovery and policy meet, as the reference's own client sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.norfab.sites import FabricMaker, Gate

WORKER = "demo-worker-1"
MUTE, MUMBLING = "mute-worker-1", "mute-worker-2"
MUTE_SECONDS = 2


def _run(fabric: Any, task: str, *, service: str = "demo", **job: Any) -> dict[str, Any]:
    done = fabric.client.call("run_job", service=service, task=task, **job)
    assert done["state"] == "COMPLETED"
    ended: dict[str, Any] = {**done, **done["result"][WORKER]}
    return ended


def test_its_tasks_do_what_they_say(fabric: Any) -> None:
    """One repeats, two fail, one with an error and one without."""
    assert _run(fabric, "say", kwargs={"text": "ho", "times": 3})["result"] == {"text": "hohoho", "worker": WORKER}
    stumbled = _run(fabric, "stumble", kwargs={"reason": "a root"})
    assert (stumbled["failed"], stumbled["messages"]) == (True, ["Worker experienced error: 'stumbled over a root'"])
    refused = _run(fabric, "refuse", kwargs={"reason": "not today"})
    assert (refused["failed"], refused["errors"], refused["result"]) == (True, ["not today"], None)


def test_its_long_task_goes_on_when_the_test_says(fabric: Any, gate: Gate) -> None:
    """An event for each step; the test decides when the next one comes."""
    kwargs = {"steps": 2, "gate": str(gate.path)}
    fabric.client.call("submit_job", service="demo", task="walk", uuid="w1", kwargs=kwargs)
    assert fabric.client.call("next_event", uuid="w1")["message"] == "starting"
    for step in ("step 1 of 2", "step 2 of 2"):
        event = fabric.client.call("next_event", uuid="w1")
        assert (event["message"], event["status"], event["worker"]) == (step, "running", WORKER)
        assert fabric.client.call("get", service="demo", workers=[WORKER], uuid="w1")[1][0] == "300"
        gate.release_step()
    done = fabric.client.call("end_job", uuid="w1")
    assert (done["state"], done["result"][WORKER]["result"]) == ("COMPLETED", 2)


def test_its_tasks_say_what_discovery_looks_at(fabric: Any) -> None:
    """Annotations, prompts and guardrails are in the entries; one task is kept from MCP clients."""
    entries = {entry["name"]: entry for entry in _run(fabric, "list_tasks")["result"]}
    assert {"say", "stumble", "refuse", "walk", "hide", "advise", "bearer_token_show", "run_shell_cmd"} <= set(entries)
    assert entries["hide"]["mcp"] is False
    assert entries["stumble"]["mcp"] == {}
    assert entries["say"]["mcp"]["annotations"]["title"] == "Say"
    assert entries["say"]["inputSchema"]["required"] == ["text"]
    advise = entries["advise"]["mcp"]
    assert advise.keys() == {"annotations", "prompts", "guardrails", "result_guardrails"}
    assert [argument["name"] for argument in advise["prompts"][0]["arguments"]] == ["topic", "tone"]


@pytest.fixture(scope="module")
def mute_fabric(new_fabric: FabricMaker) -> Iterator[Any]:
    """Run a service that doesn't list its tasks, one that lists nothing that fits, and one that others hide in."""
    workers = {
        MUTE: {"service": "mute"},
        MUMBLING: {"service": "mumble", "answer": ["mm"]},
        WORKER: {"service": "second"},
    }
    plugins = {"second": "demo", "mumble": "mute"}
    with new_fabric(workers, services=plugins) as fabric:
        fabric.start(*workers)
        yield fabric


def test_a_mute_service_does_not_say_what_it_can_do(mute_fabric: Any) -> None:
    """It takes the job and lets it be."""
    done = mute_fabric.client.call("run_job", service="mute", task="list_tasks", timeout=MUTE_SECONDS)
    assert (done["state"], done["result"][MUTE]["status"]) == ("STALE", "timeout")


def test_a_service_whose_answers_are_malformed_is_reported(mute_fabric: Any) -> None:
    """Its inventory has the words."""
    done = mute_fabric.client.call("run_job", service="mumble", task="list_tasks")
    assert done["result"][MUMBLING]["result"] == ["mm"]


def test_further_services_have_the_tasks_of_the_demo(mute_fabric: Any) -> None:
    """The fabric that a test makes may have any number of them."""
    assert _run(mute_fabric, "say", service="second", kwargs={"text": "x"})["service"] == "second"
