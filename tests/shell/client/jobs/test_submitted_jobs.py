"""Jobs that run beside others: futures of their results, with the events on the way."""

import threading
from concurrent.futures import CancelledError
from contextlib import nullcontext

import pytest

from nfcli.models.errors import NoWorkersError, UsageError
from nfcli.models.protocol.jobs import Event, is_automatic
from nfcli.shell.client.client import Client
from nfcli.shell.client.jobs.runner import JobRunner, Submission
from nfcli.shell.client.jobs.threads import JobThreads
from support.fabric.fake_broker import outcome
from support.shell.direct_workers import WAIT_SECONDS, Fabric


def test_jobs_of_one_client_run_side_by_side(fabric: Fabric, client: Client) -> None:
    """One that takes long delays neither the others nor `run_job`."""
    held = client.submit_job("fastmcp", "hold", workers="a")
    others = [client.submit_job("fastmcp", "who", workers=["a", "b"]) for _ in range(3)]
    assert [outcome(job.result(WAIT_SECONDS)) for job in others] == [{"a": "a", "b": "b"}] * 3
    assert outcome(client.run_job("fastmcp", "who", workers="b")) == {"b": "b"}
    assert not held.done()
    fabric.servers["a"].gate.set()
    assert (outcome(held.result(WAIT_SECONDS)), held.done(), held.exception()) == ({"a": True}, True, None)


def test_events_come_while_the_job_runs_and_stay_for_later(fabric: Fabric, client: Client) -> None:
    """Each reader gets all of them; the job's own callback and that of the client as well."""
    seen: list[Event] = []
    job = client.submit_job("fastmcp", "report", workers="a", on_event=seen.append)
    steps = (event["message"] for event in job.events(WAIT_SECONDS) if not is_automatic(event))
    assert [next(steps), next(steps)] == ["one", "two"]
    assert not job.done()
    fabric.servers["a"].gate.set()
    assert list(steps) == []
    assert job.done()
    events = list(job.events())
    assert events == seen
    assert {(event["worker"], event["uuid"], event["task"]) for event in events} == {("a", job.uuid, "report")}


def test_a_reader_of_events_waits_no_longer_than_it_wants(client: Client) -> None:
    """As with a queue."""
    job = client.submit_job("fastmcp", "hold", workers="a")
    assert [event for event in job.events(0.01) if not is_automatic(event)] == []
    with pytest.raises(TimeoutError):
        job.result(0.01)
    with pytest.raises(TimeoutError):
        job.exception(0.01)
    assert not job.done()


def test_a_cancelled_job_is_not_waited_for(fabric: Fabric, client: Client) -> None:
    """It ends at once, though its worker goes on; a job that has ended can't be cancelled."""
    job = client.submit_job("fastmcp", "hold", workers="a")
    assert fabric.servers["a"].entered.wait(WAIT_SECONDS)
    ended = threading.Event()
    job.add_done_callback(lambda _: ended.set())
    assert job.cancel()
    with pytest.raises(CancelledError):
        job.result(WAIT_SECONDS)
    assert ended.wait(WAIT_SECONDS)
    assert (job.cancelled(), job.cancel()) == (True, False)
    assert isinstance(job.exception(), CancelledError)
    assert outcome(client.submit_job("fastmcp", "who", workers="a").result(WAIT_SECONDS)) == {"a": "a"}


def test_errors_of_the_whole_job_are_raised_by_its_result(client: Client) -> None:
    """Those of its arguments at once."""
    with pytest.raises(UsageError, match=r"^timeout must be a positive number of seconds, got 0$"):
        client.submit_job("fastmcp", "who", timeout=0)
    job = client.submit_job("fastmcp", "who", workers="nobody")
    with pytest.raises(NoWorkersError, match=r"^unknown worker 'nobody': there is a, b, c$"):
        job.result(WAIT_SECONDS)
    assert isinstance(job.exception(), NoWorkersError)
    partly = client.submit_job("fastmcp", "who", workers=["a", "c"]).result(WAIT_SECONDS)
    assert {name: result["failed"] for name, result in partly.items()} == {"a": False, "c": True}


def test_an_error_that_nobody_expects_ends_the_job(client: Client) -> None:
    """Where a thread can't connect, as where files are used up; the next job is run by the same thread."""
    faults = iter([OSError("Too many open files")])

    def make_runner() -> JobRunner:
        for fault in faults:
            raise fault
        return client._runner  # noqa: SLF001  any runner

    threads = JobThreads(make_runner, nullcontext, max_threads=1)  # type: ignore[arg-type]  not used without a uuid
    failed, run = (threads.submit(Submission("fastmcp", "who", workers="a"), listen_to_none, None) for _ in range(2))
    with pytest.raises(OSError, match="Too many open files"):
        failed.result(WAIT_SECONDS)
    assert outcome(run.result(WAIT_SECONDS)) == {"a": "a"}
    threads.stop()


def listen_to_none(*_: object, **__: object) -> None:
    """Listen to no events."""


def test_a_job_with_a_uuid_of_the_callers_runs_once(fabric: Fabric, client: Client) -> None:
    """By whichever way it is sent."""
    results = [client.submit_job("fastmcp", "who", uuid="mine", workers="a").result(WAIT_SECONDS) for _ in range(2)]
    assert client.run_job("fastmcp", "who", uuid="mine", workers="a") == results[0] == results[1]
    assert fabric.servers["a"].runs == 1


def test_closing_the_client_cancels_its_jobs(fabric: Fabric) -> None:
    """No program hangs at its end because of a worker that takes long."""
    with fabric.client() as client:
        jobs = [client.submit_job("fastmcp", "hold", workers="a") for _ in range(2)]
        assert fabric.servers["a"].entered.wait(WAIT_SECONDS)
    assert [job.cancelled() for job in jobs] == [True, True]
    with pytest.raises(UsageError, match=r"^this client is closed"):
        client.submit_job("fastmcp", "who")


def test_results_are_documents_on_request(client: Client) -> None:
    """In Markdown, of `run_job` and of a job."""
    text = client.run_job("fastmcp", "who", workers="a", markdown=True)
    lines = text.splitlines()
    assert lines[:2] + lines[-5:] == ["# fastmcp: who", "", "## a", "", "```text", "a", "```"]
    later = client.submit_job("fastmcp", "who", workers="a").result(WAIT_SECONDS, markdown=True)
    assert later.splitlines()[-5:] == lines[-5:]
