"""The client against a worker that has the right key and says the wrong things: nothing hangs, nothing breaks."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from nfcli.models.environment import DEFAULT_WORKER, Environment
from nfcli.models.inventory import load_inventory
from nfcli.models.keys import ensure_client_key, ensure_key_pair
from nfcli.models.lock import WorkerLock
from nfcli.shell import client as client_module
from nfcli.shell.client import Client
from nfcli.shell.direct import DirectTransport

WAIT_SECONDS = 10.0
Frames = list[bytes]
Script = Callable[[str], list[Frames]]


def answer(uuid: str, status: str, data: Any, command: bytes = b"0x05") -> Frames:
    """Return the frames of an answer; bytes go out as they are."""
    payload = data if isinstance(data, bytes) else json.dumps(data).encode()
    return [b"", b"NFPB01", command, b"fastmcp", uuid.encode(), status.encode(), payload]


class Rogue:
    """A ROUTER under the name of the default worker that answers each message with what a script says."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.script: Script = lambda _: []
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        keys = ensure_key_pair(environment.keys_folder, DEFAULT_WORKER)
        self.router.curve_publickey, self.router.curve_secretkey = keys.public, keys.secret
        self.router.curve_server = True
        port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.lock = WorkerLock.acquire(environment.lock_file(DEFAULT_WORKER))
        # A wildcard address, as an inventory may bind to, means this machine.
        self.lock.publish(ready=True, endpoint=f"tcp://0.0.0.0:{port}", url="")
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while not self.stopping.is_set():
            if self.router.poll(20):
                identity, *frames = self.router.recv_multipart()
                for reply in self.script(frames[5].decode()):
                    self.router.send_multipart([identity, *reply])

    def stop(self) -> None:
        """Close everything."""
        self.stopping.set()
        self.thread.join(WAIT_SECONDS)
        self.lock.release()
        self.context.destroy(linger=0)


@pytest.fixture
def rogue(tmp_path: Path) -> Iterator[Rogue]:
    """A rogue in an environment of its own."""
    environment = Environment(tmp_path, None)
    environment.prepare()
    rogue = Rogue(environment)
    yield rogue
    rogue.stop()


@pytest.fixture
def client(rogue: Rogue) -> Iterator[Client]:
    """A client of that environment."""
    inventory, keys = load_inventory(rogue.environment), ensure_client_key(rogue.environment)
    with Client(rogue.environment, inventory, keys, DirectTransport(rogue.environment, inventory, keys)) as client:
        yield client


def result(value: str) -> dict[str, Any]:
    """Return the data of a good answer."""
    return {DEFAULT_WORKER: {"result": value, "failed": False, "errors": []}}


@pytest.mark.parametrize(
    ("status", "data", "error"),
    [
        ("200", ["not", "an", "object"], "the worker's answer is not a result"),
        ("200", b"not json", "the worker's answer is not a result"),
        ("200", {"somebody": {"result": 1}}, "the worker's answer is not a result"),
        ("200", {DEFAULT_WORKER: "just text"}, "the worker's answer is not a result"),
        ("400", ["x"], "status 400"),
        ("404", {"status": "JOB NOT FOUND"}, "JOB NOT FOUND"),
        ("417", {}, "status 417"),
        ("500", {"error": "kaboom"}, "kaboom"),
        ("400", b"\xff", "status 400"),
    ],
)
def test_an_answer_of_the_wrong_shape_is_one_line_and_the_next_job_works(
    rogue: Rogue, client: Client, status: str, data: Any, error: str
) -> None:
    """What kills the reference client's receiving thread is a failed result here."""
    rogue.script = lambda uuid: [answer(uuid, status, data)]
    failed = client.run_job("fastmcp", "x", timeout=WAIT_SECONDS)[DEFAULT_WORKER]
    assert (failed["failed"], failed["status"], failed["errors"]) == (True, "error", [error])
    rogue.script = lambda uuid: [answer(uuid, "200", result("good"))]
    assert client.run_job("fastmcp", "x", timeout=WAIT_SECONDS)[DEFAULT_WORKER]["result"] == "good"


@pytest.mark.parametrize(
    "noise",
    [
        [b"garbage"],
        [b"", b"NFPB01", b"0x05"],
        [b"", b"OTHERS", b"0x05", b"s", b"u", b"200", b"{}"],
        [b"", b"NFPB01", b"\x05", b"s", b"u", b"200", b"{}"],
        answer("another job", "200", result("foreign")),
        answer("another job", "400", {"error": "foreign"}),
    ],
)
def test_noise_before_the_answer_is_passed_over(rogue: Rogue, client: Client, noise: Frames) -> None:
    """Frames that are no NFP, and answers to other jobs, neither end the wait nor extend it."""
    rogue.script = lambda uuid: [
        noise,
        answer(uuid, "202", {}),
        answer(uuid, "201", []),
        answer(uuid, "200", {"event_type": "progress"}, command=b"0x08"),
        [*answer(uuid, "200", result("good")), b"surplus"],
    ]
    assert client.run_job("fastmcp", "x", timeout=WAIT_SECONDS)[DEFAULT_WORKER]["result"] == "good"


@pytest.mark.parametrize(
    ("status", "data", "note"),
    [
        ("200", b"not json", "the worker's answer doesn't name it"),
        ("200", {"a": 1}, "the worker's answer doesn't name it"),
        ("200", [1, {"name": "other"}], "the worker's answer doesn't name it"),
        ("403", {"error": "no"}, "no"),
    ],
)
def test_show_workers_says_what_is_wrong_with_an_answer(
    rogue: Rogue, client: Client, status: str, data: Any, note: str
) -> None:
    """A worker that can't say who it is counts as dead, with the reason."""
    rogue.script = lambda uuid: [answer("another", "200", []), answer(uuid, status, data, command=b"0x11")]
    (row,) = client.show_workers()
    assert (row["status"], row["note"]) == ("dead", note)


def test_show_workers_does_not_wait_for_a_worker_that_is_silent(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its own short time."""
    monkeypatch.setattr(client_module, "MMI_TIMEOUT_SECONDS", 0.2)
    (row,) = client.show_workers()
    assert (row["status"], row["note"]) == ("dead", "no answer within 0.2 s")


def test_a_worker_that_is_starting_is_waited_for_at_its_socket(rogue: Rogue, client: Client) -> None:
    """Its endpoint isn't published yet, but it is known where the socket will be."""
    rogue.lock.release()
    lock = WorkerLock.acquire(rogue.environment.lock_file(DEFAULT_WORKER))
    transport = client._transport
    assert transport.endpoint(DEFAULT_WORKER) == rogue.environment.socket_endpoint(DEFAULT_WORKER)
    lock.release()
