"""The outcome of a job while it is awaited."""

from typing import Any

import pytest

from nfcli.models.protocol.jobs import Result, ResultStatus
from nfcli.models.protocol.pending_job import PendingJob

NOT_BEGUN = Result(failed=True, errors=["not begun in time"], status=ResultStatus.TIMEOUT).model_dump(mode="json")
UNKNOWN, AUDIT = ", so the outcome is unknown", "show fastmcp audit says what it has changed"
ANSWERS = f"the worker answers again, {AUDIT}"
DONE = Result(result=True).model_dump(mode="json")


def pending(**fields: Any) -> PendingJob:
    """Return a job that waits for one worker."""
    return PendingJob("fastmcp", "t", "u1", b"{}", timeout=3, deadline=0.0, missing={"w1"}, **fields)


def test_an_earlier_sending_that_was_not_begun_is_not_the_result_of_a_repeated_job() -> None:
    """The answer to the last one is; without any, the earlier one tells more than silence."""
    job = pending(may_be_repeated=True)
    job.finish("w1", NOT_BEGUN)
    assert job.missing == {"w1"}
    job.finish("w1", DONE)
    assert (job.results, job.missing) == ({"w1": DONE}, set())
    job = pending(may_be_repeated=True)
    job.finish("w1", NOT_BEGUN)
    job.expire()
    assert (job.results, job.missing) == ({"w1": NOT_BEGUN}, set())


def test_a_job_that_is_sent_once_ends_when_it_was_not_begun() -> None:
    """At once, so that a clock that is wrong is not waited for."""
    job = pending()
    job.finish("w1", NOT_BEGUN)
    assert (job.results, job.missing) == ({"w1": NOT_BEGUN}, set())


@pytest.mark.parametrize(
    ("service", "task", "consequence"),
    [
        ("fastmcp", "bearer_token_delete", f"{UNKNOWN}: once the worker answers again, {AUDIT}"),
        ("fastmcp", "restore_commit", f"{UNKNOWN}: once the worker answers again, {AUDIT}"),
        ("fastmcp", "bearer_token_list", ""),
        ("fastmcp", "get_status", ""),
        ("fastmcp", "a_plugin_s_task", f"{UNKNOWN}: check what it has done before you repeat it"),
        ("demo", "get_status", f"{UNKNOWN}: check what it has done before you repeat it"),
    ],
)
def test_a_missing_answer_says_that_the_outcome_of_a_change_is_unknown(
    service: str, task: str, consequence: str
) -> None:
    """A worker begins no job after its deadline, but it may have begun it before; a read has no outcome to find out."""
    job = pending()
    job.service, job.task = service, task
    job.expire()
    assert job.results["w1"]["errors"] == [f"no answer within 3 s{consequence}"]


@pytest.mark.parametrize(
    ("task", "missing", "line"),
    [
        ("bearer_token_delete", {"w1"}, f"the outcome is unknown on w1, which has not answered: once {ANSWERS}"),
        (
            "bearer_token_store",
            {"w2", "w1"},
            f"the outcome is unknown on w1, w2, which have not answered: once {ANSWERS}",
        ),
        ("a_plugin_s_task", {"w1"}, "the outcome is unknown on w1, which has not answered: check what it has done "),
        ("bearer_token_list", {"w1"}, ""),
        ("bearer_token_delete", set(), ""),
    ],
)
def test_an_interrupted_change_is_unknown_on_the_workers_that_have_not_answered(
    task: str, missing: set[str], line: str
) -> None:
    """The others have made it; nothing follows from a read."""
    job = pending()
    job.task, job.missing = task, missing
    interruption = job.interruption()
    assert (interruption.startswith(line), bool(interruption)) == (True, bool(line))
