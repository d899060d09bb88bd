"""What jobs and their results are made of: NorFab's names, what a request may say, and answers of any shape."""

from __future__ import annotations

import json
import math
import re
import time
from datetime import datetime
from typing import Any

import pytest

from nfcli.models.errors import ProtocolError, UsageError
from nfcli.models.protocol.jobs import (
    JobEvent,
    JobRequest,
    Result,
    ResultStatus,
    check_timeout,
    encode_request,
    failed_result,
    is_unanswered,
    normalize_result,
)

EMPTY = {
    "result": None,
    "failed": False,
    "errors": [],
    "task": None,
    "messages": [],
    "juuid": None,
    "resources": [],
    "resources_failed": [],
    "status": None,
    "task_started": None,
    "task_completed": None,
    "service": None,
    "diff": None,
    "dry_run": False,
}


def test_results_have_norfab_s_fields_and_statuses() -> None:
    """In this order, with these defaults; each field has a description, which MCP clients get."""
    assert json.dumps(Result().model_dump(mode="json")) == json.dumps(EMPTY)
    assert " ".join(ResultStatus) == "completed timeout no_match failed skipped error created updated unchanged"
    assert all(field.description for field in Result.model_fields.values())


def test_answers_get_the_fields_that_they_lack() -> None:
    """Those they have stay, unknown ones too."""
    answer = {"failed": False, "result": 5, "errors": ["a"], "extra": 1}
    assert normalize_result(answer) == {**EMPTY, **answer}
    assert normalize_result({"failed": True, "messages": ["b"]}) == {**EMPTY, "failed": True, "messages": ["b"]}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "text",
        {},
        {"failed": 1},
        {"failed": None},
        {"failed": False, "errors": "a"},
        {"failed": False, "errors": [1]},
        {"failed": False, "messages": {}},
        {"failed": False, "messages": ["a", None]},
    ],
)
def test_other_answers_are_failed_results(answer: Any) -> None:
    """Nothing of them is repeated."""
    reason = "the worker's answer is not a result"
    assert normalize_result(answer) == {**EMPTY, "failed": True, "errors": [reason], "status": "error"}


def test_failed_results_have_the_reason_and_the_given_fields() -> None:
    """An error, unless another status is named."""
    failed = {**EMPTY, "failed": True, "errors": ["no"]}
    assert failed_result("no") == {**failed, "status": "error"}
    assert failed_result("no", ResultStatus.TIMEOUT, task="echo") == {**failed, "status": "timeout", "task": "echo"}


@pytest.mark.parametrize(
    ("result", "is_own"),
    [
        ({"failed": True, "task": "echo"}, True),
        ({"failed": True, "task": "w1:echo"}, False),
        ({"failed": False, "task": "echo"}, False),
        ({"failed": True, "task": None}, False),
        ({"failed": True}, False),
        ({"task": "echo"}, False),
    ],
)
def test_failure_without_an_answer_differs_from_a_worker_s(result: dict[str, Any], *, is_own: bool) -> None:
    """By the worker's name before the task's."""
    assert is_unanswered(result) is is_own


@pytest.mark.parametrize("timeout", [1, 0.001, 1e9])
def test_timeouts_are_positive_numbers(timeout: float) -> None:
    """Of any size."""
    assert check_timeout(timeout) == timeout


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan, True, "5", None])
def test_other_timeouts_are_refused(timeout: Any) -> None:
    """By their value."""
    with pytest.raises(UsageError) as refused:
        check_timeout(timeout)
    assert str(refused.value) == f"timeout must be a positive number of seconds, got {timeout!r}"


def test_request_says_when_its_client_stops_waiting() -> None:
    """In its time-out, or in what is left of that; milliseconds are enough."""
    before = time.time()
    request = JobRequest.parse(encode_request("echo", {"a": 1}, timeout=60, args=(1, 2), origin="ann@host"))
    late = JobRequest.parse(encode_request("echo", {}, timeout=60, seconds_left=2.5))
    after = time.time()
    assert (request.task, request.kwargs, request.args, request.timeout) == ("echo", {"a": 1}, [1, 2], 60)
    assert (request.origin, request.proof, late.origin) == ("ann@host", None, "")
    assert request.deadline is not None
    assert before - 0.001 <= request.deadline - 60 <= after + 0.001
    assert request.issued == request.deadline - 60
    assert late.deadline is not None
    assert before - 0.001 <= late.deadline - 2.5 <= after + 0.001
    assert round(late.deadline, 3) == late.deadline


def test_request_names_only_what_is_given() -> None:
    """NorFab's workers know no origin."""
    assert json.loads(encode_request("echo", {}, timeout=5)).keys() == {"task", "kwargs", "args", "timeout", "deadline"}
    with pytest.raises(UsageError, match=re.escape("timeout must be a positive number of seconds, got 0")):
        encode_request("echo", {}, timeout=0)


@pytest.mark.parametrize("value", [math.nan, {1, 2}, b"x", "\ud800", {"a": object()}])
def test_arguments_that_are_not_json_are_refused(value: Any) -> None:
    """Before anything is sent; the line names the task and no value."""
    with pytest.raises(UsageError) as refused:
        encode_request("echo", {"a": value}, timeout=5)
    assert str(refused.value) == "the arguments of echo must be JSON values, in valid Unicode"


def test_request_of_norfab_s_clients_has_no_deadline() -> None:
    """Nor a time that it was made at."""
    plain = JobRequest.parse(b'{"task":"echo"}')
    assert (plain.kwargs, plain.args, plain.timeout, plain.deadline, plain.issued) == ({}, [], None, None, None)
    assert JobRequest.parse(b'{"task":"echo","timeout":5}').issued is None
    assert JobRequest.parse(b'{"task":"echo","deadline":5}').issued is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{}", "task: field required"),
        (b'{"task":1}', "task: "),
        (b'{"task":"echo","kwargs":[]}', "kwargs: "),
        (b'{"task":"echo","deadline":1e999}', "deadline: "),
        (b'{"task":"echo","origin":5}', "origin: "),
    ],
)
def test_requests_of_another_shape_are_refused(data: bytes, reason: str) -> None:
    """The line names the key."""
    with pytest.raises(ProtocolError) as refused:
        JobRequest.parse(data)
    assert str(refused.value).startswith(f"the data is not a job request: {reason}")


def test_events_have_norfab_s_form_of_a_time() -> None:
    """Local, to a millisecond."""
    event = JobEvent(worker="w1", service="s", uuid="u", event_type="progress", message="m", task="t", status="running")
    written = event.model_dump(mode="json")
    seconds, _, milliseconds = written.pop("timestamp").partition(".")
    assert re.fullmatch(r"\d{3}", milliseconds)
    assert abs((datetime.now() - datetime.strptime(seconds, "%d-%b-%Y %H:%M:%S")).total_seconds()) < 60  # noqa: DTZ005, DTZ007
    assert (written["resource"], written["severity"]) == ([], "INFO")
