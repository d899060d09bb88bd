"""Jobs that a broker relays, from clients and from attackers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nfcli.models.protocol.frames import Command
from nfcli.worker.transport.broker import MAX_MESSAGE_BYTES
from nfcli.worker.transport.broker_jobs import MAX_JOB_BYTES, fabric_client_name
from nfcli.worker.transport.registration import Registration
from support.fabric.worker import runs_a_job
from support.mcp.served_worker import WAIT_SECONDS

Connect = Callable[..., Any]


def failed_with(data: Any) -> str:
    """Return the one error of a failed result of w1."""
    assert data["w1"]["failed"] is True
    (error,) = data["w1"]["errors"]
    return str(error)


def test_a_worker_is_registered_when_its_start_returns(joined: Any, broker: Any, connect_client: Connect) -> None:
    """A client can send a job as soon as the worker is ready."""
    assert broker.entries[b"w1"].service == "fastmcp"
    assert joined.server.counters()["reconnects"] == 0
    assert runs_a_job(connect_client)


def test_a_post_is_accepted_started_and_answered(joined: Any, connect_client: Connect) -> None:
    """201 and the events are for NorFab's clients; the result needs no GET."""
    peer = connect_client()
    peer.post("u1", {"task": "add"})
    assert peer.read()[1] == "202"
    about = {"worker": "w1", "uuid": "u1", "status": "ACCEPTED", "service": "fastmcp"}
    assert peer.read() == (Command.RESPONSE, "201", about)
    command, status, event = peer.read()
    assert (command, status, event["message"], event["worker"]) == (Command.EVENT, "200", "starting", "w1")
    command, status, event = peer.read()
    assert (command, status, event["message"], event["event_type"]) == (
        *(Command.EVENT, "200", "completed"),
        "result_ready",
    )
    command, status, data = peer.read()
    assert (command, status, data["w1"]["result"], data["w1"]["juuid"]) == (Command.RESPONSE, "200", 1, "u1")
    assert joined.runs == 1


def test_a_task_that_runs_inline_sends_no_201(joined: Any, connect_client: Connect) -> None:
    """It would double the messages."""
    assert joined.runs == 0
    peer = connect_client()
    peer.post("u1", {"task": "quick"})
    assert peer.statuses(4) == ["202", "event", "event", "200"]


def test_get_returns_the_result_or_the_state(joined: Any, connect_client: Connect) -> None:
    """200 when done, 300 while running."""
    peer = connect_client()
    peer.post("u1", {"task": "hold"})
    assert peer.statuses(3) == ["202", "201", "event"]
    peer.post("u1", {"task": "hold"}, command=Command.GET)
    assert peer.read()[1] == "202"
    assert peer.read() == (
        Command.RESPONSE,
        "300",
        {"worker": "w1", "uuid": "u1", "status": "STARTED", "service": "fastmcp"},
    )
    joined.gate.set()
    assert peer.read()[2]["message"] == "completed"
    pushed = peer.read()
    peer.post("u1", {}, command=Command.GET)
    assert [peer.read()[1], peer.read()] == ["202", pushed]


def test_get_for_an_unknown_job_is_a_failed_result(joined: Any, connect_client: Connect) -> None:
    """A 404 would end the client's job at all workers; jobs of other clients are unknown too."""
    other = connect_client(b"other")
    other.post("u1", {"task": "add"})
    assert other.statuses(5) == ["202", "201", "event", "event", "200"]
    peer = connect_client()
    peer.post("u1", {}, command=Command.GET)
    assert peer.read()[1] == "202"
    _, status, data = peer.read()
    assert (status, failed_with(data)) == (
        "200",
        "this worker knows no such job (it may have been restarted): check what was done before you repeat it",
    )
    assert joined.runs == 1


def test_a_uuid_sent_twice_runs_once_and_is_answered_twice(joined: Any, connect_client: Connect) -> None:
    """NorFab's clients repeat their jobs after a restart."""
    peer = connect_client()
    for expected in (["202", "201", "event", "event", "200"], ["202", "201", "200"]):
        peer.post("u1", {"task": "add"})
        assert peer.statuses(len(expected)) == expected
    assert joined.runs == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not JSON", "the data is not JSON"),
        (b"[]", "the data is not a JSON object"),
        (b"{}", "the data is not a job request: task: field required"),
        (b" " * (MAX_JOB_BYTES + 1), "the job has 1048577 bytes, more than 1048576, and was not run: split it"),
    ],
    ids=["not JSON", "no object", "no task", "too long"],
)
def test_an_invalid_post_is_a_failed_result(joined: Any, connect_client: Connect, data: bytes, reason: str) -> None:
    """With the reason; other workers' results remain valid, and the next job runs."""
    peer = connect_client()
    peer.post("u1", data)
    assert peer.read()[1] == "202"
    _, status, answer = peer.read()
    assert (status, failed_with(answer), answer["w1"]["juuid"]) == ("200", reason, "u1")
    assert joined.server.counters()["invalid"] == 1
    assert runs_a_job(connect_client)


