"""A job sent through a broker, message by message, with a clock that the test moves."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfcli.models.errors import NfcliError, NoWorkersError, UsageError
from nfcli.models.protocol.frames import BrokerMessage, ClientMessage, Command
from nfcli.models.protocol.jobs import Result
from nfcli.worker.fabric import job as sent_job
from nfcli.worker.fabric.job import Patience, SentJob

PATIENCE = Patience(poll=2.5, answer=2.5, comeback=20.0)
GONE = "worker {} has gone away while the job ran: look what it has done before you repeat it"
RESTARTED = "the worker was restarted while the job ran: look what it has done before you repeat it"
NOT_A_RESULT = "the worker's answer is not a result"
GOOD = {"result": 1, "failed": False}


class Sent:
    """A job of service `s`, posted at second 0, and what is said to it."""

    def __init__(self, *workers: str, timeout: float = 60.0) -> None:
        self.job = SentJob("s", "t", {"a": 1}, "all", endpoint="tcp://b:1", timeout=timeout, now=0.0, patience=PATIENCE)
        self.job.is_posted = True
        if workers:
            self.say("202", {"workers": list(workers), "target": "all"})

    def say(self, status: str, data: Any, *, command: bytes = Command.RESPONSE, is_settling: bool = False) -> None:
        """Let a message come; bytes as they are."""
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        message = BrokerMessage(command, "s", self.job.uuid, status, payload)
        self.job.receive(message, is_settling=is_settling)
        self.job.settle()

    def look(self, now: float, *, is_lost: bool = False) -> None:
        """Let time pass."""
        self.job.look_at_time(now, "the broker at tcp://b:1 has gone away", is_lost=is_lost)
        self.job.settle()

    def asked(self, now: float) -> list[str] | None:
        """Return who is asked for results at this time, None for nobody."""
        frames = self.job.question(now)
        if frames is None:
            return None
        message = ClientMessage.parse(frames)
        assert (message.command, message.service, message.uuid) == (Command.GET, "s", self.job.uuid)
        return json.loads(message.target)

    @property
    def values(self) -> dict[str, Any]:
        """The value of each result, or the errors of a failed one."""
        results = self.job.future.result(timeout=0)
        assert all(result.keys() == Result.model_fields.keys() for result in results.values())
        return {name: result["errors"] if result["failed"] else result["result"] for name, result in results.items()}

    @property
    def error(self) -> BaseException | None:
        """What the job ended with."""
        return self.job.future.exception(timeout=0)


def ready(worker: str) -> dict[str, str]:
    """Return the data of an event that tells of a result."""
    return {"worker": worker, "event_type": "result_ready"}


def test_the_post_is_what_norfab_expects() -> None:
    """Arguments are named and the time-out is whole seconds."""
    job = SentJob("s", "t", {"a": 1}, ["w1"], endpoint="tcp://b:1", timeout=1.5, now=0.0, patience=PATIENCE)
    message = ClientMessage.parse(job.post)
    assert (message.command, message.service, message.target) == (Command.POST, "s", b'["w1"]')
    assert json.loads(message.data) == {"task": "t", "kwargs": {"a": 1}, "args": [], "timeout": 2}


def test_a_job_is_over_when_all_dispatched_workers_have_answered() -> None:
    """Joint or split, in whatever order."""
    sent = Sent("w1", "w2", "w3")
    sent.say("200", {"w3": GOOD})
    assert not sent.job.future.done()
    sent.say("200", {"w1": {**GOOD, "result": None}, "w2": {"failed": True, "errors": ["no"]}})
    assert sent.values == {"w1": None, "w2": ["no"], "w3": 1}
    assert list(sent.job.future.result()) == ["w1", "w2", "w3"]


def test_a_result_that_comes_before_it_is_known_who_was_to_send_one_counts() -> None:
    """A broker's 202 may be overtaken, nobody else's result slips in with it."""
    sent = Sent()
    sent.say("200", {"w1": GOOD, "stranger": GOOD})
    assert not sent.job.future.done()
    sent.say("202", {"workers": ["w1"]})
    assert sent.values == {"w1": 1}


def test_the_first_dispatch_counts_and_so_does_the_first_result() -> None:
    """Repetitions change nothing, and nobody who wasn't asked gets in."""
    sent = Sent("w1", "w2")
    sent.say("202", {"workers": ["w3"], "target": "all"})
    sent.say("200", {"w1": GOOD})
    sent.say("200", {"w1": {**GOOD, "result": 2}, "w3": GOOD, "": GOOD})
    sent.say("200", {"w2": GOOD})
    assert sent.values == {"w1": 1, "w2": 1}


@pytest.mark.parametrize(
    "answer",
    [
        *(None, 1, "text", [], {}, {"result": 1}, {"failed": "no"}, {"failed": 0}),
        *({**GOOD, "errors": "text"}, {**GOOD, "errors": [1]}, {**GOOD, "messages": {}}, {**GOOD, "messages": [None]}),
    ],
)
def test_what_is_no_result_becomes_a_failed_one(answer: Any) -> None:
    """It costs its sender alone."""
    sent = Sent("w1", "w2")
    sent.say("200", {"w1": answer, "w2": GOOD})
    assert sent.values == {"w1": [NOT_A_RESULT], "w2": 1}


