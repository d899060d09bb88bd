"""Hostile peers on a fabric: whoever has the broker's public key can send anything to anybody through it.

What is meant for the reference's own workers is left out: a job that isn't JSON is the last one that they take.
"""

from __future__ import annotations

import json
import random
import time
import uuid as uuids
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Self

import pytest
import zmq

from nfcli import Client, NoWorkersError
from nfcli.models.environment.curve_keys import KeyPair
from nfcli.models.errors import ProtocolError
from nfcli.models.protocol.broker_connection import BrokerConnection, random_routing_id
from nfcli.models.protocol.frames import CLIENT_HEADER, WORKER_HEADER, BrokerMessage, Command, WorkerJob
from support.norfab.observers import BrokerView, ping, until
from support.norfab.sites import FabricMaker
from support.workers import RunningWorker

OURS = "fastmcp-worker-1"
WAIT_SECONDS = 30.0
MUTANTS = 3_000
FLOOD = 5_000
LONG_MESSAGES = 2
SERVICE, TARGET = b"fastmcp", OURS.encode()
GARBAGE = [
    *(b"", b"\x00", b"\xff\xfe", b"null", b"NaN", b"{", b"[" * 5_000, b'{"task":' * 5_000, b"x" * 70_000),
    *(b'{"task":1}', b'{"task":"echo","kwargs":[]}', b'[["fastmcp-worker-1"]]', b"0x04", b"\r\x1b[2J"),
]
NO_JOBS = {
    b"": "not JSON",
    b"\xff": "not JSON",
    b"NaN": "not JSON",
    b"[" * 50_000: "not JSON",
    b"[]": "JSON object",
    b"{}": ": task: ",
    b'{"task":"echo","kwargs":[]}': ": kwargs: ",
    b'{"task":"echo","kwargs":{"x":"' + b"x" * 1_100_000 + b'"}}': "1100033 ",
}


