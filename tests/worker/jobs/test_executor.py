"""The executor: each job runs once per uuid, within limits, and always gets a result."""

import gc
import json
import threading
import time
import weakref
from datetime import datetime
from queue import SimpleQueue
from typing import Any

import pytest

from nfcli.models.errors import TaskError
from nfcli.models.protocol.jobs import JobRequest
from nfcli.worker.jobs.channels.progress import LINES_AT_ONCE
from nfcli.worker.jobs.executor import SHOWN_SECONDS
from nfcli.worker.jobs.lane_threads import THREADS
from nfcli.worker.jobs.tracked_job import JobState
from support.job_bench import WAIT_SECONDS, JobBench


def test_a_uuid_sent_twice_runs_once_and_has_one_result(bench: JobBench) -> None:
    """The second reply equals the first, times included."""
    first, second = bench.run("count", "u1"), bench.run("count", "u1")
    assert first == second
    assert (first["result"], bench.counted) == (1, 1)


def test_a_uuid_sent_again_while_its_job_runs_joins_it(bench: JobBench) -> None:
    """Both senders get the result."""
    first = bench.submit("hold", "u1")
    bench.entered.get(timeout=WAIT_SECONDS)
    second = bench.submit("hold", "u1")
    assert bench.executor.find("c", "u1") == (JobState.STARTED, None)
    bench.gate.set()
    assert first.get(timeout=WAIT_SECONDS) == second.get(timeout=WAIT_SECONDS)
    assert bench.entered.empty()


def test_clients_never_share_a_job(bench: JobBench) -> None:
    """The same uuid of another client is another job."""
    assert bench.run("count", "u1", client="a")["result"] == 1
    assert bench.executor.find("b", "u1") is None
    assert bench.run("count", "u1", client="b")["result"] == 2


def test_errors_are_failed_results_of_one_line_and_end_no_thread(bench: JobBench) -> None:
    """A result that JSON doesn't have, an unknown task, invalid and positional arguments."""
    errors = {
        "odd": bench.run("odd", "u1")["errors"],
        "nosuch": bench.run("nosuch", "u2")["errors"],
        "bad": bench.run("count", "u3", kwargs={"amount": "x"})["errors"],
        "extra": bench.run("count", "u4", kwargs={"more": 1})["errors"],
        "args": bench.run("count", "u5", args=[1])["errors"],
    }
    assert errors == {
        "odd": ["the result of task odd can't be written as JSON"],
        "nosuch": ["unknown task 'nosuch': call list_tasks for the available names"],
        "bad": ["amount: must be a whole number"],
        "extra": ["more: no such field"],
        "args": ["positional arguments are not supported: name each one in kwargs"],
    }
    assert bench.run("count", "u6")["result"] == 1


def test_a_task_that_runs_inline_is_done_when_submit_returns(bench: JobBench) -> None:
    """It runs in the caller's thread, even while all others are busy."""
    for n in range(THREADS):
        bench.submit("hold", f"h{n}", client=f"c{n}")
    answer = bench.submit("where", "u1").get_nowait()
    assert answer["result"] == threading.current_thread().name
    bench.gate.set()


def test_a_completed_job_keeps_neither_arguments_nor_callbacks(bench: JobBench) -> None:
    """Arguments may be tokens, and callbacks may refer to them."""

    class Sent:
        def __call__(self, _payload: bytes) -> None:
            pass

    class Arguments(dict[str, Any]):
        pass

    sent, arguments = Sent(), Arguments(amount=7)
    kept = [weakref.ref(sent), weakref.ref(arguments)]
    request = JobRequest.model_construct(task="where", kwargs=arguments)
    bench.executor.submit("c", "u1", request, sent, notify=sent)
    del sent, arguments, request
    gc.collect()
    assert [reference() for reference in kept] == [None, None]
    assert bench.executor.find("c", "u1") is not None


