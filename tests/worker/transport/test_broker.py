"""A worker's registration at its broker: kept through the broker's failures, and never taken from another worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nfcli.models.errors import WorkerStartError
from nfcli.models.protocol.frames import Command
from support.fabric.broker import FabricBroker
from support.fabric.worker import HOLD_SECONDS, KEEPALIVE_SECONDS, eventually, runs_a_job
from support.mcp.served_worker import WAIT_SECONDS

Connect = Callable[..., Any]


def test_keepalives_go_out_while_jobs_run_and_are_counted(joined: Any, broker: Any, connect_client: Connect) -> None:
    """In both directions."""
    connect_client().post("u1", {"task": "hold"})
    broker.wait_for(lambda: broker.entries[b"w1"].received > 5)
    broker.wait_for(lambda: joined.server.counters()["keepalives_sent"] > 5)
    broker.wait_for(lambda: joined.server.counters()["keepalives_received"] > 3)


def test_a_broker_that_was_restarted_gets_the_worker_back(joined: Any, broker: Any, connect_client: Connect) -> None:
    """It silently drops other messages of workers that it doesn't know."""
    broker.stop()
    broker.start()
    broker.wait_until_registered()
    assert runs_a_job(connect_client)
    assert joined.server.counters()["reconnects"] == 1


