"""Questions of a job: who may answer them, what an answer does, and what ends the wait for one."""

from __future__ import annotations

import json
import threading
from queue import SimpleQueue
from typing import Any

import pytest

from nfcli.models.errors import TaskError
from nfcli.models.protocol.jobs import JobRequest
from nfcli.models.protocol.questions import InputAnswer
from nfcli.worker.jobs.channels.question import MAX_METADATA_BYTES, MAX_TIMEOUT_SECONDS
from nfcli.worker.jobs.lane_threads import (
    MAX_WITHOUT_PLACE,
    MAX_WITHOUT_PLACE_PER_CLIENT,
    THREADS,
    THREADS_PER_CLIENT,
)
from nfcli.worker.jobs.tracked_job import JobState
from support.job_bench import WAIT_SECONDS, JobBench


class Asked:
    """A client's job whose task asks; `events` get those of the job, `results` its result."""

    def __init__(self, bench: JobBench, uuid: str = "u1", client: str = "c", **request: Any) -> None:
        self.bench, self.uuid, self.client = bench, uuid, client
        self.events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.results: SimpleQueue[dict[str, Any]] = SimpleQueue()
        task = request.pop("task", "ask")
        timeout = request.pop("job_timeout", None)
        bench.executor.submit(
            *(client, uuid, JobRequest(task=task, kwargs=request, timeout=timeout)),
            lambda payload: self.results.put(json.loads(payload)["w1"]),
            notify=self._note,
        )

    def _note(self, payload: bytes) -> None:
        event = json.loads(payload)
        if event["event_type"] != "result_ready":
            self.events.put(event)

    def event(self) -> dict[str, Any]:
        """Return the next event that isn't that of the start."""
        event = self.events.get(timeout=WAIT_SECONDS)
        return self.event() if event["message"] == "starting" else event

    def question(self) -> dict[str, Any]:
        """Wait for the question; return it."""
        event = self.event()
        assert (event["event_type"], event["status"]) == ("input_request", "waiting_client_input")
        question: dict[str, Any] = event["extras"]["input_request"]
        return question

    def answer(self, value: object = None, *, cancel: bool = False, of: str | None = None, client: str = "") -> None:
        """Answer the question `of`, by default the one that is read next."""
        given = InputAnswer(input_id=self.question()["id"] if of is None else of, value=value, cancel=cancel)
        self.bench.executor.answer(client or self.client, self.uuid, given)

    def result(self) -> dict[str, Any]:
        """Wait for the result."""
        return self.results.get(timeout=WAIT_SECONDS)


def test_a_question_and_its_end_are_events_in_the_references_shape(bench: JobBench) -> None:
    """Their keys and values are those of NorFab 0.25.0's workers."""
    asked = Asked(bench, question="Commit?", timeout=30, metadata={"preview": {"r1": "+vlan 5"}})
    begin = asked.event()
    question = begin["extras"]["input_request"]
    about = {"worker": "w1", "service": "demo", "uuid": "u1", "task": "ask", "message": "Commit?"}
    about |= {"resource": [], "severity": "INFO", "timestamp": begin["timestamp"]}  # type: ignore[dict-item]
    assert begin == {
        **about,
        "event_type": "input_request",
        "status": "waiting_client_input",
        "timeout": 30,
        "extras": {
            "input_request": {
                "id": question["id"],
                "question": "Commit?",
                "default": False,
                "timeout": 30,
                "metadata": {"preview": {"r1": "+vlan 5"}},
            }
        },
    }
    asked.answer(True, of=question["id"])
    end = asked.event()
    assert end == {
        **about,
        "timestamp": end["timestamp"],
        "event_type": "input_response",
        "status": "received",
        "extras": {"input_response": {"input_id": question["id"], "metadata": {}}},
    }
    assert asked.result()["result"] is True


@pytest.mark.parametrize(
    ("default", "value", "result"),
    [
        (False, True, True),
        (True, False, False),
        (5, 7, 7),
        (5, "8", 8),
        (0.5, 2, 2.0),
        ("a", "b", "b"),
        (None, "c", "c"),
    ],
)
def test_a_task_gets_the_answer(bench: JobBench, default: Any, value: Any, result: Any) -> None:
    """Of the type of the default."""
    asked = Asked(bench, default=default)
    asked.answer(value)
    assert asked.result()["result"] == result


@pytest.mark.parametrize(("default", "result"), [(False, False), (True, False), (5, 5), ("a", "a"), (None, None)])
def test_a_client_that_declines_says_no(bench: JobBench, default: Any, result: Any) -> None:
    """And leaves the default where no isn't an answer."""
    asked = Asked(bench, default=default)
    asked.answer(cancel=True)
    assert asked.event()["status"] == "cancelled"
    assert asked.result()["result"] == result


def test_silence_is_no(bench: JobBench) -> None:
    """Whatever the default of the question; an answer that comes later is refused."""
    asked = Asked(bench, default=True, timeout=1)
    question = asked.question()
    assert asked.event()["status"] == "timeout"
    assert asked.result()["result"] is False
    with pytest.raises(TaskError, match="no running job"):
        asked.answer(True, of=question["id"])