class Listener:
    """A client that records the messages of events and the result, in the order in which they come."""

    def __init__(self, bench: JobBench) -> None:
        self._bench = bench
        self.received: SimpleQueue[str] = SimpleQueue()
        self.events: list[dict[str, Any]] = []
        self.deadline: float | None = time.time() + 3_600

    def run(self, name: str, uuid: str, **kwargs: Any) -> list[str]:
        """Run a job; return its messages, the result included."""
        request = JobRequest(task=name, kwargs=kwargs, deadline=self.deadline)
        deliver = lambda payload: self.received.put(f"answer {json.loads(payload)['w1']['result']}")  # noqa: E731
        self._bench.executor.submit("c", uuid, request, deliver, notify=self._note)
        messages = [self.received.get(timeout=WAIT_SECONDS)]
        while not messages[-1].startswith("answer"):
            messages.append(self.received.get(timeout=WAIT_SECONDS))
        return messages

    def _note(self, payload: bytes) -> None:
        self.events.append(json.loads(payload))
        self.received.put(self.events[-1]["message"])


def test_progress_is_sent_as_events(bench: JobBench) -> None:
    """One for each line, between the start and the result."""
    listener = Listener(bench)
    assert listener.run("report", "u1", amount=2) == ["starting", "step 0", "step 1", "answer u1"]
    assert all(event.pop("timestamp") for event in listener.events)
    about = {"worker": "w1", "service": "demo", "uuid": "u1", "event_type": "progress", "status": "running"}
    about |= {"task": "report", "resource": [], "severity": "INFO"}  # type: ignore[dict-item]
    assert listener.events[2] == {**about, "message": "step 1"}


def test_norfabs_clients_get_an_event_for_the_end_of_a_job(bench: JobBench) -> None:
    """They show it as the job's last event, also of one that failed; nfcli's, which send a deadline, need none."""
    listener = Listener(bench)
    listener.deadline = None
    assert listener.run("report", "u1") == ["starting", "step 0", "completed", "answer u1"]
    last = {key: listener.events[-1][key] for key in ("event_type", "status", "message", "task")}
    assert last == {"event_type": "result_ready", "status": "completed", "message": "completed", "task": "report"}
    assert listener.run("report", "u2", amount="x") == ["starting", "completed", "answer None"]


def test_progress_after_the_end_of_the_job_is_not_sent(bench: JobBench) -> None:
    """A task's own thread may outlive the job."""
    listener = Listener(bench)
    listener.run("report", "u1")
    bench.contexts.get(timeout=WAIT_SECONDS).progress("too late")
    assert listener.run("report", "u2") == ["starting", "step 0", "answer u2"]


def test_progress_over_the_limit_is_dropped_and_counted(bench: JobBench, caplog: pytest.LogCaptureFixture) -> None:
    """The first lines are sent."""
    caplog.set_level("INFO")
    received = Listener(bench).run("report", "u1", amount=20_000)
    assert received[: LINES_AT_ONCE + 1] == ["starting", *(f"step {n}" for n in range(LINES_AT_ONCE))]
    dropped = 20_000 - (len(received) - 2)
    assert dropped > 10_000
    assert f"task report: progress lines dropped: {dropped}" in caplog.text


def test_progress_needs_no_listener(bench: JobBench) -> None:
    """Neither in a job without one nor in a call that isn't a job."""
    assert bench.run("report", "u1", kwargs={"amount": 3})["result"] == "u1"
    assert bench.worker.registry.run(bench.worker, "report", {}).result == ""


def test_a_completed_job_keeps_no_listener_while_its_context_lives_on(bench: JobBench) -> None:
    """The callback may refer to the client's message."""
    listener = Listener(bench)
    listener.run("report", "u1")
    worker = bench.contexts.get(timeout=WAIT_SECONDS)
    kept = weakref.ref(listener)
    # The thread that ran the job refers to it until it has ended.
    bench.executor.stop()
    del listener
    gc.collect()
    assert kept() is None
    worker.progress("too late")


