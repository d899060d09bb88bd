"""The state machine of a job that goes through a broker: what it sends, its results and its end."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfcli.models.errors import UsageError
from nfcli.models.protocol.frames import ClientMessage, Command
from nfcli.models.protocol.jobs import CHECK_BEFORE_RETRY, OUTCOME_UNKNOWN
from support.fabric.sent_job import GOOD, POST_DATA, Sent, ready


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({"workers": ["w2", "w1"]}, b'["w1","w2"]'),
        ({"target": "any"}, b"any"),
        ({"target": ["w2", "w1"]}, b'["w2","w1"]'),
    ],
)
def test_the_post_goes_to_the_workers_or_the_target(options: dict[str, Any], target: bytes) -> None:
    """With the job's data."""
    message = ClientMessage.parse(Sent(**options).job.post)
    assert (message.command, message.service, message.target) == (Command.POST, "s", target)
    assert (message.uuid, message.data) == ("u1", POST_DATA)


def test_a_target_that_is_not_unicode_is_refused() -> None:
    """Half a surrogate pair can't be sent."""
    with pytest.raises(UsageError, match="service and workers of t must be valid Unicode"):
        Sent(target="\ud800")


def test_a_job_ends_when_all_dispatched_workers_have_answered() -> None:
    """In one message or several, in any order."""
    sent = Sent("w1", "w2", "w3")
    sent.receive("200", {"w3": GOOD})
    assert not sent.job.is_done
    sent.receive("200", {"w1": {**GOOD, "result": None}, "w2": {"failed": True, "errors": ["no"]}})
    assert sent.values == {"w1": None, "w2": ["no"], "w3": 1}


def test_a_result_that_arrives_before_the_dispatch_counts() -> None:
    """But not that of a worker that the broker then doesn't name."""
    sent = Sent()
    sent.receive("200", {"w1": GOOD, "stranger": GOOD})
    assert not sent.job.is_done
    sent.receive("202", {"workers": ["w1"]})
    assert sent.values == {"w1": 1}


def test_the_first_dispatch_counts_and_so_does_the_first_result() -> None:
    """Repetitions change nothing, and a worker that wasn't asked adds nothing."""
    sent = Sent("w1", "w2")
    sent.receive("202", {"workers": ["w3"], "target": "all"})
    sent.receive("200", {"w1": GOOD})
    sent.receive("200", {"w1": {**GOOD, "result": 2}, "w3": GOOD, "": GOOD})
    sent.receive("200", {"w2": GOOD})
    assert sent.values == {"w1": 1, "w2": 1}


@pytest.mark.parametrize(
    "answer",
    [
        *(None, 1, "text", [], {}, {"result": 1}, {"failed": "no"}, {"failed": 0}),
        *({**GOOD, "errors": "text"}, {**GOOD, "errors": [1]}, {**GOOD, "messages": {}}, {**GOOD, "messages": [None]}),
    ],
)
def test_a_value_that_is_not_a_result_becomes_a_failed_one(answer: Any) -> None:
    """It costs its sender alone."""
    sent = Sent("w1", "w2")
    sent.receive("200", {"w1": answer, "w2": GOOD})
    assert sent.values == {"w1": ["the worker's answer is not a result"], "w2": 1}


MEANINGLESS = [
    *(("200", {}, Command.RESPONSE), ("202", {"workers": None}, Command.RESPONSE), ("", {}, Command.RESPONSE)),
    *(("200", {}, Command.MMI), ("201", {"worker": 1}, Command.RESPONSE), ("404", {"worker": "x"}, Command.RESPONSE)),
    *(("400", {"target": "all"}, Command.RESPONSE), ("500", {"worker": "x"}, Command.RESPONSE)),
    *(("202", {"workers": [], "target": '["x"]'}, Command.RESPONSE), ("200", ready("x"), Command.EVENT)),
    *(("200", {"event_type": "result_ready"}, Command.EVENT), ("200", {"w1": GOOD}, Command.STREAM)),
    ("404", {"worker": "w1"}, Command.RESPONSE),
]
NAMELESS = [
    *(("200", b""), ("200", b"\xff"), ("200", b"NaN"), ("200", [1]), ("200", b"[" * 100_000)),
    *(("400", {"target": "[1]"}), ("400", {"target": {}}), ("500", {})),
]


@pytest.mark.parametrize(
    ("status", "data", "command"), [*MEANINGLESS, *((status, data, Command.RESPONSE) for status, data in NAMELESS)]
)
def test_a_message_without_meaning_changes_nothing(status: str, data: Any, command: bytes) -> None:
    """One that names no worker could be from any of the two."""
    sent = Sent("w1", "w2")
    sent.receive(status, data, command=command)
    assert (sent.asked(1.0), sent.job.is_done) == (None, False)
    sent.receive("200", {"w1": GOOD, "w2": GOOD})
    assert sent.values == {"w1": 1, "w2": 1}