@pytest.mark.parametrize("value", ["yes", 1, None, {}, "true"])
def test_an_answer_of_another_kind_leaves_the_question_open(bench: JobBench, value: Any) -> None:
    """The client gets the reason, and can answer again."""
    asked = Asked(bench)
    question = asked.question()
    with pytest.raises(TaskError, match="true or false"):
        asked.answer(value, of=question["id"])
    told = asked.event()
    assert (told["severity"], told["message"]) == ("WARNING", "the answer must be true or false: Commit?")
    asked.answer(True, of=question["id"])
    assert asked.result()["result"] is True


def test_nobody_else_answers(bench: JobBench) -> None:
    """Neither another client that knows the question's id nor an answer to another question or job."""
    asked, other = Asked(bench), Asked(bench, "u2", "d")
    question, others = asked.question()["id"], other.question()["id"]
    for client, uuid, input_id in (("d", "u1", question), ("d", "u2", question), ("c", "u1", others), ("c", "u1", "x")):
        with pytest.raises(TaskError, match=r"it (is for no running job|answers no open question)"):
            bench.executor.answer(client, uuid, InputAnswer(input_id=input_id, value=True))
    assert (asked.events.empty(), other.events.empty()) == (True, True)
    asked.answer(True, of=question)
    other.answer(False, of=others)
    assert (asked.result()["result"], other.result()["result"]) == (True, False)


def test_the_first_answer_counts(bench: JobBench) -> None:
    """A second one is refused; here while the task has not read the first one yet."""
    asked = Asked(bench)
    question = asked.question()["id"]
    asked.answer(True, of=question)
    with pytest.raises(TaskError):
        asked.answer(False, of=question)
    assert asked.result()["result"] is True


def test_a_job_that_waits_says_so(bench: JobBench) -> None:
    """With the question, for clients that missed the event."""
    asked = Asked(bench)
    question = asked.question()
    found = bench.executor.find("c", "u1")
    assert found is not None
    assert (found[0], json.loads(found[1] or b"")) == (JobState.WAITING, question)
    assert bench.executor.find("d", "u1") is None
    asked.answer(True, of=question["id"])
    asked.result()
    found = bench.executor.find("c", "u1")
    assert found is not None
    assert found[0] is JobState.COMPLETED


def test_a_cancelled_job_stops_waiting(bench: JobBench) -> None:
    """The task fails with the reason unless it handles it, and sees that it is cancelled."""
    asked = Asked(bench)
    question = asked.question()
    with pytest.raises(TaskError, match="no running job"):
        asked.answer(cancel=True, of="", client="d")
    asked.answer(cancel=True, of="")
    assert asked.event()["status"] == "cancelled"
    result = asked.result()
    assert (result["failed"], result["errors"]) == (True, ["the job was cancelled by its client"])
    with pytest.raises(TaskError):
        asked.answer(True, of=question["id"])


def test_a_queued_job_that_is_cancelled_is_not_run(bench: JobBench) -> None:
    """Nothing has been done."""
    for number in range(THREADS):
        bench.submit("hold", f"h{number}", client=f"h{number}")
        bench.entered.get(timeout=WAIT_SECONDS)
    queued = Asked(bench, task="count")
    queued.answer(cancel=True, of="")
    bench.gate.set()
    assert queued.result()["errors"] == ["the job was cancelled by its client, nothing was done"]
    assert bench.counted == 0


def test_a_running_task_sees_that_its_job_is_cancelled(bench: JobBench) -> None:
    """And nobody else's is."""
    first, second = Asked(bench, "u1"), Asked(bench, "u2")
    first.answer(True)
    worker = bench.contexts.get(timeout=WAIT_SECONDS)
    assert not worker.cancelled.is_set()
    held = Asked(bench, "u3", task="hold")
    bench.entered.get(timeout=WAIT_SECONDS)
    held.answer(cancel=True, of="")
    second.answer(True)
    assert not bench.contexts.get(timeout=WAIT_SECONDS).cancelled.is_set()
    assert not bench.worker.cancelled.is_set()


def test_a_stop_of_the_worker_ends_all_questions(bench: JobBench) -> None:
    """Before the time that a stop gives to tasks is over."""
    asked = [Asked(bench, f"u{number}", f"c{number}", timeout=600) for number in range(3)]
    for each in asked:
        each.question()
    bench.executor.stop(WAIT_SECONDS)
    results = [each.results.get_nowait() for each in asked]
    assert [result["errors"] for result in results] == [["the worker is stopping"]] * 3


def test_jobs_that_wait_hold_up_nobody(bench: JobBench) -> None:
    """Not even further jobs of the same client; all threads would be taken otherwise."""
    asked = [Asked(bench, f"u{number}", f"c{number % 3}") for number in range(3 * MAX_WITHOUT_PLACE_PER_CLIENT)]
    questions = [each.question()["id"] for each in asked]
    assert bench.run("count", "n1", client="c0")["result"] == 1
    assert bench.run("count", "n2", client="other")["result"] == 2
    for each, question in zip(asked, questions, strict=True):
        each.answer(True, of=question)
    assert [each.result()["result"] for each in asked] == [True] * len(asked)


