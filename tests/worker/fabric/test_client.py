"""Jobs that a worker sends to other services: targets, bounds, hostile answers, cancellation and stopping."""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import wait as wait_for_all
from typing import Any

import pytest
import zmq

from nfcli.models.environment.curve_keys import KeyPair
from nfcli.models.errors import NfcliError, NoWorkersError, UsageError
from nfcli.models.protocol.frames import BrokerMessage, Command
from nfcli.worker.fabric.client import FabricClient
from nfcli.worker.fabric.job import OutgoingJob
from support.fabric.hub import answers, is_asked, is_busy, is_silent, pushes, ready, reply_frames, result
from support.fabric.services import values
from support.mcp.served_worker import WAIT_SECONDS

SHORT = 1.0

Connect = Callable[..., FabricClient]


def run(client: FabricClient, service: str = "s", *, timeout: float = WAIT_SECONDS, **target: Any) -> dict[str, Any]:
    """Run a task and return the values or errors of its results."""
    return values(client.submit(service, "t", {"a": 1}, timeout=timeout, **target).result())


def test_all_workers_of_a_service_answer(hub: Any, connect_fabric: Connect) -> None:
    """Those that push their results and those whose results are fetched."""
    hub.workers = {"w1": ("s", pushes(1)), "w2": ("s", is_asked([2])), "w3": ("other", pushes(3))}
    client = connect_fabric()
    assert run(client) == {"w1": 1, "w2": [2]}
    assert run(client, "other") == {"w3": 3}


@pytest.mark.parametrize(
    ("target", "expected", "frame"),
    [
        ("all", {"w1": 1, "w2": 2}, b"all"),
        ("any", {"w1": 1}, b"any"),
        ("w2", {"w2": 2}, b"w2"),
        (["w2", "w3"], {"w2": 2}, b'["w2","w3"]'),
    ],
)
def test_a_job_goes_to_its_target(
    hub: Any, connect_fabric: Connect, target: Any, expected: dict[str, int], frame: bytes
) -> None:
    """The broker selects the workers."""
    hub.workers = {"w1": ("s", pushes(1)), "w2": ("s", pushes(2))}
    assert run(connect_fabric(), target=target) == expected
    message = hub.wait_for(Command.POST)
    data = json.loads(message.data)
    assert data.pop("deadline") > 0
    assert (message.target, data) == (
        frame,
        {"task": "t", "kwargs": {"a": 1}, "args": [], "timeout": WAIT_SECONDS},
    )


def test_a_result_whose_event_was_lost_is_polled(hub: Any, connect_fabric: Connect) -> None:
    """Until it arrives."""
    hub.workers = {"w1": ("s", is_asked(1, tells=False)), "w2": ("s", is_busy)}
    job = connect_fabric().submit("s", "t", {}, timeout=WAIT_SECONDS)
    hub.wait_for(Command.GET, 3)
    hub.workers["w2"] = ("s", is_asked(2))
    assert values(job.result(WAIT_SECONDS)) == {"w1": 1, "w2": 2}


def test_a_result_that_overtakes_the_202_counts(hub: Any, connect_fabric: Connect) -> None:
    """No GET is needed for it."""
    hub.workers, hub.results_first = {"w1": ("s", pushes(1))}, True
    assert run(connect_fabric(poll=WAIT_SECONDS)) == {"w1": 1}


def test_many_jobs_run_at_once_and_each_gets_its_own_result(hub: Any, connect_fabric: Connect) -> None:
    """They are answered in reverse order, after all have been sent."""
    hub.workers = {"w1": ("s", is_silent)}
    client = connect_fabric(poll=WAIT_SECONDS)
    jobs = [client.submit("s", "t", {"number": number}, timeout=WAIT_SECONDS) for number in range(150)]
    posts = [hub.wait_for(Command.POST) for _ in jobs]
    assert client.counters()["running"] == 150
    for post in reversed(posts):
        hub.send(reply_frames(post, "200", {"w1": result(json.loads(post.data)["kwargs"]["number"])}))
    assert wait_for_all(jobs, WAIT_SECONDS).not_done == set()
    assert [values(job.result()) for job in jobs] == [{"w1": number} for number in range(150)]
    assert client.counters() == {"jobs": 150, "running": 0, "received": 300, "sent": 150, "invalid": 0, "reconnects": 0}


