"""What the executor says about each job, for metrics."""

from __future__ import annotations

import time

from support.job_bench import WAIT_SECONDS, JobBench


def test_outcome_and_duration_of_each_job_are_observed(bench: JobBench) -> None:
    """Of those that aren't run too; an unknown task has no name."""
    began = time.monotonic()
    held = bench.submit("hold", "u1")
    bench.entered.get(timeout=WAIT_SECONDS)
    bench.run("count", "u2", kwargs={"amount": "x"})
    bench.run("nosuch", "u3")
    bench.run("count", "u4", deadline=bench.worker.clock() - 5)
    bench.gate.set()
    held.get(timeout=WAIT_SECONDS)
    observed = [bench.observed.get(timeout=WAIT_SECONDS) for _ in range(4)]
    assert [each[:2] for each in observed] == [("count", "failed"), ("", "failed"), ("count", "late"), ("hold", "ok")]
    assert all(0 <= seconds <= time.monotonic() - began for _, _, seconds in observed)
