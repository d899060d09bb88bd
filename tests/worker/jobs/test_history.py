"""What is known of a worker's jobs."""

from __future__ import annotations

from support.job_bench import JobBench


def test_arguments_that_no_json_can_hold_keep_no_result_back(bench: JobBench) -> None:
    """Half of a surrogate pair, for instance: it is left out of what is kept of the job."""
    assert bench.run("count", "u1", kwargs={"amount": "\ud800"})["failed"] is True
    assert bench.run("count", "u2", kwargs={"\udfff": 1})["failed"] is True
    assert bench.run("count", "u3")["result"] == 1