@pytest.mark.parametrize(
    ("status", "data", "command"),
    [
        *(("200", b"", Command.RESPONSE), ("200", b"\xff", Command.RESPONSE), ("200", b"NaN", Command.RESPONSE)),
        *(("200", [1], Command.RESPONSE), ("200", b"[" * 100_000, Command.RESPONSE), ("200", {}, Command.RESPONSE)),
        *(("202", {"workers": None}, Command.RESPONSE), ("", {}, Command.RESPONSE), ("200", {}, Command.MMI)),
        *(("201", {"worker": 1}, Command.RESPONSE), ("404", {"worker": "w2"}, Command.RESPONSE)),
        *(("400", {"target": "[1]"}, Command.RESPONSE), ("400", {"target": {}}, Command.RESPONSE)),
        *(("400", {"target": "all"}, Command.RESPONSE), ("500", {"worker": "w2"}, Command.RESPONSE)),
        *(("202", {"workers": [], "target": '["w2"]'}, Command.RESPONSE), ("200", ready("w2"), Command.EVENT)),
        *(("200", {"event_type": "result_ready"}, Command.EVENT), ("200", {"w1": GOOD}, Command.STREAM)),
    ],
)
def test_a_message_that_means_nothing_changes_nothing(status: str, data: Any, command: bytes) -> None:
    """Neither before the dispatch nor behind it."""
    sent = Sent("w1")
    sent.say(status, data, command=command)
    assert (sent.asked(1.0), sent.job.future.done()) == (None, False)
    sent.say("200", {"w1": GOOD})
    assert sent.values == {"w1": 1}


def test_a_result_that_is_ready_is_fetched_once_and_then_asked_for_with_the_others() -> None:
    """However often it's said that it is ready, and if that was said before the dispatch."""
    sent = Sent()
    sent.say("200", ready("w2"), command=Command.EVENT)
    assert sent.asked(0.1) is None
    sent.say("202", {"workers": ["w1", "w2"]})
    assert sent.asked(0.1) == ["w2"]
    sent.say("200", ready("w2"), command=Command.EVENT)
    assert sent.asked(0.2) is None
    assert sent.job.next_time() == 2.5
    assert sent.asked(2.5) == ["w1", "w2"]
    assert sent.asked(2.6) is None
    sent.say("200", {"w2": GOOD})
    assert sent.asked(4.9) is None
    assert sent.asked(5.0) == ["w1"]


def test_a_worker_that_the_broker_no_longer_has_is_not_waited_for() -> None:
    """It refuses the question for one, or leaves one out of several."""
    sent = Sent("w1", "w2", "w3")
    sent.say("202", {"workers": ["w1", "w3"], "target": '["w1","w2","w3"]'})
    sent.say("400", {"workers": None, "target": '["w3"]'})
    sent.say("200", {"w1": GOOD})
    assert sent.values == {"w1": 1, "w2": [GONE.format("w2")], "w3": [GONE.format("w3")]}


def test_while_workers_register_again_none_is_given_up() -> None:
    """A broker that is just back doesn't know them yet."""
    sent = Sent("w1", "w2")
    sent.say("202", {"workers": ["w1"], "target": '["w1","w2"]'}, is_settling=True)
    sent.say("400", {"target": '["w1","w2"]'}, is_settling=True)
    sent.say("200", {"w1": GOOD, "w2": GOOD})
    assert sent.values == {"w1": 1, "w2": 1}


def test_a_worker_that_forgot_the_job_was_restarted() -> None:
    """It had taken it, or has been asked twice: a question may overtake its job once."""
    sent = Sent("w1", "w2")
    sent.say("201", {"worker": "w1"})
    sent.say("404", {"worker": "w1"})
    sent.say("404", {"worker": "w2"})
    assert not sent.job.future.done()
    sent.say("404", {"worker": "w2"})
    assert sent.values == {"w1": [RESTARTED], "w2": [RESTARTED]}


def test_a_workers_refusal_is_its_failed_result_on_one_line() -> None:
    """The reason is the worker's own."""
    sent = Sent("w1", "w2")
    sent.say("500", {"worker": "w1", "error": "out of\n  order"})
    sent.say("200", {"w2": GOOD})
    assert sent.values == {"w1": ["out of order"], "w2": 1}


@pytest.mark.parametrize("data", [{"target": "all"}, {"target": "all", "errors": ["x"], "workers": None}, {}])
def test_a_service_without_workers_is_one_line(data: dict[str, Any]) -> None:
    """With the remedy."""
    sent = Sent()
    sent.say("400", data)
    assert isinstance(sent.error, NoWorkersError)
    remedy = "show norfab workers names those there are"
    assert str(sent.error) == f"the broker at tcp://b:1 has no worker of service s: {remedy}"


