"""The data of a job's messages: requests and results."""

import json
import traceback

import pytest
from pydantic import BaseModel, Field, ValidationError

from nfcli.models.errors import validation_messages
from nfcli.models.protocol.jobs import JobRequest, failure_reason, strip_tracebacks


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
