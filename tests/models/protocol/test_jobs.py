"""What travels around a job."""

import json
import traceback

import pytest
from pydantic import BaseModel, Field, ValidationError

from nfcli.models.errors import validation_messages
from nfcli.models.protocol.jobs import JobRequest, failure_reason, strip_tracebacks


def test_a_task_name_that_is_no_unicode_is_refused() -> None:
    """JSON can carry it in; the event and the result that name the task couldn't carry it out again."""
    with pytest.raises(ValidationError) as refused:
        JobRequest.model_validate(json.loads('{"task": "\\ud800"}'))
    assert validation_messages(refused.value) == ["task: must be valid Unicode"]


def test_a_task_name_of_any_unicode_is_taken() -> None:
    """Whether there is such a task is for the worker to say."""
    assert JobRequest.model_validate({"task": "t\u00e2che \U0001f511"}).task == "t\u00e2che \U0001f511"


class Words(BaseModel):
    """Arguments of a task."""

    text: str
    times: int = Field(default=1, ge=1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"times": 1}, "text: Field required"),
        (
            {"text": ["secret-token"], "times": 0},
            "text: Input should be a valid string; times: Input should be greater than or equal to 1",
        ),
    ],
)
def test_wrong_arguments_are_told_by_name_without_their_values(given: dict[str, object], told: str) -> None:
    """A worker of NorFab's sends pydantic's error as a traceback, whose last line says nothing, and once more."""
    try:
        Words.model_validate(given)
    except ValidationError as error:
        trace, again = traceback.format_exc(), f"Worker experienced error: '{error}'"
    assert failure_reason({"errors": [trace], "messages": [again]}) == told
    assert failure_reason({"errors": [], "messages": [again]}).startswith(told.split(";", maxsplit=1)[0])


@pytest.mark.parametrize(
    ("errors", "messages", "told"),
    [
        (["Traceback:\n  File x\nRuntimeError: no"], ["Worker experienced error: 'no'"], "RuntimeError: no"),
        (["one", " ", "two"], ["and a note"], "one; two; and a note"),
        ([], ["Worker experienced error: 'no'"], "Worker experienced error: 'no'"),
        (["1 validation error for X"], None, "1 validation error for X"),
        (None, 5, "5"),
        ([], [], "failed without a reason, status None"),
    ],
)
def test_the_reason_of_a_failure_is_one_line(errors: object, messages: object, told: str) -> None:
    """Whatever workers of other make send."""
    assert failure_reason({"errors": errors, "messages": messages}) == told


def test_the_way_to_a_failure_is_left_out() -> None:
    """It names files and lines of the worker's machine; all else stays, of whatever kind it is."""
    trace = "Traceback (most recent call last):\n  File x, line 1\nRuntimeError: no\n"
    assert strip_tracebacks({"errors": [trace, "b", 5], "x": 1}) == {"errors": ["RuntimeError: no", "b", 5], "x": 1}
    assert strip_tracebacks({"errors": trace, "failed": True}) == {"errors": trace, "failed": True}