def test_more_jobs_than_the_bound_are_refused_with_one_line(hub: Any, connect_fabric: Connect) -> None:
    """Running ones continue, and another one is accepted when one has ended."""
    hub.workers = {"w1": ("s", is_silent), "w2": ("quick", pushes(2))}
    client = connect_fabric(max_jobs=2)
    first, _ = (client.submit("s", "t", {}, timeout=WAIT_SECONDS) for _ in range(2))
    with pytest.raises(NfcliError, match="2 jobs for other services are running: try again when some have ended"):
        run(client, "quick")
    first.cancel()
    assert run(client, "quick") == {"w2": 2}


def test_a_service_without_workers_is_one_line(hub: Any, connect_fabric: Connect) -> None:
    """At once."""
    with pytest.raises(NoWorkersError) as caught:
        run(connect_fabric())
    assert str(caught.value).startswith(f"the broker at {hub.endpoint} ")


def test_a_silent_worker_has_a_failed_result_at_the_deadline(hub: Any, connect_fabric: Connect) -> None:
    """As one that is still busy."""
    hub.workers = {"w1": ("s", is_silent), "w2": ("s", is_busy)}
    client = connect_fabric()
    client.workers()
    errors = run(client, timeout=SHORT)
    assert errors.keys() == {"w1", "w2"}
    assert all(reason.startswith(f"no answer within {SHORT:g} s, ") for (reason,) in errors.values())


def test_a_worker_that_is_gone_from_the_broker_is_not_waited_for(hub: Any, connect_fabric: Connect) -> None:
    """The answer to the GET shows it."""
    hub.workers = {"w1": ("s", is_busy)}
    job = connect_fabric().submit("s", "t", {}, timeout=WAIT_SECONDS)
    hub.wait_for(Command.GET)
    hub.workers = {}
    assert "worker w1 " in values(job.result(WAIT_SECONDS))["w1"][0]


HOSTILE = [
    lambda _name, _message: [b""],
    lambda _name, _message: [b""] * 7,
    lambda _name, message: reply_frames(message, "200", b"{"),
    lambda _name, message: reply_frames(message, "200", b"[" * 200_000),
    lambda _name, message: reply_frames(message, "\N{GRINNING FACE}", {}),
    lambda _name, message: reply_frames(message, "200", {"w2": result(2)}),
    lambda _name, message: reply_frames(message, "202", {"workers": ["w2"], "target": "any"}),
    lambda _name, message: reply_frames(message, "400", ["x"]),
    lambda _name, message: reply_frames(message, "404", {"worker": ["w1"]}),
    lambda _name, message: reply_frames(message, "200", {"worker": {}, "event_type": []}, Command.EVENT),
    lambda _name, message: reply_frames(message, "200", b"\xff", Command.STREAM),
    lambda _name, message: reply_frames(message, "200", [], Command.MMI),
    lambda name, message: [*ready(name, message)[:4], b"another", *ready(name, message)[5:]],
    lambda name, message: [*ready(name, message)[:4], b"\xff", *ready(name, message)[5:]],
]


def test_after_hostile_messages_the_next_answer_counts(hub: Any, connect_fabric: Connect) -> None:
    """None of them ends the thread or affects another worker's result."""
    end = lambda name, message: reply_frames(message, "200", {name: result(1)})  # noqa: E731  one of the list's own kind
    # While the result of w3 is missing, too, an answer that names no worker could be from either.
    hub.workers = {"w1": ("s", answers(*HOSTILE, end)), "w2": ("other", pushes(2)), "w3": ("s", is_asked(3))}
    client = connect_fabric(poll=WAIT_SECONDS)
    for _ in range(3):
        assert run(client) == {"w1": 1, "w3": 3}
        assert run(client, "other") == {"w2": 2}