def test_a_job_whose_result_is_not_delivered_is_no_longer_in_flight(bench: JobBench) -> None:
    """A callback that raises, against its contract, costs neither a thread nor a place."""

    def fail(_payload: bytes) -> None:
        raise OSError

    with pytest.raises(OSError, match=r"^$"):
        bench.executor.submit("c", "u1", JobRequest(task="where"), fail)
    assert bench.executor.counters()["running_jobs"] == 0


def test_results_that_are_not_delivered_end_no_thread(bench: JobBench, caplog: pytest.LogCaptureFixture) -> None:
    """One failure for each thread, and further jobs run; the log has the kind of error alone."""

    def fail(payload: bytes) -> None:
        raise OSError(payload)

    for number in range(THREADS):
        bench.executor.submit(f"c{number}", "u1", JobRequest(task="count"), fail)
        assert bench.run("count", "u2", client=f"c{number}")["failed"] is False
    for number in range(THREADS):
        bench.submit("hold", "u3", client=f"c{number}")
    for _ in range(THREADS):
        bench.entered.get(timeout=WAIT_SECONDS)
    assert caplog.messages == ["result of a job not delivered: OSError"] * THREADS


def test_a_job_that_times_out_in_the_queue_is_not_run(bench: JobBench) -> None:
    """The client no longer waits for it, and expects no change."""
    answer = bench.run("count", "u1", timeout=0)
    assert (answer["status"], answer["failed"], bench.counted) == ("timeout", True, 0)


def test_a_job_that_timed_out_in_the_queue_runs_when_it_is_sent_again(bench: JobBench) -> None:
    """Once, since its uuid counts as used only then."""
    assert [bench.run("count", "u1", timeout=0)["status"] for _ in range(2)] == ["timeout", "timeout"]
    assert bench.counted == 0
    assert [bench.run("count", "u1")["result"] for _ in range(2)] == [1, 1]


def test_a_job_in_the_queue_has_the_longest_of_its_timeouts(bench: JobBench) -> None:
    """All senders get the result."""
    for n in range(THREADS):
        bench.submit("hold", f"h{n}")
    answers = [bench.submit("count", "u1", timeout=seconds) for seconds in (0, 60, 0)]
    bench.gate.set()
    assert [answer.get(timeout=WAIT_SECONDS)["result"] for answer in answers] == [1, 1, 1]


def test_jobs_over_the_limit_are_refused(bench: JobBench) -> None:
    """Until others have ended."""
    bench.restart(jobs_in_flight=1)
    held = bench.submit("hold", "u1")
    bench.entered.get(timeout=WAIT_SECONDS)
    with pytest.raises(TaskError, match="1 jobs are in flight, nothing was done"):
        bench.submit("count", "u2")
    bench.gate.set()
    held.get(timeout=WAIT_SECONDS)
    bench.executor.stop()


def test_bytes_over_the_limit_are_refused_and_can_be_sent_again(bench: JobBench) -> None:
    """The limit is on all queued and running jobs together."""
    bench.restart(bytes_in_flight=100)
    held, counted = SimpleQueue[bytes](), SimpleQueue[bytes]()
    bench.executor.submit("c", "u1", JobRequest(task="hold"), held.put, size=60)
    with pytest.raises(TaskError, match="1 jobs are in flight, nothing was done"):
        bench.executor.submit("c", "u2", JobRequest(task="count"), counted.put, size=41)
    bench.gate.set()
    held.get(timeout=WAIT_SECONDS)
    bench.executor.stop()
    bench.worker.stopping.clear()
    bench.executor.submit("c", "u2", JobRequest(task="where"), counted.put, size=100)
    assert json.loads(counted.get(timeout=WAIT_SECONDS))["w1"]["failed"] is False


