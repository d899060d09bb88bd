"""The client against a worker that has the right key and sends wrong answers: jobs end and later ones work."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER
from nfcli.models.environment.worker_lock import WorkerLock
from nfcli.models.protocol.connection import MESSAGES_AT_ONCE
from nfcli.models.protocol.frames import ClientMessage, Command
from nfcli.models.protocol.jobs import Result
from nfcli.shell.client.client import Client
from support.fabric.rogue_worker import WAIT_SECONDS, answer, result, rogue_and_client

BENCH = Path(__file__).parents[2] / "bench"
Frames = list[bytes]


@pytest.fixture
def _both(tmp_path: Path) -> Iterator[tuple[Any, Client]]:
    with rogue_and_client(tmp_path) as both:
        yield both


@pytest.fixture
def rogue(_both: tuple[Any, Client]) -> Any:
    """Return a rogue worker in an environment of its own."""
    return _both[0]


@pytest.fixture
def client(_both: tuple[Any, Client]) -> Client:
    """Return a client of that environment."""
    return _both[1]


@pytest.mark.parametrize(
    ("status", "data", "error"),
    [
        ("200", ["not", "an", "object"], "the worker's answer is not a result"),
        ("200", b"not json", "the worker's answer is not a result"),
        ("200", {"somebody": {"result": 1}}, "the worker's answer is not a result"),
        ("200", {DEFAULT_WORKER: "just text"}, "the worker's answer is not a result"),
        ("200", {DEFAULT_WORKER: {}}, "the worker's answer is not a result"),
        ("200", {DEFAULT_WORKER: {"failed": "no"}}, "the worker's answer is not a result"),
        ("200", {DEFAULT_WORKER: {"failed": True, "errors": 5}}, "the worker's answer is not a result"),
        ("200", {DEFAULT_WORKER: {"failed": False, "messages": [None]}}, "the worker's answer is not a result"),
        ("400", ["x"], "status 400"),
        ("404", {"status": "JOB NOT FOUND"}, "JOB NOT FOUND"),
        ("417", {}, "status 417"),
        ("500", {"error": "kaboom"}, "kaboom"),
        ("500", {"error": "x" * 5_000}, "x" * 2_000),
        ("500", {"error": {"a": []}, "status": 5}, "status 500"),
        ("400", b"\xff", "status 400"),
    ],
)
def test_an_answer_of_the_wrong_shape_is_one_line_and_the_next_job_works(
    rogue: Any, client: Client, status: str, data: Any, error: str
) -> None:
    """Some of these end the reference client's receiving thread."""
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
def test_noise_before_the_answer_is_skipped(rogue: Any, client: Client, noise: Frames) -> None:
    """Frames that are not NFP and answers to other jobs neither end the wait nor extend it."""
    rogue.script = lambda uuid: [
        noise,
        answer(uuid, "202", {}),
        answer(uuid, "201", []),
        answer(uuid, "200", {"event_type": "progress"}, command=b"0x08"),
        [*answer(uuid, "200", result("good")), b"surplus"],
    ]
    assert client.run_job("fastmcp", "x", timeout=WAIT_SECONDS)[DEFAULT_WORKER]["result"] == "good"


def test_events_are_reported(rogue: Any) -> None:
    """Under the name of the worker that the connection leads to; a message that is no text is empty."""
    reported: list[tuple[str, str]] = []
    texts = [("progress", "starting"), ("progress", "half way"), ("result_ready", "completed"), ("progress", 5)]
    events = [{"worker": "other", "event_type": kind, "message": text} for kind, text in texts]
    rogue.script = lambda uuid: [
        *(answer(uuid, "200", data, command=b"0x08") for data in [*events, [], b"no json"]),
        answer("another job", "200", events[1], command=b"0x08"),
        answer(uuid, "200", result("good")),
    ]
    with rogue.client(on_event=lambda event: reported.append((event["worker"], event["message"]))) as client:
        assert client.run_job("fastmcp", "x", timeout=WAIT_SECONDS)[DEFAULT_WORKER]["result"] == "good"
    assert reported == [(DEFAULT_WORKER, text) for text in ("starting", "half way", "completed", "")]


def test_a_result_without_some_fields_gets_them(rogue: Any, client: Client) -> None:
    """With their defaults, as the manual promises."""
    rogue.script = lambda uuid: [answer(uuid, "200", result("good"))]
    found = client.run_job("fastmcp", "x", timeout=WAIT_SECONDS)[DEFAULT_WORKER]
    assert found == Result(result="good").model_dump(mode="json")


def test_endless_noise_does_not_delay_the_deadline(rogue: Any) -> None:
    """The client handles a bounded number of messages at a time."""
    noise = [answer("another job", "200", result("foreign"))] * 900
    transport, message = rogue.transport(), ClientMessage(Command.POST, "fastmcp", b"all", "u1", b"{}")
    rogue.script = lambda _: noise
    transport.send_message(DEFAULT_WORKER, message)
    assert rogue.is_silent.wait(WAIT_SECONDS)
    counts = []
    while sum(counts) < len(noise):
        counts.append(len(list(transport.receive([DEFAULT_WORKER], time.monotonic() + WAIT_SECONDS))))
    transport.close()
    assert max(counts) <= MESSAGES_AT_ONCE


def test_mutated_answers_end_in_results_or_clear_errors() -> None:
    """The client works after each of them (`tests/bench/attack_client.py` sends more)."""
    command = [sys.executable, str(BENCH / "attack_client.py"), "--answers", "2000", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    report = json.loads(done.stdout or "{}")
    assert (report.get("wrong"), report.get("answers"), done.stderr) == ([], 2_000, "")


@pytest.mark.parametrize(
    ("status", "data", "note"),
    [
        ("200", b"not json", "the worker's answer doesn't name it"),
        ("200", {"a": 1}, "the worker's answer doesn't name it"),
        ("200", [1, {"name": "other"}], "the worker's answer doesn't name it"),
        ("403", {"error": "no"}, "no"),
    ],
)
def test_show_workers_names_the_fault_of_an_answer(
    rogue: Any, client: Client, status: str, data: Any, note: str
) -> None:
    """A worker that doesn't identify itself counts as dead, with the reason."""
    rogue.script = lambda uuid: [answer("another", "200", []), answer(uuid, status, data, command=b"0x11")]
    (row,) = client.show_workers()
    assert (row["status"], row["note"]) == ("dead", note)


def test_show_workers_does_not_wait_for_a_silent_worker(rogue: Any) -> None:
    """That request has a short time-out of its own."""
    with rogue.client(answer_seconds=0.2) as client:
        (row,) = client.show_workers()
    assert (row["status"], row["note"].endswith(" 0.2 s")) == ("dead", True)


def test_a_starting_worker_is_awaited_at_its_socket(rogue: Any) -> None:
    """Its endpoint isn't published yet, but the path of its socket is known."""
    rogue.lock.release()
    lock = WorkerLock.acquire(rogue.environment.lock_file(DEFAULT_WORKER))
    transport = rogue.transport()
    assert transport.endpoint(DEFAULT_WORKER) == rogue.environment.socket_endpoint(DEFAULT_WORKER)
    transport.close()
    lock.release()