@pytest.mark.parametrize(("status", "data", "command"), MEANINGLESS)
def test_a_message_without_meaning_does_not_end_a_single_worker_s_job(status: str, data: Any, command: bytes) -> None:
    """As long as it doesn't have the status of an answer."""
    sent = Sent("w1")
    sent.receive(status, data, command=command)
    assert (sent.asked(1.0), sent.job.is_done) == (None, False)


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize(("status", "data"), NAMELESS)
def test_an_answer_without_a_name_is_the_only_missing_worker_s(status: str, data: Any, is_named: bool) -> None:
    """Another one to a further GET would be the same."""
    sent = Sent(workers=["w1"]) if is_named else Sent("w1")
    sent.receive("202", {"workers": ["w1"], "target": "w1"})
    sent.receive(status, data)
    line = "the worker's answer is not a result" if status == "200" else f"status {status}"
    assert sent.values == {"w1": [line]}


def test_a_ready_result_is_fetched_once_and_then_polled_with_the_others() -> None:
    """However often the event arrives, also before the dispatch."""
    sent = Sent()
    sent.receive("200", ready("w2"), command=Command.EVENT)
    assert sent.asked(0.1) is None
    sent.receive("202", {"workers": ["w1", "w2"]})
    assert sent.asked(0.1) == ["w2"]
    sent.receive("200", ready("w2"), command=Command.EVENT)
    assert sent.asked(0.2) is None
    assert sent.job.next_time() == 2.5
    assert sent.asked(2.5) == ["w1", "w2"]
    sent.receive("300", {"worker": "w1"}, now=2.5)
    assert sent.asked(2.6) is None
    sent.receive("200", {"w2": GOOD})
    assert sent.asked(4.9) is None
    assert sent.asked(5.0) == ["w1"]


def test_an_unanswered_message_is_followed_by_one_early_request() -> None:
    """After half of the time for which a broker may be silent; then the usual interval counts."""
    sent = Sent(workers=["w1"])
    assert sent.job.next_time() == 1.0
    assert (sent.asked(0.9), sent.asked(1.0), sent.asked(3.4), sent.asked(3.5)) == (None, ["w1"], None, ["w1"])
    assert Sent(workers=["w1"], silence=0.0).job.next_time() == 2.5


def test_requests_are_repeated_at_once_over_a_new_connection() -> None:
    """Those under way were lost with the old one."""
    sent = Sent("w1")
    sent.job.restart_requests()
    assert sent.asked(0.1) == ["w1"]
    unposted = Sent()
    unposted.job.restart_requests()
    unposted.receive("202", {"workers": ["w1"]})
    assert unposted.asked(0.1) is None


def test_a_workers_refusal_is_its_failed_result_on_one_line() -> None:
    """The reason is the worker's own."""
    sent = Sent("w1", "w2")
    sent.receive("500", {"worker": "w1", "error": "out of\n  order"})
    sent.receive("200", {"w2": GOOD})
    assert sent.values == {"w1": ["out of order"], "w2": 1}


def test_progress_of_missing_workers_is_reported() -> None:
    """But not the messages that workers send for every job."""
    sent = Sent("w1", "w2")
    sent.receive("200", {"w2": GOOD})
    for worker, message in (("w1", "starting"), ("w1", "3 of 10"), ("w2", "late"), ("x", "psst")):
        data = {"worker": worker, "event_type": "progress", "message": message}
        sent.receive("200", data, command=Command.EVENT)
    assert sent.progress == [("w1", "3 of 10")]


@pytest.mark.parametrize("data", [{"target": "all"}, {"target": "all", "errors": ["x"], "workers": None}, {}])
def test_a_service_without_workers_is_one_line(data: dict[str, Any]) -> None:
    """With the remedy."""
    sent = Sent()
    sent.receive("400", data)
    assert sent.error == (
        "the broker at tcp://b:1 has no worker of service s: show norfab workers lists the registered ones"
    )


def test_a_dispatch_to_no_worker_or_to_too_many_is_an_error() -> None:
    """A name that can't be sent is refused."""
    none, many = Sent(), Sent("w1", "w2", "w3", max_workers=2)
    none.receive("202", {"workers": [1, None, "\ud800"]})
    assert "has no worker of service s" in none.error
    assert many.error == "service s has more than 2 workers: name some of them"


def test_early_results_of_more_workers_than_the_bound_are_dropped() -> None:
    """They could be anything; those of the workers that the broker then names are fetched."""
    sent = Sent(max_workers=2)
    sent.receive("200", {"x1": GOOD, "x2": GOOD, "w1": GOOD})
    sent.receive("202", {"workers": ["w1"]})
    assert sent.asked(2.5) == ["w1"]


def test_at_the_deadline_missing_results_are_timeouts_and_the_others_stay() -> None:
    """It is counted from the start, whatever arrives meanwhile."""
    sent = Sent("w1", "w2", timeout=10.0)
    sent.receive("200", {"w1": GOOD})
    sent.receive("300", {"worker": "w2"})
    sent.advance(9.99)
    assert not sent.job.is_done
    sent.advance(10.0)
    assert sent.values == {"w1": 1, "w2": [f"no answer within 10 s, {OUTCOME_UNKNOWN}: {CHECK_BEFORE_RETRY}"]}
    late = sent.pending.results["w2"]
    expected = {"failed": True, "status": "timeout", "task": "t", "service": "s", "juuid": "u1"}
    assert {key: late[key] for key in expected} == expected