def test_an_unexpected_error_costs_one_message(
    hub: Any, connect_fabric: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged and counted, and the next message is handled."""
    seen: list[str] = []

    def receive(job: OutgoingJob, message: BrokerMessage, now: float) -> None:
        seen.append(message.status)
        if len(seen) == 2:
            raise KeyError
        real(job, message, now)

    real = OutgoingJob.receive
    monkeypatch.setattr(OutgoingJob, "receive", receive)
    hub.workers = {"w1": ("s", pushes(1))}
    client = connect_fabric()
    assert run(client) == {"w1": 1}
    assert (seen[:3], client.counters()["invalid"]) == (["202", "201", "200"], 1)


def test_a_cancelled_job_is_dropped_at_once(hub: Any, connect_fabric: Connect) -> None:
    """Its late results are ignored."""
    hub.workers = {"w1": ("s", is_busy), "w2": ("other", pushes(2))}
    client = connect_fabric()

    async def main() -> None:
        job = asyncio.create_task(client.run_job("s", "t", {}, timeout=WAIT_SECONDS))
        await asyncio.to_thread(hub.wait_for, Command.GET)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert client.counters()["running"] == 0
        assert values(await client.run_job("other", "t", {}, timeout=WAIT_SECONDS)) == {"w2": 2}

    asyncio.run(main())
    hub.send(*(reply_frames(hub.log[0], "200", {"w1": result(1)}) for _ in range(3)))
    assert values(client.submit("other", "t", {}, timeout=WAIT_SECONDS).result()) == {"w2": 2}


def test_an_awaited_job_raises_the_errors_of_a_blocking_one(connect_fabric: Connect) -> None:
    """Raised before sending or caused by the broker's answer."""
    client = connect_fabric()

    async def main() -> None:
        with pytest.raises(NoWorkersError, match="service s"):
            await client.run_job("s", "t", {}, timeout=WAIT_SECONDS)
        with pytest.raises(UsageError, match="must be JSON values"):
            await client.run_job("s", "t", {"a": {1}}, timeout=WAIT_SECONDS)

    asyncio.run(main())


def test_stopping_fails_all_jobs_at_once(hub: Any, connect_fabric: Connect) -> None:
    """And refuses later ones, with the same line."""
    hub.workers = {"w1": ("s", is_busy)}
    client = connect_fabric()
    jobs = [client.submit("s", "t", {}, timeout=WAIT_SECONDS) for _ in range(3)]
    hub.wait_for(Command.GET)
    hub.says_nothing = True
    started = time.monotonic()
    client.stop()
    stopped = "this worker is stopping: its jobs for other services are cancelled"
    assert [str(job.exception(0)) for job in jobs] == [stopped] * 3
    assert time.monotonic() - started < WAIT_SECONDS / 2
    for late in (lambda: run(client), client.workers):
        with pytest.raises(NfcliError, match=stopped):
            late()
    assert client.counters()["running"] == 0


def test_a_client_that_was_never_started_can_be_stopped(hub: Any) -> None:
    """It refuses jobs."""
    client = FabricClient("w0", hub.address, KeyPair(*zmq.curve_keypair()))
    with pytest.raises(NfcliError):
        run(client)
    client.stop()


def test_stopping_fails_a_request_to_the_broker(hub: Any, connect_fabric: Connect) -> None:
    """With the same line as jobs."""
    client = connect_fabric()
    hub.says_nothing = True

    async def main() -> None:
        asked = asyncio.create_task(asyncio.to_thread(client.workers))
        await asyncio.to_thread(hub.wait_for, Command.MMI)
        await asyncio.to_thread(client.stop)
        with pytest.raises(NfcliError, match="this worker is stopping"):
            await asked

    asyncio.run(main())


def test_the_brokers_workers_are_rows_by_name(hub: Any, connect_fabric: Connect) -> None:
    """An empty list if there are none."""
    client = connect_fabric()
    assert client.workers() == []
    hub.workers = {"w2": ("s", is_busy), "w1": ("other", is_busy)}
    assert client.workers() == [
        {"name": "w1", "service": "other", "status": "alive", "alive (s)": "100"},
        {"name": "w2", "service": "s", "status": "alive", "alive (s)": "100"},
    ]
    assert not client.is_settling()


def test_two_clients_of_one_worker_get_their_own_answers(hub: Any, connect_fabric: Connect) -> None:
    """Each connection has a routing id of its own."""
    hub.workers = {"w1": ("s", pushes(lambda data: data["kwargs"]["n"]))}
    first, second = connect_fabric(), connect_fabric()
    for number in range(3):
        for client, n in ((first, number), (second, -number)):
            assert values(client.submit("s", "t", {"n": n}, timeout=WAIT_SECONDS).result()) == {"w1": n}