def test_callbacks_over_the_limit_are_refused(bench: JobBench) -> None:
    """The others get the result."""
    bench.restart(callbacks=2)
    answers = [bench.submit("hold", "u1") for _ in range(2)]
    with pytest.raises(TaskError, match="2 requests wait for this job"):
        bench.submit("hold", "u1")
    bench.gate.set()
    assert [answer.get(timeout=WAIT_SECONDS)["result"] for answer in answers] == ["let go"] * 2


def test_results_that_show_tokens_are_not_kept(bench: JobBench) -> None:
    """A client may ask for one again for a while; later the listing is run again, and other results are still kept."""
    bench.run("bearer_token_store", "u1", kwargs={"username": "ann", "token": "t1"})
    first = bench.run("bearer_token_list", "u2")
    now = time.monotonic()
    bench.executor.forget_tokens(now)
    assert bench.run("bearer_token_list", "u2") == first
    bench.executor.forget_tokens(time.monotonic() + SHOWN_SECONDS)
    assert bench.executor.find("c", "u2") is None
    assert bench.executor.find("c", "u1") is not None
    assert bench.run("bearer_token_list", "u2") != first  # the age of the token


def test_results_within_the_limits_are_kept(bench: JobBench) -> None:
    """Of all jobs, also when a newer one has ended; the newest one's whatever its size."""
    bench.restart(kept_result_bytes=150_000)
    results = [bench.run("count", f"u{number}") for number in range(5)]
    assert [bench.run("count", f"u{number}") for number in range(5)] == results
    bench.restart(kept_result_bytes=1_000)
    large = bench.run("large", "u1")
    assert bench.run("large", "u1") == large
    assert bench.counted == 5


def test_a_job_that_runs_for_long_keeps_no_others_in_memory(bench: JobBench) -> None:
    """The bound on finished jobs holds while it runs, and it isn't one of them."""
    bench.restart(kept_jobs=3)
    held = bench.submit("hold", "u0")
    bench.entered.get(timeout=WAIT_SECONDS)
    for number in range(1, 21):
        bench.run("count", f"u{number}")
    known = [number for number in range(21) if bench.executor.find("c", f"u{number}") is not None]
    assert known == [0, 18, 19, 20]
    bench.gate.set()
    assert held.get(timeout=WAIT_SECONDS)["result"] == "let go"


def test_a_job_whose_result_is_no_longer_kept_is_not_run_again(bench: JobBench) -> None:
    """Over the limit on bytes the oldest result is discarded; its uuid stays known."""
    bench.restart(kept_result_bytes=150_000)
    bench.run("count", "u1")
    bench.run("large", "u2")
    bench.run("large", "u3")
    reason = "the job was run, but its result is no longer kept: check what it has changed"
    assert bench.run("count", "u1")["errors"] == [reason]
    assert bench.counted == 1
    found = bench.executor.find("c", "u1")
    assert found is not None
    assert (found[0], json.loads(found[1] or b"")["w1"]["errors"]) == (JobState.COMPLETED, [reason])


def test_a_stop_completes_running_jobs_fails_queued_ones_and_refuses_new_ones(bench: JobBench) -> None:
    """Queued jobs change nothing."""
    running = [bench.submit("hold", f"r{n}", client=f"c{n}") for n in range(THREADS)]
    for _ in running:
        bench.entered.get(timeout=WAIT_SECONDS)
    queued = bench.submit("count", "q")
    bench.worker.stopping.set()
    bench.gate.set()
    bench.executor.stop()
    assert [answers.get(timeout=WAIT_SECONDS)["result"] for answers in running] == ["let go"] * THREADS
    assert queued.get(timeout=WAIT_SECONDS)["failed"] is True
    assert bench.counted == 0
    with pytest.raises(TaskError, match="worker w1 is stopping"):
        bench.submit("count", "late")


def test_a_stop_does_not_wait_for_a_hanging_job(bench: JobBench) -> None:
    """Longer than its grace period."""
    bench.submit("hold", "u1")
    bench.entered.get(timeout=WAIT_SECONDS)
    bench.executor.stop(grace_seconds=0.01)
    assert bench.executor.counters()["running_jobs"] == 1


