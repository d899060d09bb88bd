"""Jobs of our client on the reference's workers: events, questions, and results later."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from nfcli import NorFab, Question
from support.norfab.observers import until
from support.norfab.sites import Gate
from support.workers import NfcliRunner

DEMO = "demo-worker-1"
APPROVE = ("run", "demo", "approve", "workers", DEMO)


@pytest.mark.parametrize(("answer", "result"), [("yes", True), ("no", False)])
def test_a_question_is_answered_by_the_command(tool_site: Any, nfcli: NfcliRunner, answer: str, result: bool) -> None:
    """Events and what was answered are on stderr, with severity and what they are about."""
    ran = nfcli(*APPROVE, "answer", answer, environment=tool_site.environment)
    assert (ran.returncode, json.loads(ran.stdout)) == (0, {DEMO: result})
    warning, answered, received = ran.stderr.splitlines()
    assert re.fullmatch(rf"[0-9:.]{{12}} WARNING  {DEMO} running sw1, sw2: two hosts differ", warning)
    assert answered == f"{DEMO} asks: Commit? answered {answer}"
    assert received.endswith(f"INFO     {DEMO} received: Commit?")


def test_a_script_that_carries_no_answer_is_refused(tool_site: Any, nfcli: NfcliRunner) -> None:
    """The task gets No, and the command fails."""
    ran = nfcli(*APPROVE, environment=tool_site.environment)
    assert (ran.returncode, json.loads(ran.stdout)) == (1, {DEMO: False})
    assert "refused, because nobody can be asked here: add answer yes or answer no" in ran.stderr


def test_python_answers_by_a_function_or_by_the_job(tool_site: Any) -> None:
    """The question has what the task would do."""
    questions: list[Question] = []

    def answer(question: Question) -> bool:
        questions.append(question)
        return True

    with NorFab(tool_site.environment.inventory_file) as norfab:
        client = norfab.make_client()
        results = client.run_job("demo", "approve", workers=DEMO, on_input=answer)
        job = client.submit_job("demo", "approve", workers=DEMO)
        for event in job.events():
            if event["event_type"] == "input_request":
                job.send_response(event["extras"]["input_request"]["id"], True, event["worker"])
        assert (results[DEMO]["result"], job.result()[DEMO]["result"]) == (True, True)
    (question,) = questions
    assert (question.worker, question.text, question.preview) == (DEMO, "Commit?", {"vlan": 10})


def test_results_and_events_are_shown_later(tool_site: Any, nfcli: NfcliRunner, gate: Gate) -> None:
    """By other processes than the one that sent the job."""

    def run(*words: str) -> tuple[int, str]:
        ran = nfcli(*words, environment=tool_site.environment)
        return ran.returncode, ran.stdout

    status, out = run("run", "demo", "walk", "steps", "1", "gate", str(gate.path), "workers", DEMO, "nowait")
    uuid = out.strip()
    assert (status, len(uuid)) == (0, 32)
    assert json.loads(run("show", "jobs", "uuid", uuid)[1])["workers"] == {DEMO: "started"}
    assert run("show", "jobs", "uuid", uuid, "result") == (1, "")
    gate.release_step()
    until(lambda: run("show", "jobs", "uuid", uuid, "result") == (0, f'{{\n    "{DEMO}": 1\n}}\n'), "the result")
    assert uuid in run("show", "jobs", "service", "demo")[1]
    status, out = run("show", "jobs", "uuid", uuid, "events", "|", "json")
    assert [row["message"] for row in json.loads(out)] == ["starting", "step 1 of 1", "completed"]