def test_a_broker_that_comes_back_after_long_gets_the_worker_back(
    joined: Any, broker: Any, connect_client: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Longer than the hold time; the log has one line when it goes and one when it is back."""
    caplog.set_level(logging.INFO)
    broker.stop()
    server = joined.server
    assert eventually(lambda: not server.is_joined)
    broker.start()
    broker.wait_until_registered()
    assert runs_a_job(connect_client)
    heard = server.counters()["keepalives_received"]
    assert eventually(lambda: server.counters()["keepalives_received"] > heard + 2)
    assert caplog.messages.count(f"broker at {broker.endpoint} is reachable again") == 1
    assert [text.partition(";")[0] for text in caplog.messages if "has gone away" in text] == [
        f"the broker at {broker.endpoint} has gone away"
    ]


def test_a_worker_that_the_broker_has_removed_registers_again(
    joined: Any, broker: Any, connect_client: Connect
) -> None:
    """It infers that from the broker's silence."""
    broker.wait_for(lambda: broker.entries[b"w1"].received > 1)
    broker.forget("w1")
    broker.wait_until_registered()
    assert runs_a_job(connect_client)
    assert joined.server.counters()["reconnects"] == 0


@pytest.mark.parametrize("frames", [(Command.DISCONNECT, b"fastmcp"), (b"fastmcp", Command.DISCONNECT)])
def test_a_disconnect_is_answered_with_a_registration(joined: Any, broker: Any, frames: tuple[bytes, ...]) -> None:
    """In the order of the protocol and in that of norfab 0.25.0."""
    broker.wait_for(lambda: broker.entries[b"w1"].received > 2)
    sent = broker.count(Command.READY)
    broker.forget("w1")
    broker.send(b"w1", b"", b"NFPB01", *frames)
    broker.wait_for(lambda: broker.count(Command.READY) > sent)
    broker.wait_until_registered()
    assert joined.server.counters()["invalid"] == 0


def test_a_broker_that_is_frozen_for_long_finds_the_worker_again(
    joined: Any, broker: Any, connect_client: Connect
) -> None:
    """Longer than the hold time: the worker closes its connection and makes a new one, with its own name only."""
    broker.freeze()
    assert eventually(lambda: not joined.server.is_joined)
    broker.thaw()
    broker.wait_for(lambda: b"w1" in broker.entries and broker.entries[b"w1"].received > 1)
    assert {name for name, command in broker.seen if command == Command.READY} == {b"w1"}
    assert runs_a_job(connect_client)


def test_a_job_that_ends_while_the_broker_is_away_can_be_asked_for_later(
    joined: Any, broker: Any, connect_client: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs once; a GET returns the result that was lost."""
    peer = connect_client()
    peer.post("u1", {"task": "hold"})
    assert peer.statuses(3) == ["202", "201", "event"]
    broker.stop()
    assert eventually(lambda: caplog.messages)  # the warning that the broker is not reachable
    joined.gate.set()
    assert eventually(lambda: joined.server.counters()["dropped"] > 0)
    broker.start()
    broker.wait_until_registered()
    assert eventually(lambda: has_result(connect_client(), "u1"))


def has_result(peer: Any, uuid: str) -> bool:
    """Ask for the result of a job; false if none comes: the worker may be joining again just then."""
    peer.post(uuid, {}, command=Command.GET)
    statuses = []
    while peer.dealer.poll(1_000) and statuses[-1:] != ["200"]:
        statuses.append(peer.read()[1])
    return statuses == ["202", "200"]


def test_a_worker_starts_without_a_broker_and_joins_when_it_comes(
    idle: Any, broker: Any, connect_client: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """MCP clients are served meanwhile; a warning says why there are no jobs."""
    broker.stop()
    idle.join()
    assert any("the worker joins it once it is reachable" in text for text in caplog.messages)
    broker.start()
    broker.wait_until_registered()
    assert runs_a_job(connect_client)


def test_a_wrong_broker_key_is_logged(idle: Any, broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The worker can't tell whether the broker or its own inventory is wrong."""
    wrong = FabricBroker(KEEPALIVE_SECONDS, HOLD_SECONDS)
    wrong.keys, wrong.endpoint = idle.keys, broker.endpoint
    idle.broker = wrong
    idle.replace_server()
    idle.join()
    wrong.close()
    assert any("fails: the key of broker.shared_key is not its key" in text for text in caplog.messages)


def test_a_stop_sends_the_replies_and_signs_off(joined: Any, broker: Any, connect_client: Connect) -> None:
    """So that the broker relays no more jobs to it."""
    peer = connect_client()
    peer.post("u1", {"task": "hold"})
    assert peer.statuses(3) == ["202", "201", "event"]
    joined.gate.set()
    joined.executor.stop()
    joined.server.stop()
    assert peer.statuses(2) == ["event", "200"]
    broker.wait_for(lambda: b"w1" not in broker.entries)
    assert broker.seen[-1] == (b"w1", Command.DISCONNECT)


# -- names ---------------------------------------------------------------------------------------------------------


def keep_alive(peer: Any, stopping: threading.Event) -> None:
    """Send READY and keepalives, as another worker does."""
    peer.signal(Command.READY)
    while not stopping.wait(KEEPALIVE_SECONDS / 2):
        peer.signal(Command.KEEPALIVE)


@pytest.fixture
def twin(connect_client: Connect) -> Iterator[Callable[[], Callable[[], None]]]:
    """Start another worker named w1; the function that is returned ends it without a DISCONNECT."""
    running: list[tuple[threading.Event, threading.Thread]] = []

    def start() -> Callable[[], None]:
        peer, stopping = connect_client(b"w1"), threading.Event()
        thread = threading.Thread(target=keep_alive, args=(peer, stopping))
        thread.start()
        running.append((stopping, thread))

        def end() -> None:
            stopping.set()
            thread.join(WAIT_SECONDS)
            peer.close()

        return end

    yield start
    for stopping, thread in running:
        stopping.set()
        thread.join(WAIT_SECONDS)


def test_a_name_in_use_is_not_taken(idle: Any, broker: Any, twin: Any) -> None:
    """Each of the two would get some of the jobs."""
    twin()
    broker.wait_until_registered()
    with pytest.raises(WorkerStartError) as caught:
        idle.server.connect()
    assert str(caught.value) == (
        f"worker w1 is already registered at the broker at {broker.endpoint}: stop that one or choose another name"
    )
    assert broker.count(Command.DISCONNECT) == 0


def test_the_entry_of_a_killed_worker_is_replaced(idle: Any, broker: Any, connect_client: Connect) -> None:
    """It stays listed until its hold time ends; the new worker is registered for its own service."""
    broker.hold_seconds = 3_600
    broker.add_entry("w1", "other")
    idle.join()
    broker.wait_for(lambda: b"w1" in broker.entries and broker.entries[b"w1"].service == "fastmcp")
    assert runs_a_job(connect_client)


def test_a_worker_whose_name_is_taken_waits_until_it_is_free(
    idle: Any, broker: Any, connect_client: Connect, twin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs that once, stays away while the other one is there, and joins again afterwards."""
    idle.replace_server(hold_seconds=3_600)
    idle.join()
    end = twin()
    assert eventually(lambda: not idle.server.is_joined)
    taken = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert [record.getMessage().partition(":")[0] for record in taken] == [
        "another worker uses the name w1 at the broker at ipc"
    ]
    asked = len(broker.questions)
    broker.wait_for(lambda: len(broker.questions) > asked + 10)
    assert not idle.server.is_joined
    end()
    broker.wait_for(lambda: idle.server.is_joined and b"w1" in broker.entries)
    broker.wait_for(lambda: broker.entries[b"w1"].received > 1)
    assert runs_a_job(connect_client)
    assert len([record for record in caplog.records if record.levelno == logging.CRITICAL]) == 1


def test_a_name_taken_before_the_broker_was_reachable_is_not_taken_back(
    idle: Any, broker: Any, twin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that was started without a broker probes the name before it joins."""
    broker.stop()
    idle.join()
    broker.is_dumb = True
    broker.start()
    end = twin()
    broker.wait_until_registered()
    broker.is_dumb = False
    assert eventually(lambda: any(record.levelno == logging.CRITICAL for record in caplog.records))
    end()
    broker.wait_for(lambda: idle.server.is_joined and b"w1" in broker.entries)
