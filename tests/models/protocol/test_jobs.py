"""The data of a job's messages: requests and results."""

import json
import traceback

import pytest
from pydantic import BaseModel, Field, ValidationError

from nfcli.models.errors import TaskError, validation_messages
from nfcli.models.protocol.jobs import (
    JobEvent,
    JobRequest,
    Result,
    failure_reason,
    is_automatic,
    read_event,
    strip_tracebacks,
)


def test_a_task_name_that_is_not_unicode_is_refused() -> None:
    """JSON can express it, but no event or result that names the task could be encoded."""
    with pytest.raises(ValidationError) as refused:
        JobRequest.model_validate(json.loads('{"task": "\\ud800"}'))
    assert validation_messages(refused.value) == ["task: must be valid Unicode"]


def test_a_task_name_of_any_unicode_is_valid() -> None:
    """Whether the task exists is checked later."""
    assert JobRequest.model_validate({"task": "t\u00e2che \U0001f511"}).task == "t\u00e2che \U0001f511"


class Words(BaseModel):
    """Arguments of a task."""

    text: str
    times: int = Field(default=1, ge=1)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"times": 1}, "text: Field required"),
        (
            {"text": ["secret-token"], "times": 0},
            "text: Input should be a valid string; times: Input should be greater than or equal to 1",
        ),
    ],
)
def test_invalid_arguments_are_named_without_their_values(given: dict[str, object], reason: str) -> None:
    """NorFab's workers send pydantic's error as a traceback, whose last line is a link, and again as a message."""
    try:
        Words.model_validate(given)
    except ValidationError as error:
        trace, again = traceback.format_exc(), f"Worker experienced error: '{error}'"
    assert failure_reason({"errors": [trace], "messages": [again]}) == reason
    assert failure_reason({"errors": [], "messages": [again]}).startswith(reason.split(";", maxsplit=1)[0])


@pytest.mark.parametrize(
    ("errors", "messages", "reason"),
    [
        (["Traceback:\n  File x\nRuntimeError: no"], ["Worker experienced error: 'no'"], "RuntimeError: no"),
        (["one", " ", "two"], ["and a note"], "one; two; and a note"),
        ([], ["Worker experienced error: 'no'"], "Worker experienced error: 'no'"),
        (["1 validation error for X"], None, "1 validation error for X"),
        (None, 5, "5"),
        ([], [], "failed without a reason, status None"),
    ],
)
def test_the_reason_of_a_failure_is_one_line(errors: object, messages: object, reason: str) -> None:
    """Whatever types other workers send."""
    assert failure_reason({"errors": errors, "messages": messages}) == reason


def test_tracebacks_are_replaced_by_their_reason() -> None:
    """They name files of the worker's host; everything else stays, of any type."""
    trace = "Traceback (most recent call last):\n  File x, line 1\nRuntimeError: no\n"
    assert strip_tracebacks({"errors": [trace, "b", 5], "x": 1}) == {"errors": ["RuntimeError: no", "b", 5], "x": 1}
    assert strip_tracebacks({"errors": trace, "failed": True}) == {"errors": trace, "failed": True}


def test_an_event_that_is_sent_is_read_with_all_that_it_says() -> None:
    """What is empty is left out on the way, as NorFab's workers do."""
    event = JobEvent(
        worker="w1",
        service="s",
        uuid="u1",
        event_type="progress",
        message="half way",
        task="t",
        status="running",
        resource=["sw1"],
        severity="WARNING",
    )
    sent = json.loads(event.encode())
    assert {"extras", "timeout"}.isdisjoint(sent)
    assert read_event(sent) == sent
    question = event.model_copy(update={"extras": {"input_request": {"id": "q1"}}, "timeout": 5})
    assert read_event(json.loads(question.encode())) == sent | {"extras": question.extras, "timeout": 5}


@pytest.mark.parametrize(
    "foreign",
    [
        {},
        {"message": 5, "severity": None, "resource": {"a": 1}, "extras": [], "timeout": "5"},
        {"resource": "", "timeout": -1},
    ],
)
def test_an_event_of_another_shape_has_all_texts(foreign: dict[str, object]) -> None:
    """Events come from other programs, whose values may be of any type."""
    texts = dict.fromkeys(["worker", "service", "uuid", "event_type", "message", "task", "status", "timestamp"], "")
    assert read_event(foreign) == texts | {"severity": "INFO", "resource": []}


def test_texts_of_an_event_are_bounded() -> None:
    """A worker can't fill the screen or the memory with one event."""
    event = read_event({"message": "x" * 10_000, "resource": ["y" * 10_000, 7, *map(str, range(5_000))]})
    assert (len(event["message"]), len(event["resource"][0]), len(event["resource"])) == (4_000, 4_000, 999)


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("progress", "starting", True),
        ("progress", "half way", False),
        ("result_ready", "done", True),
        ("progress", "", True),
    ],
)
def test_events_that_every_job_has_are_recognized(kind: str, message: str, expected: bool) -> None:
    """Workers send one at the start of a job and one at its end."""
    assert is_automatic(read_event({"event_type": kind, "message": message})) is expected


@pytest.mark.parametrize(
    ("message", "expected"), [("", "w1: t: no such host"), ("the check before", "the check before: no such host")]
)
def test_a_failed_result_is_raised_on_request(message: str, expected: str) -> None:
    """With its reason alone, of a traceback the last line; one that succeeded isn't."""
    failed = Result(failed=True, errors=["Traceback (most recent call last):\n  File x\nno such host\n"], task="w1:t")
    with pytest.raises(TaskError, match=f"^{expected}$"):
        failed.raise_for_status(message)
    Result(result=False).raise_for_status(message)
