"""The ROUTER of direct mode, as clients and attackers see it."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfcli.models.environment.curve_keys import ensure_key_pair
from nfcli.models.errors import WorkerStartError
from nfcli.models.protocol.frames import Command
from nfcli.worker.transport import direct
from nfcli.worker.transport.curve_auth import AuthorizedKeys
from nfcli.worker.transport.direct import MAX_MESSAGE_BYTES, DirectServer
from support.direct_server import WAIT_MILLISECONDS, unlisted_keys
from support.fabric.worker import eventually

Connect = Callable[..., Any]


def test_a_post_is_dispatched_started_and_answered(connect_peer: Connect) -> None:
    """202 names the worker, events report the task's start and end, 200 has its result."""
    peer = connect_peer()
    peer.send(Command.POST, "u1", {"task": "add"})
    assert peer.read() == (
        "202",
        {"workers": ["w1"], "uuid": "u1", "target": "all", "status": "DISPATCHED", "service": "fastmcp"},
    )
    status, data = peer.read()
    assert (status, data["w1"]["result"], data["w1"]["juuid"]) == ("200", 1, "u1")
    event, last = peer.events
    assert (last["event_type"], last["message"], last["status"]) == ("result_ready", "completed", "completed")
    assert re.fullmatch(r"\d\d-[A-Z][a-z][a-z]-\d{4} \d\d:\d\d:\d\d\.\d{3}", event.pop("timestamp"))
    assert event == {
        "worker": "w1",
        "service": "fastmcp",
        "uuid": "u1",
        "event_type": "progress",
        "message": "starting",
        "task": "add",
        "status": "running",
        "resource": [],
        "severity": "INFO",
    }