def test_threads_are_as_many_as_before_once_the_questions_are_answered(bench: JobBench) -> None:
    """And each client has its share of them, no more."""
    for round_number in range(3):
        asked = [Asked(bench, f"u{round_number}-{number}", f"c{number}") for number in range(4)]
        for each in asked:
            each.answer(True)
            each.result()
    held = [bench.submit("hold", f"h{number}", client="greedy") for number in range(THREADS)]
    for _ in range(THREADS_PER_CLIENT):
        bench.entered.get(timeout=WAIT_SECONDS)
    more = [bench.submit("hold", f"m{number}", client=f"m{number}") for number in range(THREADS)]
    for _ in range(THREADS - THREADS_PER_CLIENT):
        bench.entered.get(timeout=WAIT_SECONDS)
    states = [bench.executor.find("greedy", f"h{number}") for number in range(THREADS)]
    assert states.count((JobState.STARTED, None)) == THREADS_PER_CLIENT
    assert bench.entered.empty()
    bench.gate.set()
    assert [each.get(timeout=WAIT_SECONDS)["result"] for each in [*held, *more]] == ["let go"] * (2 * THREADS)


def test_a_client_has_these_questions_open_at_most(bench: JobBench) -> None:
    """The next task that asks fails with the reason; another client's asks."""
    asked = [Asked(bench, f"u{number}") for number in range(MAX_WITHOUT_PLACE_PER_CLIENT)]
    questions = [each.question()["id"] for each in asked]
    refused = bench.run("ask", "n1")
    assert refused["errors"] == [
        f"{MAX_WITHOUT_PLACE_PER_CLIENT} jobs of this client have asked questions: answer them"
    ]
    Asked(bench, "n1", "other").answer(True)
    asked[0].answer(True, of=questions[0])
    asked[0].result()
    again = Asked(bench, "n2")
    again.answer(True)
    assert again.result()["result"] is True
    assert MAX_WITHOUT_PLACE == 100


def test_a_task_asks_one_question_after_another(bench: JobBench) -> None:
    """A second one at the same time is refused, and after the job's end none can be asked."""
    asked = Asked(bench)
    asked.answer(True)
    asked.result()
    worker = bench.contexts.get(timeout=WAIT_SECONDS)
    with pytest.raises(TaskError, match="the job has ended"):
        worker.request_input("Again?")
    assert asked.event()["event_type"] == "input_response"
    assert asked.events.empty()


def test_two_questions_of_a_job_are_not_open_at_once(bench: JobBench) -> None:
    """Of two threads of a task one is refused."""
    reasons: SimpleQueue[str] = SimpleQueue()

    def ask_twice(worker: Any, _arguments: Any) -> object:
        def ask() -> None:
            try:
                worker.request_input("First?")
            except TaskError as error:
                reasons.put(str(error))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
        return reasons.qsize()

    spec = bench.worker.registry.get("ask")
    bench.worker.registry.add(type(spec)("ask_twice", ask_twice, spec.input_model, Any, None))
    asked = Asked(bench, task="ask_twice")
    question = asked.question()["id"]
    assert reasons.get(timeout=WAIT_SECONDS) == "a task can ask one question at a time"
    asked.answer(True, of=question)
    asked.result()


def test_a_question_ends_with_the_clients_own_time(bench: JobBench) -> None:
    """The client hears how long it has; its job waits no longer than it does."""
    asked = Asked(bench, timeout=600, job_timeout=30)
    assert 1 <= asked.question()["timeout"] <= 30
    asked.answer(True, of=json.loads((bench.executor.find("c", "u1") or (0, b""))[1] or b"")["id"])
    assert asked.result()["result"] is True


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"question": " \n "}, "a question needs text"),
        ({"default": [1]}, "the default of a question must be true, false, a number, text or None, got list"),
        ({"timeout": 0}, f"the timeout of a question must be 1 to {MAX_TIMEOUT_SECONDS} seconds"),
        ({"timeout": MAX_TIMEOUT_SECONDS + 1}, f"the timeout of a question must be 1 to {MAX_TIMEOUT_SECONDS} seconds"),
        ({"timeout": "5"}, f"the timeout of a question must be 1 to {MAX_TIMEOUT_SECONDS} seconds"),
        (
            {"metadata": {"preview": "x" * MAX_METADATA_BYTES}},
            f"the metadata of a question takes {2**18 + 14} bytes, more than {2**18}: shorten it",
        ),
    ],
)
def test_a_question_that_is_not_valid_is_not_asked(bench: JobBench, given: dict[str, Any], reason: str) -> None:
    """The task fails with the rule."""
    asked = Asked(bench, **given)
    assert asked.result()["errors"] == [reason]
    assert [asked.events.get_nowait()["message"], asked.events.empty()] == ["starting", True]


def test_a_task_without_a_client_is_refused(bench: JobBench) -> None:
    """At once, with the reason."""
    result = bench.worker.registry.run(bench.worker, "ask", {})
    assert result.errors == ["the task asks a question, and there is no client that could answer"]