def test_a_dispatch_to_nobody_or_to_too_many_is_refused() -> None:
    """Names that can't be sent are nobody's."""
    nobody, many = Sent(), Sent(*(f"w{number}" for number in range(sent_job.MAX_WORKERS + 1)))
    nobody.say("202", {"workers": [1, None, "\ud800"]})
    assert [type(sent.error) for sent in (nobody, many)] == [NoWorkersError, NoWorkersError]
    assert str(many.error) == "service s has more than 1000 workers: name some of them"


def test_at_the_deadline_missing_results_are_timeouts_and_the_others_stay() -> None:
    """The deadline is that of the start, whatever came meanwhile."""
    sent = Sent("w1", "w2", timeout=10.0)
    sent.say("200", {"w1": GOOD})
    sent.say("300", {"worker": "w2"})
    sent.look(9.99)
    assert not sent.job.future.done()
    sent.look(10.0)
    assert sent.values == {"w1": 1, "w2": ["no answer within 10 s"]}
    late = sent.job.future.result()["w2"]
    expected = {"failed": True, "status": "timeout", "task": "t", "service": "s", "juuid": sent.job.uuid}
    assert {key: late[key] for key in expected} == expected


@pytest.mark.parametrize(("timeout", "seconds"), [(60.0, 2.5), (1.0, 1.0)])
def test_a_broker_that_does_not_take_a_job_is_told_soon(timeout: float, seconds: float) -> None:
    """Long before the time-out; a result without a dispatch doesn't count."""
    sent = Sent(timeout=timeout)
    sent.say("200", {"w1": GOOD})
    assert sent.job.next_time() == seconds
    sent.look(seconds)
    assert isinstance(sent.error, NoWorkersError)
    expected = f"did not take the job within {seconds:g} s: look what it has done before you repeat it"
    assert str(sent.error) == f"the broker at tcp://b:1 {expected}"


def test_a_job_that_could_not_be_sent_says_why() -> None:
    """The connection knows."""
    sent = Sent()
    sent.job.is_posted = False
    sent.look(2.5)
    assert str(sent.error) == "the broker at tcp://b:1 has gone away"


def test_a_lost_broker_ends_what_it_had_taken() -> None:
    """Results that are there already stay."""
    sent = Sent("w1", "w2")
    sent.say("200", {"w1": GOOD})
    sent.look(5.0, is_lost=True)
    reason = "the broker at tcp://b:1 has gone away; the job was under way, look what it has done before you repeat it"
    assert sent.values == {"w1": 1, "w2": [reason]}


def test_a_result_that_is_too_large_costs_its_worker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone too large it isn't even read; together with what others sent it is one too many."""
    monkeypatch.setattr(sent_job, "MAX_RESULT_BYTES", 200)
    sent = Sent("w1", "w2", "w3", "w4")
    sent.say("200", b'{"w1": ' + b"[" * 200)
    for worker in ("w2", "w3"):
        sent.say("200", {worker: {**GOOD, "result": "x" * 100}})
    sent.say("200", b"[" * 201)
    sent.say("200", b'{"\\ud8zz":' + b"[" * 201)
    sent.say("200", {"w4": GOOD})
    too_large = ["the result is larger than the 200 bytes that a job may bring"]
    assert sent.values == {"w1": too_large, "w2": "x" * 100, "w3": too_large, "w4": 1}


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_time_out_is_a_positive_number(timeout: float) -> None:
    """Decided before anything is sent."""
    with pytest.raises(UsageError, match="timeout must be a positive number of seconds"):
        Sent(timeout=timeout)


@pytest.mark.parametrize(
    ("service", "target", "argument"), [("s", "all", {1}), ("s", "all", float("nan")), ("\ud800", "all", 1)]
)
def test_what_can_not_be_sent_is_refused(service: str, target: str, argument: Any) -> None:
    """With a line that says what can."""
    message = "the arguments of t must be values that JSON knows, in valid Unicode"
    with pytest.raises(UsageError, match=message):
        SentJob(service, "t", {"a": argument}, target, endpoint="", timeout=1, now=0.0, patience=PATIENCE)


def test_a_job_that_has_ended_ends_once() -> None:
    """Whoever gave up first is right."""
    sent = Sent("w1")
    sent.job.future.cancel()
    sent.say("200", {"w1": GOOD})
    sent.job.fail(NfcliError("late"))
    assert sent.job.future.cancelled()


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
@given(st.booleans(), st.lists(MESSAGES, max_size=12))
def test_whatever_comes_a_job_ends_with_a_result_for_each_worker_or_one_line(
    is_dispatched: bool, messages: list[tuple[str, Any, bytes, bool]]
) -> None:
    """At its deadline at the latest; no message raises, and the results are whole."""
    sent = Sent(*(("w1", "w2") if is_dispatched else ()))
    for number, (status, data, command, is_settling) in enumerate(messages):
        sent.say(status, data, command=command, is_settling=is_settling)
        sent.job.question(float(number))
    sent.look(60.0)
    if sent.error is None:
        assert sent.values.keys() == {"w1", "w2"} or not is_dispatched
    else:
        assert isinstance(sent.error, NoWorkersError)
        assert not is_dispatched
