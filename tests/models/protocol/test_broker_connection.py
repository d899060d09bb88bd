"""A connection to a broker: requests to the broker itself, and the one-line errors of those that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from nfcli.models.environment.curve_keys import KeyPair
from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol.broker_connection import ANSWER_SECONDS, BrokerAddress, BrokerConnection, random_routing_id
from nfcli.models.protocol.broker_key import BrokerKey
from nfcli.models.protocol.frames import BrokerMessage, ClientMessage, Command, encode_data

pytestmark = pytest.mark.slow

WAIT_SECONDS = 10.0
ROWS = [{"name": "w1", "service": "fastmcp", "status": "alive"}]


class FakeBroker:
    """A ROUTER that passes each message of a client to `answer` and sends the messages that it returns."""

    def __init__(self, *, curve: bool = True, endpoint: str = "tcp://127.0.0.1:*", keys: KeyPair | None = None) -> None:
        self.keys = keys or KeyPair(*zmq.curve_keypair())
        self.answer: Callable[[ClientMessage], list[BrokerMessage]] = lambda _: []
        self.names: list[bytes] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        if curve:
            self._router.curve_server = True
            self._router.curve_publickey, self._router.curve_secretkey = self.keys.public, self.keys.secret
        self._router.bind(endpoint)
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._is_over.is_set():
            if self._router.poll(20):
                name, *frames = self._router.recv_multipart()
                self.names.append(name)
                for message in self.answer(ClientMessage.parse(frames)):
                    self._router.send_multipart([name, *message.frames()])
        self._router.close()

    def stop(self) -> None:
        """Close the socket, as the end of a process does."""
        self._is_over.set()
        self._thread.join(WAIT_SECONDS)
        self._context.destroy(linger=0)


def rows(message: ClientMessage) -> list[BrokerMessage]:
    """Answer twice, as norfab 0.25.0 does."""
    data = encode_data(ROWS)
    kinds = (Command.RESPONSE, Command.MMI)
    return [BrokerMessage(kind, message.service, message.uuid, "200", data) for kind in kinds]


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    """Run a broker that answers with its workers."""
    made = FakeBroker()
    made.answer = rows
    yield made
    made.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., BrokerConnection]]:
    """Connect to brokers, each time with a new key pair."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    connections: list[BrokerConnection] = []

    def make(endpoint: str, key: bytes | None, name: bytes = b"", **options: Any) -> BrokerConnection:
        address = BrokerAddress(endpoint, None if key is None else BrokerKey(key, "broker.shared_key"))
        keys = KeyPair(*zmq.curve_keypair())
        chosen = name or random_routing_id("x")
        connections.append(BrokerConnection(context, address, name=chosen, keys=keys, **options))
        return connections[-1]

    yield make
    for each in connections:
        each.close()
    context.destroy(linger=0)


def error_of(call: Callable[[], Any]) -> str:
    """Return the message of the NoWorkersError that a call raises."""
    with pytest.raises(NoWorkersError) as caught:
        call()
    return str(caught.value)


def test_a_broker_lists_its_workers(broker: FakeBroker, connect: Callable[..., BrokerConnection]) -> None:
    """Any number of times over one connection; the RESPONSE copy of each answer is ignored."""
    made = connect(broker.endpoint, broker.keys.public, b"a name")
    assert [made.workers(), made.workers(), made.workers()] == [ROWS] * 3
    assert set(broker.names) == {b"a name"}
    assert (made.handshakes, made.disconnects, made.is_up) == (1, 0, True)


def test_random_routing_ids_differ() -> None:
    """A broker gives a routing id to the last connection that uses it."""
    names = {random_routing_id("client") for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(b"client-nfcli-") for name in names)


def test_other_messages_are_skipped(broker: FakeBroker, connect: Callable[..., BrokerConnection]) -> None:
    """Events of jobs, answers to earlier requests, messages that are not NFP."""
    progress = BrokerMessage(Command.EVENT, "s", "job", "200", b"{}")
    stale = BrokerMessage(Command.MMI, "s", "an earlier request", "200", b"[]")
    broker.answer = lambda message: [progress, stale, BrokerMessage(b"0x77", "", "", "", b""), *rows(message)]
    made = connect(broker.endpoint, broker.keys.public)
    assert made.request("show_workers") == ROWS


@pytest.mark.parametrize(
    ("curve", "key", "reason"),
    [
        (True, "wrong", "the key of broker.shared_key is not its key"),
        (True, None, "it uses CURVE, but zmq_auth is false here"),
        (False, "its", "the key of broker.shared_key is not its key"),
    ],
)
def test_a_failed_handshake_is_reported(
    curve: bool, key: str | None, reason: str, connect: Callable[..., BrokerConnection]
) -> None:
    """With the place where the key was found, or the setting that is wrong."""
    broker = FakeBroker(curve=curve)
    known = {"wrong": zmq.curve_keypair()[0], "its": broker.keys.public, None: None}[key]
    made = connect(broker.endpoint, known, connect_seconds=1.0)
    try:
        line = f"the handshake with the broker at {broker.endpoint} fails: {reason}"
        assert error_of(made.workers) == line
    finally:
        broker.stop()


def test_a_missing_broker_is_reported_within_three_seconds(connect: Callable[..., BrokerConnection]) -> None:
    """With the remedy."""
    made = connect("ipc:///nonexistent/broker", None)
    started = time.monotonic()
    line = error_of(made.workers)
    assert time.monotonic() - started < 3.5
    assert line == "no broker answered at ipc:///nonexistent/broker within 2.5 s: start it, or correct endpoint"


def test_a_silent_broker_is_reported(broker: FakeBroker, connect: Callable[..., BrokerConnection]) -> None:
    """Its connection is established all the time."""
    broker.answer = lambda _: []
    made = connect(broker.endpoint, broker.keys.public)
    line = error_of(lambda: made.request("show_workers", seconds=1.0))
    assert line == f"the broker at {broker.endpoint} doesn't answer: check that it runs, and its log"
    assert made.is_up
    assert ANSWER_SECONDS < 3


def test_a_broker_that_disconnects_is_reported_at_once(
    broker: FakeBroker, connect: Callable[..., BrokerConnection]
) -> None:
    """Not at the deadline; and messages that are sent afterwards are refused, not kept for the next broker."""
    made = connect(broker.endpoint, broker.keys.public)
    assert made.workers() == ROWS
    broker.stop()
    line = f"the broker at {broker.endpoint} has gone away"
    assert error_of(lambda: made.request("show_workers", seconds=WAIT_SECONDS)) == line
    assert made.send([b"", b"x"]) is False
    assert (made.is_up, made.disconnects) == (False, 1)


def test_a_connection_is_established_again(broker: FakeBroker, connect: Callable[..., BrokerConnection]) -> None:
    """By itself; `handshakes` counts it."""
    made = connect(broker.endpoint, broker.keys.public)
    assert made.workers() == ROWS
    broker.stop()
    again = FakeBroker(endpoint=broker.endpoint, keys=broker.keys)
    again.answer = rows
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while made.handshakes < 2:
            assert time.monotonic() < deadline
            made.wait(deadline)
        assert made.workers() == ROWS
        assert (made.handshakes, made.disconnects) == (2, 1)
    finally:
        again.stop()