@pytest.mark.parametrize(("timeout", "seconds"), [(60.0, 2.5), (1.0, 1.0)])
def test_a_broker_that_does_not_accept_a_job_is_reported_soon(timeout: float, seconds: float) -> None:
    """Long before the time-out; a result without a dispatch doesn't count."""
    sent = Sent(timeout=timeout)
    sent.receive("200", {"w1": GOOD})
    assert sent.job.next_time() == seconds
    sent.advance(seconds - 0.01)
    assert not sent.job.is_done
    sent.advance(seconds)
    assert sent.error == (
        f"the broker at tcp://b:1 did not accept the job within {seconds:g} s: "
        "check what it has done before you repeat it"
    )


def test_a_job_that_could_not_be_sent_fails_with_the_connections_error() -> None:
    """Nothing has happened."""
    sent = Sent()
    sent.job.is_posted = False
    sent.advance(2.5)
    assert sent.error == "the broker at tcp://b:1 has gone away"


def test_a_lost_broker_ends_the_jobs_that_run() -> None:
    """Results that have arrived stay; two seconds of silence and twenty of waiting are over by then."""
    sent = Sent("w1", "w2")
    sent.receive("200", {"w1": GOOD})
    assert sent.asked(2.5) == ["w2"]
    sent.advance(24.4)
    assert not sent.job.is_done
    sent.advance(24.5)
    reason = "the job was running on w2: check what it has done before you repeat it"
    assert sent.values == {"w1": 1, "w2": [f"the broker at tcp://b:1 has gone away; {reason}"]}


def test_a_job_is_due_when_its_broker_is_lost() -> None:
    """Not only when the next request is."""
    sent = Sent("w1", silence=0.0)
    assert sent.asked(2.5) == ["w1"]
    for now in (5.0, 7.5, 10.0, 12.5, 15.0, 17.5, 20.0, 22.4):
        assert sent.job.next_time() <= 22.5
        sent.job.request(now)
    assert sent.job.next_time() == 22.5


def test_a_result_that_is_too_large_costs_its_worker_alone() -> None:
    """A message beyond the bound isn't decoded; several results together may be beyond it, too."""
    sent = Sent("w1", "w2", "w3", "w4", max_result_bytes=200)
    sent.receive("200", b'{"w1": ' + b"[" * 200)
    for worker in ("w2", "w3"):
        sent.receive("200", {worker: {**GOOD, "result": "x" * 100}})
    sent.receive("200", b"[" * 201)
    sent.receive("200", b'{"\\ud8zz":' + b"[" * 201)
    sent.receive("200", {"w4": GOOD})
    too_large = ["the result is larger than the 200 bytes that a job may bring"]
    assert sent.values == {"w1": too_large, "w2": "x" * 100, "w3": too_large, "w4": 1}


NAMES = st.sampled_from(["w1", "w2", "stranger", "all", "", "\ud800"])
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | NAMES, lambda inner: st.lists(inner, max_size=3))
DATA = st.dictionaries(
    st.sampled_from(["worker", "workers", "target", "event_type", "error", "errors", "status", "failed"]) | NAMES,
    VALUES | st.just(GOOD) | st.sampled_from(["result_ready", "progress", '["w1"]', '["w1","w2"]', "[1]"]),
    max_size=4,
)
MESSAGES = st.tuples(
    st.sampled_from(["102", "200", "201", "202", "300", "400", "404", "500", "", "x"]),
    DATA | VALUES | st.binary(max_size=8),
    st.sampled_from([Command.RESPONSE, Command.EVENT, Command.MMI, Command.STREAM]),
    st.booleans(),
)


@settings(deadline=None)
@given(st.sampled_from(["named", "dispatched", "unknown"]), st.lists(MESSAGES, max_size=12))
def test_any_messages_end_in_a_result_for_each_worker_or_in_one_error(
    kind: str, messages: list[tuple[str, Any, bytes, bool]]
) -> None:
    """At the deadline at the latest; no message raises, and each result has all fields."""
    sent = {
        "named": lambda: Sent(workers=["w1", "w2"]),
        "dispatched": lambda: Sent("w1", "w2"),
        "unknown": Sent,
    }[kind]()
    for number, (status, data, command, is_reconnected) in enumerate(messages):
        if is_reconnected:
            sent.broker.update_connection(is_up=True, handshakes=2 + number, now=float(number))
            sent.job.restart_requests()
        sent.receive(status, data, command=command, now=float(number))
        sent.job.request(float(number))
    sent.advance(60.0)
    if sent.job.error is None:
        assert sent.values.keys() == {"w1", "w2"} or kind == "unknown"
    else:
        assert (kind, sent.error.count("\n")) == ("unknown", 0)