def test_progress_is_sent_while_the_task_runs(
    server: Any, connect_peer: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, though nothing else wakes the sending thread; in order, and before the result."""
    monkeypatch.setattr(direct, "SUPERVISION_SECONDS", 3_600)
    peer = connect_peer()
    peer.send(Command.MMI, "u0", {"task": "show_workers"}, service="mmi.service.broker")
    assert peer.read()[0] == "200"  # from here on the thread polls for as long as it is set now
    peer.send(Command.POST, "u1", {"task": "report"})
    assert peer.read()[0] == "202"
    assert [peer.read_event() for _ in range(3)] == ["starting", "one", "two"]
    assert not server.gate.is_set()
    server.gate.set()
    assert (peer.read()[0], [event["message"] for event in peer.events]) == ("200", ["completed"])


@pytest.mark.parametrize(
    ("service", "to", "runs"),
    [
        ("fastmcp", b"any", 1),
        ("all", b"all", 1),
        ("fastmcp", b"w1", 1),
        ("fastmcp", b'["w2","w1"]', 1),
        ("fastmcp", b"w2", 0),
        ("fastmcp", b'["all"]', 0),
        ("other", b"all", 0),
        ("fastmcp", b"[1]", 0),
    ],
)
def test_targets_are_matched_as_a_broker_would(
    server: Any, connect_peer: Connect, service: str, to: bytes, runs: int
) -> None:
    """A job for another worker gets a 400 with one reason, and isn't run."""
    peer = connect_peer()
    peer.send(Command.POST, "u1", {"task": "add"}, service=service, to=to)
    status, data = peer.read()
    if runs:
        assert (status, peer.read()[0]) == ("202", "200")
    else:
        assert (status, data["status"], len(data["errors"])) == ("400", "FAILED", 1)
    assert server.runs == runs


def test_get_returns_the_result_the_state_or_not_found(server: Any, connect_peer: Connect) -> None:
    """200 when done, 300 while running, 404 for an unknown uuid."""
    peer = connect_peer()
    peer.send(Command.GET, "u1")
    assert (peer.read()[0], peer.read()) == (
        "202",
        ("404", {"worker": "w1", "uuid": "u1", "service": "fastmcp", "status": "JOB NOT FOUND"}),
    )
    peer.send(Command.POST, "u1", {"task": "hold"})
    assert peer.read()[0] == "202"
    peer.send(Command.GET, "u1")
    assert [peer.read()[0], peer.read()[0]] == ["202", "300"]
    server.gate.set()
    pushed = peer.read()
    peer.send(Command.GET, "u1", to=b'["w1"]')
    assert [peer.read()[0], peer.read()] == ["202", pushed]


def test_show_workers_lists_this_worker(connect_peer: Connect) -> None:
    """The broker's management request works in direct mode."""
    peer = connect_peer()
    peer.send(Command.MMI, "u1", {"task": "show_workers"}, service="mmi.service.broker")
    status, (row,) = peer.read()
    assert (status, row.pop("alive (s)").isdecimal()) == ("200", True)
    assert row == {"name": "w1", "service": "fastmcp", "status": "alive", "holdtime": "", "keepalives tx/rx": ""}
    peer.send(Command.MMI, "u2", {"task": "drop"}, service="mmi.service.broker")
    assert peer.read() == ("200", "Unsupported task 'drop'")


def test_an_unlisted_key_is_refused_with_an_authentication_error(server: Any, connect_peer: Connect) -> None:
    """The handshake fails, and nothing reaches the worker."""
    peer = connect_peer(unlisted_keys())
    peer.send(Command.POST, "u1", {"task": "add"})
    peer.wait_for(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    assert server.direct.counters()["received"] == 0


def test_a_client_without_curve_is_refused(server: Any, connect_peer: Connect) -> None:
    """Its handshake fails, and nothing reaches the worker."""
    peer = connect_peer(None)
    peer.send(Command.POST, "u1", {"task": "add"})
    peer.wait_for(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_DISCONNECTED)
    assert server.direct.counters()["received"] == 0


def test_a_removed_key_is_refused_from_the_next_message_on(server: Any, connect_peer: Connect) -> None:
    """Connections that are open don't outlive their key file."""
    peer = connect_peer()
    peer.send(Command.POST, "u1", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    (server.environment.clients_folder / "client.key").unlink()
    peer.send(Command.POST, "u2", {"task": "add"})
    status, data = peer.read()
    assert (status, data["error"]) == ("403", "this client's key is not allowed")
    peer.send(Command.GET, "u1")
    assert peer.read()[0] == "403"
    assert (server.runs, server.direct.counters()["denied"]) == (1, 2)


def test_a_replaced_key_is_refused_and_the_new_one_authorized(server: Any, connect_peer: Connect) -> None:
    """The files count as they are now, not as they were when a client connected."""
    peer, new = connect_peer(), ensure_key_pair(server.environment.keys_folder, "new")
    peer.send(Command.POST, "u1", {"task": "add"})
    assert peer.read()[0] == "202"
    public = server.environment.keys_folder / "new.key"
    public.replace(server.environment.clients_folder / "client.key")
    other = connect_peer(new)
    other.send(Command.POST, "u2", {"task": "add"})
    assert other.read()[0] == "202"
    assert peer.read()[0] == "200"
    peer.send(Command.POST, "u3", {"task": "add"})
    assert peer.read()[0] == "403"


def test_a_dead_zap_handler_refuses_new_clients_and_is_restarted(
    server: Any, connect_peer: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Unlisted keys are never accepted meanwhile; a line tells it."""
    zap = server.direct.zap
    authenticator = zap.handler
    assert authenticator is not None
    authenticator.pipe.send(b"TERMINATE")
    authenticator.thread.join(WAIT_MILLISECONDS / 1_000)
    unknown = connect_peer(unlisted_keys())
    unknown.send(Command.POST, "u1", {"task": "add"})
    known = connect_peer()
    known.send(Command.POST, "u2", {"task": "add"})
    assert [known.read()[0], known.read()[0]] == ["202", "200"]
    assert zap.handler is not authenticator
    assert "ZAP handler died; restarting it" in caplog.messages
    unknown.wait_for(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    assert server.runs == 1


def test_a_dead_zap_handler_is_restarted_while_messages_keep_coming(server: Any, connect_peer: Connect) -> None:
    """A client that never pauses doesn't delay it."""
    zap, peer = server.direct.zap, connect_peer()
    peer.send(Command.POST, "u0", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    dead = zap.handler
    assert dead is not None
    dead.pipe.send(b"TERMINATE")
    deadline = time.monotonic() + WAIT_MILLISECONDS / 1_000
    while zap.handler is dead:
        assert time.monotonic() < deadline
        peer.send(Command.GET, "u0")
        assert [peer.read()[0], peer.read()[0]] == ["202", "200"]


def test_no_heartbeat_can_end_the_process(server: Any) -> None:
    """Libzmq 4.3.5 aborts (`!_io_error`) if one is due for a peer that left while its messages waited."""
    assert server.direct.router.getsockopt(zmq.HEARTBEAT_IVL) == 0


def test_a_stolen_identity_gets_none_of_the_owners_replies(server: Any, connect_peer: Connect) -> None:
    """A second connection under the same identity doesn't take over the first one's replies."""
    owner = connect_peer(identity=b"me")
    owner.send(Command.POST, "u1", {"task": "hold"})
    assert owner.read()[0] == "202"
    thief = connect_peer(identity=b"me")
    thief.wait_for(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    server.gate.set()
    assert owner.read()[0] == "200"
    assert thief.dealer.poll(0) == 0


@pytest.mark.parametrize("data", [b"", b"[]", b"not json", b'{"task":1}', b'{"kwargs":{}}', b'{"task":"add","args":1}'])
def test_an_invalid_post_gets_a_400_for_its_uuid(server: Any, connect_peer: Connect, data: bytes) -> None:
    """With the reason; the next job runs."""
    peer = connect_peer()
    peer.send(Command.POST, "u1", data)
    status, answer = peer.read()
    assert (status, answer["uuid"], answer["status"]) == ("400", "u1", "FAILED")
    peer.send(Command.POST, "u2", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    assert server.direct.counters()["invalid"] == 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(messages=st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=9), max_size=20))
def test_arbitrary_frames_end_nothing(connect_peer: Connect, messages: list[list[bytes]]) -> None:
    """Whatever frames an authorized client sends, the next valid job is served."""
    peer = connect_peer()
    for frames in messages:
        peer.dealer.send_multipart(frames)
    peer.send(Command.POST, "after", {"task": "add"})
    while peer.read()[0] != "200":
        pass
    peer.close()


def test_a_message_over_the_limit_ends_its_connection_only(connect_peer: Connect) -> None:
    """Other clients are served."""
    peer = connect_peer()
    peer.send(Command.POST, "u1", b"x" * (MAX_MESSAGE_BYTES + 1))
    peer.wait_for(zmq.EVENT_DISCONNECTED)
    other = connect_peer()
    other.send(Command.POST, "u2", {"task": "add"})
    assert other.read()[0] == "202"


def test_a_reply_to_a_client_that_has_gone_is_dropped_and_counted(server: Any, connect_peer: Connect) -> None:
    """The worker neither waits nor fails; it had an event and the result to send at the end."""
    gone = connect_peer()
    gone.send(Command.POST, "u1", {"task": "hold"})
    assert gone.read()[0] == "202"
    gone.close()
    peer = connect_peer()
    peer.send(Command.POST, "u2", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    server.gate.set()
    # The event of the start may have been read before.
    assert eventually(lambda: server.direct.counters()["dropped"] >= 2)


def test_an_endpoint_in_use_is_an_error_with_its_name(server: Any) -> None:
    """And with the reason."""
    second = DirectServer(
        server.worker, server.executor, keys=server.keys, clients=AuthorizedKeys(server.environment.clients_folder)
    )
    with pytest.raises(WorkerStartError, match=f"endpoint {server.endpoint} can't be bound: Address already in use: "):
        second.bind(server.endpoint)
    second.stop()
