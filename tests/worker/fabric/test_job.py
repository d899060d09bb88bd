"""A job for another service: its request, its bounds, and the future of its results."""

import json
import time
from typing import Any

import pytest

from nfcli.models.errors import NfcliError, NoWorkersError, UsageError
from nfcli.models.protocol.broker_presence import BrokerPresence, Timeouts
from nfcli.models.protocol.frames import BrokerMessage, ClientMessage, Command, encode_data
from nfcli.worker.fabric.job import MAX_RESULT_BYTES, MAX_WORKERS, OutgoingJob

GOOD = {"result": 1, "failed": False}


def make_job(service: str = "s", target: Any = "all", timeout: float = 60.0, **options: Any) -> OutgoingJob:
    """Return a job that was sent at second 0."""
    named = {"broker": BrokerPresence(Timeouts()), "endpoint": "tcp://b:1", "now": 0.0, "kwargs": {"a": 1}, **options}
    return OutgoingJob(service, "t", target=target, timeout=timeout, **named)


def receive(job: OutgoingJob, status: str, data: Any) -> None:
    """Pass a message to a job."""
    job.receive(BrokerMessage(Command.RESPONSE, "s", job.job.uuid, status, encode_data(data)), 0.0)
    job.complete_if_done()


def test_the_requests_are_what_norfab_expects() -> None:
    """Arguments are named, the time-out is whole seconds, and a GET repeats no argument."""
    started = time.time()
    job = make_job(target=["w1"], timeout=1.5)
    message = ClientMessage.parse(job.post)
    assert (message.command, message.service, message.target) == (Command.POST, "s", b'["w1"]')
    data = json.loads(message.data)
    assert started + 1.5 <= data.pop("deadline") + 0.001 < started + 2
    assert data == {"task": "t", "kwargs": {"a": 1}, "args": [], "timeout": 2}
    receive(job, "202", {"workers": ["w1"]})
    frames = job.request(2.5)
    assert frames is not None
    assert json.loads(ClientMessage.parse(frames).data) == {"task": "t", "kwargs": {}, "args": []}


def test_the_future_has_the_results_by_name() -> None:
    """Once all are there."""
    job = make_job()
    receive(job, "202", {"workers": ["w2", "w1"]})
    receive(job, "200", {"w2": GOOD})
    assert not job.future.done()
    receive(job, "200", {"w1": GOOD})
    assert list(job.future.result(0)) == ["w1", "w2"]


def test_the_future_has_the_error_of_a_job_that_failed() -> None:
    """As a blocking call would raise it."""
    job = make_job()
    receive(job, "400", {})
    with pytest.raises(NoWorkersError, match="service s"):
        job.future.result(0)


def test_a_job_ends_once() -> None:
    """Whatever happens after it was cancelled."""
    job = make_job()
    receive(job, "202", {"workers": ["w1"]})
    job.future.cancel()
    receive(job, "200", {"w1": GOOD})
    job.abort(NfcliError("late"))
    assert job.future.cancelled()


def test_workers_and_results_are_bounded() -> None:
    """A thousand workers; 64 MiB of results together."""
    assert (MAX_WORKERS, MAX_RESULT_BYTES) == (1_000, 2**24)
    job = make_job(max_result_bytes=100)
    receive(job, "202", {"workers": ["w1", "w2"]})
    receive(job, "200", {"w1": "x" * 100})
    receive(job, "200", {"w2": GOOD})
    assert job.future.result(0)["w1"]["errors"] == ["the result is larger than the 100 bytes that a job may bring"]
    many = make_job()
    receive(many, "202", {"workers": [f"w{number}" for number in range(MAX_WORKERS + 1)]})
    with pytest.raises(NoWorkersError, match="more than 1000 workers"):
        many.future.result(0)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_time_out_is_a_positive_number(timeout: float) -> None:
    """Decided before anything is sent."""
    with pytest.raises(UsageError, match="timeout must be a positive number"):
        make_job(timeout=timeout)


@pytest.mark.parametrize(("service", "argument"), [("s", {1}), ("s", float("nan")), ("s", "\ud800"), ("\ud800", 1)])
def test_a_request_that_can_not_be_encoded_is_refused(service: str, argument: Any) -> None:
    """With a line that says what can."""
    with pytest.raises(UsageError, match="valid Unicode"):
        make_job(service, kwargs={"a": argument})