def test_a_job_that_is_refused_is_a_failed_result(joined: Any, connect_client: Connect) -> None:
    """As when the worker is stopping."""
    joined.worker.stopping.set()
    peer = connect_client()
    peer.post("u1", {"task": "add"})
    assert peer.statuses(2) == ["202", "201"]
    _, status, data = peer.read()
    assert (status, failed_with(data)) == (
        "200",
        "worker w1 is stopping, nothing was done: send the job again later",
    )


HOSTILE = [
    (b"",),
    (b"", b"NFPB01"),
    (b"", b"NFPB01", Command.POST),
    (b"", b"NFPC01", Command.POST, b"client", b"", b"u1", b'{"task":"add"}'),
    (b"", b"NFPB01", Command.POST, b"client", b"", b"\xff", b'{"task":"add"}'),
    (b"", b"NFPB01", Command.POST, b"client", b"", b"", b'{"task":"add"}'),
    (b"", b"NFPB01", Command.POST, b"client", b"", b"u" * 10_000, b'{"task":"add"}'),
    (b"", b"NFPB01", Command.RESPONSE, b"client", b"", b"u1", b"{}"),
    (b"", b"NFPB01", b"\x04", b"client", b"", b"u1", b'{"task":"add"}'),
    (b"", b"NFPW01", Command.KEEPALIVE, b"fastmcp"),
    (b"", b"NFPB01", Command.READY, b"fastmcp"),
    (b"", b"NFPB01", Command.KEEPALIVE, b"\xff\xfe"),
    (b"x" * 100_000,) * 20,
]


def test_invalid_frames_are_counted_and_dropped(joined: Any, connect_client: Connect, broker: Any) -> None:
    """None ends the thread, and none is run."""
    for frames in HOSTILE:
        broker.send(b"w1", *frames)
    assert runs_a_job(connect_client)
    assert joined.server.counters()["invalid"] == len(HOSTILE)
    assert joined.runs == 0


def test_a_message_over_the_limit_is_followed_by_a_new_connection(
    idle: Any, connect_client: Connect, broker: Any
) -> None:
    """It doesn't fill the worker's memory: any client can have the broker relay one."""
    idle.replace_server(hold_seconds=3_600)
    idle.join()
    broker.send(b"w1", b"", b"NFPB01", Command.POST, b"client", b"", b"u1", b" " * (MAX_MESSAGE_BYTES + 1))
    broker.wait_for(lambda: broker.count(Command.READY) > 1)
    assert runs_a_job(connect_client)
    assert idle.server.counters()["reconnects"] == 1


@pytest.mark.usefixtures("joined")
def test_an_internal_error_ends_no_thread(
    connect_client: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither while a message is handled nor between messages; its class is logged, without values."""
    handled, checked = threading.Event(), threading.Event()
    is_lost = Registration.is_lost

    def fail_once(registration: Registration, now: float) -> bool:
        if not checked.is_set():
            checked.set()
            raise ValueError("secret")
        return is_lost(registration, now)

    def fail(*_: object) -> None:
        handled.set()
        raise ValueError("secret")

    monkeypatch.setattr(Registration, "keepalive_received", fail)
    assert handled.wait(WAIT_SECONDS)
    monkeypatch.undo()
    monkeypatch.setattr(Registration, "is_lost", fail_once)
    assert checked.wait(WAIT_SECONDS)
    assert runs_a_job(connect_client)
    assert {"message dropped: ValueError", "connection to the broker failed: ValueError"} <= set(caplog.messages)
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (b"laptop_NFPClient", "fabric:laptop_NFPClient"),
        ("Jürgen".encode(), "fabric:Jürgen"),
        (b"a\nb\x1b[2J", "fabric:a?b?[2J"),
        (b"\xff" * 300, "fabric:" + "\N{REPLACEMENT CHARACTER}" * 64),
        (b"", "fabric:"),
    ],
)
def test_client_names_are_printable_and_bounded(identity: bytes, name: str) -> None:
    """Clients choose their names, which must neither act on a terminal nor fill the audit trail."""
    assert fabric_client_name(identity.decode("latin-1")) == name


def test_results_are_json(joined: Any, connect_client: Connect) -> None:
    """Of the form of `Result`."""
    assert joined.runs == 0
    peer = connect_client()
    peer.post("u1", {"task": "nothing-like-it"})
    assert peer.statuses(4) == ["202", "201", "event", "event"]
    _, status, data = peer.read()
    assert (status, json.loads(json.dumps(data))) == ("200", data)
    assert failed_with(data).startswith("unknown task 'nothing-like-it'")