def test_a_job_is_not_begun_after_its_clients_deadline(bench: JobBench) -> None:
    """Whatever its timeout is, which counts from its arrival; before the deadline it is."""
    now = bench.worker.clock()
    late = bench.run("count", "u1", timeout=60, deadline=now - 5)
    (reason,) = late["errors"]
    assert reason.startswith("the job could begin 5.0 s after its deadline only, nothing was done: send it again")
    assert (late["status"], bench.counted) == ("timeout", 0)
    assert bench.executor.counters()["late_jobs"] == 1
    assert bench.run("count", "u2", timeout=60, deadline=now + 60)["result"] == 1


def test_a_job_that_is_sent_again_while_it_is_refused_as_late_is_run(
    bench: JobBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal is of the earlier sending alone."""
    token = {"username": "ann", "token": "token-of-ann"}
    again: SimpleQueue[Any] = SimpleQueue()

    def record(**_: object) -> None:
        again.put(bench.submit("bearer_token_store", "u1", kwargs=token))

    monkeypatch.setattr(bench.worker.audit, "log_failed_change", record)
    late = bench.run("bearer_token_store", "u1", kwargs=token, timeout=60, deadline=bench.worker.clock() - 5)
    assert late["status"] == "timeout"
    assert again.get(timeout=WAIT_SECONDS).get(timeout=WAIT_SECONDS)["result"] is True
    state, payload = bench.executor.find("c", "u1") or (None, b"")
    assert (state, b"true" in (payload or b"")) == ("COMPLETED", True)


def test_a_job_whose_deadline_passes_in_the_queue_is_not_begun(bench: JobBench) -> None:
    """It is compared again when a thread takes the job."""
    now = bench.worker.clock()
    bench.worker.clock = lambda: now
    for n in range(THREADS):
        bench.submit("hold", f"h{n}", client=f"c{n}")
    queued = bench.submit("count", "u1", timeout=60, deadline=now + 5)
    bench.worker.clock = lambda: now + 5
    bench.gate.set()
    assert (queued.get(timeout=WAIT_SECONDS)["status"], bench.counted) == ("timeout", 0)


def test_a_job_without_a_deadline_is_not_begun_if_it_may_have_waited_for_its_timeout(bench: JobBench) -> None:
    """So it is with those of NorFab's clients after a stall; one with a deadline is judged by that."""
    for uuid, waited, deadline in (("u1", 10.0, None), ("u2", 9.0, None), ("u3", 10.0, bench.worker.clock() + 60)):
        answers: SimpleQueue[bytes] = SimpleQueue()
        request = JobRequest(task="count", timeout=10, deadline=deadline)
        bench.executor.submit("c", uuid, request, answers.put, waited_seconds=waited)
        answers.get(timeout=WAIT_SECONDS)
    assert bench.counted == 2


def test_a_job_gets_its_result_in_the_format_that_it_requests(bench: JobBench) -> None:
    """Times with an offset, one page; a job without the key gets what NorFab's clients expect."""
    assert bench.run("bearer_token_store", "u1", kwargs={"username": "ann", "token": "a"})["result"] is True
    wanted = {"times": "iso8601", "page": {"limit": 5}}
    page, plain = bench.run("bearer_token_list", "u2", result_format=wanted), bench.run("bearer_token_list", "u3")
    (row,), (plain_row,) = page["result"]["rows"], plain["result"]
    assert (page["result"]["next"], row["expires"], plain_row["expires"]) == (None, None, "None")
    assert datetime.fromisoformat(row["creation"]).utcoffset() is not None
    assert datetime.fromisoformat(page["task_started"]).utcoffset() is not None
    assert datetime.fromisoformat(plain_row["creation"]).utcoffset() is None
    time.strptime(plain["task_started"])