class Stranger(BrokerConnection):
    """A peer with an unknown key pair, and the broker's public key."""

    def __init__(self, fabric: Any) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        address = BrokerView(fabric.endpoint, fabric.shared_key).address
        keys = KeyPair(*zmq.curve_keypair())
        super().__init__(self._context, address, name=random_routing_id("stranger"), keys=keys)

    def __enter__(self) -> Self:
        self.wait_until_up(time.monotonic() + WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._context.term()

    def send_when_writable(self, *frames: bytes) -> None:
        """Send any message; messages received meanwhile are dropped, since the broker drops what isn't read."""
        deadline = time.monotonic() + WAIT_SECONDS
        for _ in self.messages():
            pass
        while not self.send(frames):
            assert time.monotonic() < deadline
            self.wait(deadline, until_writable=True)

    def await_answer(self, uuid: str, status: str) -> BrokerMessage:
        """Wait for a message about a uuid."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            for message in self.broker_messages():
                if (message.uuid, message.status) == (uuid, status):
                    return message
            self.wait(deadline)
        raise AssertionError(f"no answer {status} to {uuid}")

    def await_job(self) -> WorkerJob:
        """Wait for a job that the broker relays to this peer as a worker."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            for frames in self.messages():
                with suppress(ProtocolError):
                    return WorkerJob.parse(frames)
            self.wait(deadline)
        raise AssertionError("no job has come")

    def settle(self) -> None:
        """Wait until the broker has got through all that was sent."""
        until(self._is_answered, "the broker answers")

    def _is_answered(self) -> bool:
        # An answer is lost where too many others wait to be read here.
        try:
            return OURS in {row["name"] for row in self.workers()}
        except NoWorkersError:
            return False


@pytest.fixture
def stranger(fabric: Any, our_worker: RunningWorker) -> Iterator[Stranger]:
    """Connect a stranger to the shared fabric; afterwards our worker and our client have to be as before."""
    assert our_worker.process.poll() is None
    with Stranger(fabric) as connected:
        yield connected
        connected.settle()


@pytest.fixture
def _all_is_well(our_worker: RunningWorker, our_client: Client) -> Iterator[None]:
    yield
    assert our_worker.process.poll() is None
    assert value(our_client, "bearer_token_check", token="x") is False
    assert ping(our_worker.url, None) == 401


pytestmark = pytest.mark.usefixtures("_all_is_well")


def value(client: Client, task: str, uuid: str | None = None, **kwargs: Any) -> Any:
    """Run a job on our worker that has to succeed; return its value."""
    (result,) = client.run_job("fastmcp", task, uuid=uuid, kwargs=kwargs, workers=OURS, timeout=WAIT_SECONDS).values()
    assert (result["failed"], result["errors"]) == (False, [])
    return result["result"]


def failures(client: Client) -> int:
    """Return how many messages our worker has dropped as malformed."""
    return int(value(client, "get_stats")["messaging"]["receive_failures"])


@pytest.mark.parametrize("data", NO_JOBS, ids=lambda data: repr(data[:30]))
def test_an_invalid_job_gets_one_line(stranger: Stranger, data: bytes) -> None:
    """The line says what is wrong with it, in a result as every job has one."""
    uuid = uuids.uuid4().hex
    stranger.send_when_writable(b"", CLIENT_HEADER, Command.POST, SERVICE, TARGET, uuid.encode(), data)
    (result,) = json.loads(stranger.await_answer(uuid, "200").data).values()
    assert (result["failed"], result["result"], len(result["errors"])) == (True, None, 1)
    assert NO_JOBS[data] in result["errors"][0]
    assert "\n" not in result["errors"][0]


def test_messages_that_can_not_be_read_are_counted_and_dropped(stranger: Stranger, our_client: Client) -> None:
    """Uuids that are too long or empty have no answer; those that are no text get no further than the broker."""
    before = failures(our_client)
    job = b'{"task":"echo","kwargs":{}}'
    for command in (Command.POST, Command.GET, Command.PUT):
        for uuid in (b"u" * 129, b"u" * 1_000_000, b"\xff\xfe", b""):
            stranger.send_when_writable(b"", CLIENT_HEADER, command, SERVICE, TARGET, uuid, job)
    stranger.settle()
    until(lambda: failures(our_client) >= before + 9, "they are counted")


def test_any_bytes_in_any_frame_do_no_harm(stranger: Stranger, our_client: Client) -> None:
    """Thousands of messages of both sorts of peers, each with something wrong."""
    chance = random.Random(4)  # noqa: S311
    before = failures(our_client)
    for _ in range(MUTANTS):
        stranger.send_when_writable(*mutant(chance))
    stranger.settle()
    assert failures(our_client) > before


def mutant(chance: random.Random) -> list[bytes]:
    """Return a message with a frame replaced, left out, doubled or added; READY, which is what kills brokers, never."""
    uuid = b"%032x" % chance.getrandbits(128)
    answer = [TARGET, b"", uuid, b"200", b"{}"]
    client_commands = (Command.POST, Command.GET, Command.PUT, Command.DELETE, Command.MMI, Command.OPEN, b"0x55")
    worker_commands = (Command.KEEPALIVE, Command.DISCONNECT, Command.RESPONSE, Command.EVENT, Command.STREAM, b"0x55")
    frames = chance.choice(
        [
            [b"", CLIENT_HEADER, chance.choice(client_commands), SERVICE, TARGET, uuid, b'{"task":"echo"}'],
            [b"", WORKER_HEADER, chance.choice(worker_commands), *chance.choice([[SERVICE], answer])],
        ]
    )
    place = chance.randrange(len(frames))
    change = chance.randrange(4)
    if change == 0:
        frames[place] = chance.choice(GARBAGE)
    elif change == 1:
        del frames[place]
    elif change == 2:
        frames.insert(place, frames[place])
    else:
        frames.append(chance.choice(GARBAGE))
    # `[…]` may name other workers, and so may `all`.
    return [b"", *frames][: len(frames)] if frames[:1] == [CLIENT_HEADER] else frames or [b""]


def test_a_flood_of_requests_delays_no_client_for_long(stranger: Stranger, our_client: Client) -> None:
    """Jobs are answered as before once the broker has got through it."""
    for number in range(FLOOD):
        command = (Command.GET, Command.PUT)[number % 2]
        stranger.send_when_writable(b"", CLIENT_HEADER, command, SERVICE, TARGET, b"%032x" % number, b"{}")
    stranger.settle()
    assert value(our_client, "echo", mark="behind the flood")["kwargs"] == {"mark": "behind the flood"}


def test_a_message_too_long_for_the_worker_costs_it_its_connection_for_a_moment(
    stranger: Stranger, our_client: Client
) -> None:
    """It joins again at once, and still has what it did before."""
    before = value(our_client, "get_stats")
    for number in range(1, LONG_MESSAGES + 1):
        stranger.send_when_writable(b"", CLIENT_HEADER, Command.POST, SERVICE, TARGET, b"long", b"x" * 9 * 1024 * 1024)
        stranger.settle()
        until(lambda wanted=before["reconnects"] + number: reconnects(our_client) >= wanted, "it has joined again", 5)


def reconnects(client: Client) -> int:
    """Return how often our worker has joined again; -1 when the job got lost with a connection."""
    (result,) = client.run_job("fastmcp", "get_stats", workers=OURS, timeout=5).values()
    return -1 if result["failed"] else int(result["result"]["reconnects"])


def answers(uuid: bytes) -> list[Sequence[bytes]]:
    """Return what a hostile worker may say of a job that isn't its own: uuid, status and data of wrong shapes."""
    data = [b"", b"\xff", b"null", b"[]", b"{", b"1", b'"x"', b"[" * 5_000, b"NaN", b'{"workers":7}', b'{"":{}}']
    texts = [b"200", b"201", b"202", b"300", b"102", b"", b"\xff", b"9" * 300]
    return [(uuid, status, each) for status in texts for each in data]


def test_answers_from_a_hostile_worker_reach_no_client(stranger: Stranger, our_client: Client) -> None:
    """A job of its own gives it the client's name.

    It guesses uuids, and answers in all wrong shapes, as RESPONSE, EVENT and STREAM.
    """
    stranger.send_when_writable(b"", WORKER_HEADER, Command.READY, b"hostile")
    stranger.settle()
    job = "job-that-is-guessed"
    with ThreadPoolExecutor() as pool:
        pool.submit(our_client.run_job, "hostile", "echo", timeout=1)
        client = stranger.await_job().client
        running = pool.submit(value, our_client, "echo", uuid=job, sleep=1, mark="mine")
        for uuid in (b"nobodys", b"u" * 500, b"\xff", b"", job.encode()):
            for command in (Command.RESPONSE, Command.EVENT, Command.STREAM, Command.MMI):
                for frames in answers(uuid):
                    if uuid != job.encode() or frames[1] in {b"201", b"300", b"102"} or command == Command.EVENT:
                        stranger.send_when_writable(b"", WORKER_HEADER, command, client, b"", *frames)
        stranger.settle()
        assert running.result(WAIT_SECONDS)["kwargs"] == {"mark": "mine"}
    stranger.send_when_writable(b"", WORKER_HEADER, Command.DISCONNECT, b"hostile")


def test_what_kills_a_broker_of_the_references_is_known(new_fabric: FabricMaker) -> None:
    """A READY without a service: the one message that is left out above."""
    with new_fabric({}) as fabric:
        fabric.start()
        with Stranger(fabric) as stranger:
            stranger.send_when_writable(b"", WORKER_HEADER, Command.READY)
            assert fabric.broker.await_end() == 1
