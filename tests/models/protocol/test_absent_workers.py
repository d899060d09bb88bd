"""Workers of a job that the broker doesn't have, and workers that don't know the job."""

import pytest

from nfcli.models.errors import NoWorkersError
from support.fabric.sent_job import GOOD, Sent


def test_a_worker_that_the_broker_no_longer_has_is_not_waited_for() -> None:
    """The broker refuses a GET for it, or leaves it out of several."""
    sent = Sent("w1", "w2", "w3")
    assert sent.asked(2.5) == ["w1", "w2", "w3"]
    sent.receive("202", {"workers": ["w1", "w3"], "target": '["w1","w2","w3"]'}, now=2.5)
    sent.receive("400", {"workers": None, "target": '["w3"]'}, now=2.5)
    sent.receive("200", {"w1": GOOD})
    gone = "worker {} has gone away while the job ran: check what it has done before you repeat it"
    assert sent.values == {"w1": 1, "w2": [gone.format("w2")], "w3": [gone.format("w3")]}


def test_a_worker_that_the_broker_does_not_have_was_never_reached() -> None:
    """Unless it is known better why; a late copy of the broker's answer to the POST doesn't count against others."""
    sent = Sent(workers=["w1", "w2", "w3"])
    better = NoWorkersError("w3 can't start")
    sent.pending.not_started = {"w3": better}
    sent.receive("202", {"workers": ["w1"], "target": '["w1","w2","w3"]'})
    sent.receive("400", {"workers": None, "target": '["w1","w2","w3"]'})
    assert (sent.pending.missing, sent.pending.unreached["w3"]) == ({"w1"}, better)
    line = "worker w2 is not registered at the broker at tcp://b:1: check that it runs, and its log"
    assert str(sent.pending.unreached["w2"]) == line


def test_a_broker_that_refuses_a_post_without_naming_the_workers_has_none_of_them() -> None:
    """It can't be about a GET yet."""
    sent = Sent(workers=["w1", "w2"])
    sent.receive("400", {})
    assert sent.pending.unreached.keys() == {"w1", "w2"}


def test_no_worker_is_dropped_while_workers_register_again() -> None:
    """A broker that has just returned doesn't know them yet."""
    sent = Sent("w1", "w2")
    assert sent.broker.update_connection(is_up=True, handshakes=2, now=1.0)
    sent.job.restart_requests()
    assert sent.asked(1.0) == ["w1", "w2"]
    sent.receive("202", {"workers": ["w1"], "target": '["w1","w2"]'}, now=1.1)
    sent.receive("400", {"target": '["w1","w2"]'}, now=20.9)
    assert sent.pending.missing == {"w1", "w2"}
    sent.receive("400", {"target": '["w2"]'}, now=21.0)
    assert sent.pending.missing == {"w1"}


RESTARTED = "worker w1 was restarted while the job ran: check what it has done before you repeat it"
UNKNOWN = (
    "worker w1 doesn't know the job: it was restarted, or the job was lost on its way: "
    "check what it has done before you repeat it"
)


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize(
    ("steps", "line"),
    [
        # The acknowledgement was there before the GET: the first 404 is final.
        (["201", "GET", "404"], RESTARTED),
        (["GET", "300", "GET", "404"], RESTARTED),
        (["GET", "GET", "300", "404"], RESTARTED),
        (["GET", "201", "404", "GET", "404"], RESTARTED),
        (["GET", "404", "201", "GET", "404"], RESTARTED),
        # The GET may have overtaken the POST: its 404 is not final, even behind the 201.
        (["GET", "404"], None),
        (["GET", "201", "404"], None),
        (["GET", "GET", "201", "404", "404"], None),
        (["GET", "404", "GET", "201", "404"], None),
        (["GET", "GET", "404", "201", "404"], None),
        # Without an acknowledgement the second one is final, if it isn't a copy of the first.
        (["GET", "404", "404"], None),
        (["GET", "404", "GET", "404"], UNKNOWN),
        (["404", "404"], None),
        # A GET that was lost with the connection is not taken for the one that a 404 answers.
        (["GET", "reconnect", "201", "GET", "404"], RESTARTED),
        (["GET", "reconnect", "404"], None),
        # A worker that says it is running has the job, whatever it answered before.
        (["GET", "404", "GET", "300", "GET", "300"], None),
    ],
)
def test_a_404_is_final_only_if_the_worker_must_have_known_the_job(
    steps: list[str], line: str | None, is_named: bool
) -> None:
    """Workers of norfab 0.25.0 answer a GET that overtakes its POST with 404; a result that is possible isn't lost."""
    sent = Sent(workers=["w1"]) if is_named else Sent("w1")
    sent.receive("202", {"workers": ["w1"], "target": '["w1"]'})
    for number, step in enumerate(steps, start=1):
        if step == "GET":
            assert sent.asked(2.5 * number) == ["w1"]
        elif step == "reconnect":
            sent.job.restart_requests()
        else:
            sent.receive(step, {"worker": "w1"}, now=2.5 * number)
    if line is None:
        assert not sent.job.is_done
        sent.receive("200", {"w1": GOOD})
    assert sent.values == {"w1": 1 if line is None else [line]}
