"""Lanes: what one kind of task, or one client, can't hold up."""

from queue import SimpleQueue
from typing import Any

import pytest

from nfcli.models.errors import TaskError
from nfcli.worker.jobs.lane_threads import THREADS, JobLimits, LaneLimits
from nfcli.worker.jobs.task import Lane
from support.job_bench import WAIT_SECONDS, JobBench


def hold(bench: JobBench, count: int, client: str = "") -> list["SimpleQueue[dict[str, Any]]"]:
    """Submit tasks that the gate holds, by that client or each by another one."""
    return [bench.submit("hold", f"h{n}", client=client or f"other-{n}") for n in range(count)]


@pytest.mark.parametrize(
    ("lane", "threads", "per_client"), [(Lane.GENERAL, 5, 3), (Lane.CHANGES, 6, 5), (Lane.READS, 3, 2)]
)
def test_limits_of_a_worker_are_these(lane: Lane, threads: int, per_client: int) -> None:
    """Each lane has its own threads and its own bounds on jobs and on the bytes of their requests."""
    limits = JobLimits()
    assert limits.of_lane(lane) == LaneLimits(threads, per_client, jobs_in_flight=1_000, bytes_in_flight=2**23)
    assert (limits.callbacks, limits.kept_jobs, limits.kept_result_bytes) == (100, 10_000, 2**23)


@pytest.mark.parametrize(("task", "threads"), [("hold", 3), ("hold_change", 5), ("hold_read", 2)])
def test_client_has_these_threads_of_each_lane(bench: JobBench, task: str, threads: int) -> None:
    """Its next job waits, and runs once one of them has ended."""
    held = [bench.submit(task, f"h{n}", client="greedy") for n in range(threads + 1)]
    for _ in range(threads):
        bench.entered.get(timeout=WAIT_SECONDS)
    assert [bench.executor.find("greedy", f"h{n}") for n in range(threads + 1)] == [
        *[("STARTED", None)] * threads,
        ("PENDING", None),
    ]
    bench.gate.set()
    assert [answers.get(timeout=WAIT_SECONDS)["result"] for answers in held] == ["let go"] * (threads + 1)


def test_a_token_is_deleted_while_slow_tasks_hold_all_other_threads(bench: JobBench) -> None:
    """A revocation doesn't wait for them."""
    token = {"username": "ann", "token": "token-of-ann"}
    hold(bench, 2 * THREADS)
    assert bench.run("bearer_token_store", "u1", kwargs=token)["result"] is True
    assert bench.run("bearer_token_delete", "u2", kwargs=token)["result"] is True
    assert bench.run("bearer_token_list", "u3")["result"] == []


def test_a_worker_tells_its_state_to_a_client_whose_own_tasks_hold_all_its_threads(bench: JobBench) -> None:
    """So that their owner can see what they do."""
    hold(bench, 2 * THREADS, client="same")
    assert bench.run("get_version", "u1", client="same")["failed"] is False
    bench.gate.set()


def test_a_token_is_deleted_while_others_hold_all_places_in_the_queue(bench: JobBench) -> None:
    """The limit on jobs in flight is one of each lane."""
    bench.restart(jobs_in_flight=20)
    hold(bench, 20)
    with pytest.raises(TaskError, match="20 jobs are in flight"):
        bench.submit("count", "u1", client="one more")
    assert bench.executor.counters()["refused_jobs"] == 1
    assert bench.run("bearer_token_delete", "u2", kwargs={"username": "ann"})["failed"] is False
    bench.gate.set()


def test_one_client_does_not_hold_all_threads(bench: JobBench) -> None:
    """Another client's job runs while its queue is long."""
    hold(bench, 4 * THREADS, client="greedy")
    assert bench.run("count", "u1", client="modest")["result"] == 1


def test_one_client_does_not_hold_all_places_in_the_queue(bench: JobBench) -> None:
    """It is refused before others are."""
    bench.restart(jobs_in_flight=20)
    hold(bench, 10, client="greedy")
    with pytest.raises(TaskError, match=r"this client has 10 jobs in flight, nothing was done"):
        bench.submit("count", "u1", client="greedy")
    assert bench.run("count", "u1", client="modest")["result"] == 1
    bench.gate.set()


def test_clients_take_turns(bench: JobBench) -> None:
    """A job of a client with few waits for one of each other client, not for the whole queue."""
    held = hold(bench, THREADS)
    for _ in held:
        bench.entered.get(timeout=WAIT_SECONDS)
    greedy = [bench.submit("count", f"g{n}", client="greedy") for n in range(50)]
    modest = bench.submit("count", "m", client="modest")
    bench.gate.set()
    assert modest.get(timeout=WAIT_SECONDS)["result"] <= THREADS + 2
    assert max(answers.get(timeout=WAIT_SECONDS)["result"] for answers in greedy) > THREADS + 2


def test_finished_jobs_are_bounded_while_an_old_one_runs(bench: JobBench) -> None:
    """What is running is skipped, not waited for."""
    bench.restart(kept_jobs=5)
    running = bench.submit("hold", "old")
    bench.entered.get(timeout=WAIT_SECONDS)
    for n in range(20):
        bench.run("count", f"u{n}")
    known = [n for n in range(20) if bench.executor.find("c", f"u{n}") is not None]
    assert known == [15, 16, 17, 18, 19]
    bench.gate.set()
    assert running.get(timeout=WAIT_SECONDS)["result"] == "let go"
    assert bench.executor.find("c", "old") is not None
