"""Jobs that a worker sends to other services, through a broker that goes away, comes back or falls silent."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol.frames import Command
from nfcli.worker.fabric.client import FabricClient
from support.fabric.hub import Hub, accepted, answers, is_asked, is_busy, pushes, ready, reply_frames, result
from support.fabric.services import values
from support.mcp.served_worker import WAIT_SECONDS

pytestmark = pytest.mark.slow

SHORT = 1.0
LIMIT = 100_000

Connect = Callable[..., FabricClient]


def refusal(future: Future[Any]) -> str:
    """Return the message of the NoWorkersError that a job ended with."""
    error = future.exception(timeout=WAIT_SECONDS)
    assert isinstance(error, NoWorkersError)
    return str(error)


def test_a_missing_broker_is_reported_with_the_remedy(connect_fabric: Connect) -> None:
    """Within the time for an answer."""
    gone = Hub()
    gone.stop()
    client = connect_fabric(address=gone.address, answer=SHORT)
    expected = f"no broker answered at {gone.endpoint} within {SHORT:g} s: start it, or correct endpoint"
    assert refusal(client.submit("s", "t", {}, timeout=WAIT_SECONDS)) == expected
    with pytest.raises(NoWorkersError, match="no broker answered"):
        client.workers()


def test_a_broker_that_accepts_no_job_is_reported_soon(hub: Any, connect_fabric: Connect) -> None:
    """Whether the job ran is not known, so it is never sent again."""
    client = connect_fabric(answer=SHORT)
    client.workers()
    hub.says_nothing = True
    job = client.submit("s", "t", {}, timeout=WAIT_SECONDS)
    with pytest.raises(NoWorkersError, match=r"the broker at .* doesn't answer: "):
        client.workers()
    assert f"did not accept the job within {SHORT:g} s" in refusal(job)
    hub.says_nothing, hub.workers = False, {"w1": ("s", pushes(1))}
    assert len(client.workers()) == 1
    assert [message.command for message in hub.log].count(Command.POST) == 1


def test_a_job_outlives_its_broker_and_is_not_sent_twice(hub: Any, connect_fabric: Connect) -> None:
    """That its workers are not registered yet doesn't count."""
    hub.workers = {"w1": ("s", is_busy)}
    client = connect_fabric()
    job = client.submit("s", "t", {}, timeout=WAIT_SECONDS)
    hub.wait_for(Command.GET)
    second = hub.again()
    try:
        second.wait_for(Command.GET, 2)
        assert client.is_settling()
        second.workers = {"w1": ("s", is_asked(1))}
        assert values(job.result(WAIT_SECONDS)) == {"w1": 1}
        assert client.counters()["reconnects"] == 1
        assert {message.command for message in second.log} == {Command.GET}
    finally:
        second.stop()


def test_results_are_requested_at_once_from_a_broker_that_is_back(hub: Any, connect_fabric: Connect) -> None:
    """Not only at the next poll."""
    hub.workers = {"w1": ("s", answers(accepted, ready))}
    job = connect_fabric(poll=WAIT_SECONDS).submit("s", "t", {}, timeout=2 * WAIT_SECONDS)
    hub.wait_for(Command.GET)
    second = hub.again()
    try:
        question = second.wait_for(Command.GET)
        second.send(reply_frames(question, "200", {"w1": result(1)}))
        assert values(job.result(WAIT_SECONDS)) == {"w1": 1}
    finally:
        second.stop()


def test_a_message_that_is_too_long_costs_its_connection_alone(hub: Any, connect_fabric: Connect) -> None:
    """ZeroMQ makes no other connection then: whoever serves in the fabric could end all jobs for other services."""
    hub.workers = {"w1": ("s", is_busy), "w2": ("s2", pushes(2))}
    client = connect_fabric(max_message_bytes=LIMIT)
    job = client.submit("s", "t", {}, timeout=WAIT_SECONDS)
    asked = hub.wait_for(Command.GET)
    for count in (1, 2):
        hub.send(reply_frames(asked, "200", bytes(LIMIT + 1)))
        while client.counters()["reconnects"] < count:
            hub.wait_for(Command.GET)
    assert values(client.submit("s2", "t", {}, timeout=WAIT_SECONDS).result(WAIT_SECONDS)) == {"w2": 2}
    hub.workers = {"w1": ("s", is_asked(1))}
    assert values(job.result(WAIT_SECONDS)) == {"w1": 1}


def test_a_request_that_was_lost_with_the_broker_is_repeated(hub: Any, connect_fabric: Connect) -> None:
    """It changes nothing at the broker."""
    client = connect_fabric()
    hub.says_nothing = True

    async def main() -> None:
        asked = asyncio.create_task(asyncio.to_thread(client.workers))
        await asyncio.to_thread(hub.wait_for, Command.MMI)
        second = hub.again()
        try:
            assert await asked == []
        finally:
            second.stop()

    asyncio.run(main())


def test_a_job_whose_broker_stays_away_fails_with_one_line(hub: Any, connect_fabric: Connect) -> None:
    """Long before its deadline; other jobs fail meanwhile."""
    hub.workers = {"w1": ("s", is_busy)}
    client = connect_fabric(comeback=SHORT, answer=SHORT)
    job = client.submit("s", "t", {}, timeout=WAIT_SECONDS)
    hub.wait_for(Command.GET)
    hub.stop()
    away = f"the broker at {hub.endpoint} has gone away"
    assert values(job.result(WAIT_SECONDS))["w1"][0].startswith(f"{away}; the job was running on w1: ")
    assert refusal(client.submit("s", "t", {}, timeout=WAIT_SECONDS)) == away


def test_a_job_whose_broker_falls_silent_fails_with_one_line(hub: Any, connect_fabric: Connect) -> None:
    """Although the connection is established all the time."""
    hub.workers = {"w1": ("s", is_busy)}
    job = connect_fabric(comeback=SHORT).submit("s", "t", {}, timeout=WAIT_SECONDS)
    hub.wait_for(Command.GET)
    hub.says_nothing = True
    silent = f"the broker at {hub.endpoint} doesn't answer: check that it runs, and its log"
    assert values(job.result(WAIT_SECONDS))["w1"][0].startswith(f"{silent}; the job was running on w1: ")


def test_workers_that_a_frozen_broker_dropped_have_time_to_return(hub: Any, connect_fabric: Connect) -> None:
    """It drops them when it continues, and they register again."""
    hub.workers = {"w1": ("s", is_busy)}
    client = connect_fabric()
    job = client.submit("s", "t", {}, timeout=WAIT_SECONDS)
    hub.wait_for(Command.GET)
    hub.says_nothing = True
    hub.wait_for(Command.GET, 6)
    hub.workers, hub.says_nothing = {}, False
    hub.wait_for(Command.GET, 3)
    assert client.is_settling()
    hub.workers = {"w1": ("s", is_asked(1))}
    assert values(job.result(WAIT_SECONDS)) == {"w1": 1}
