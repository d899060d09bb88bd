"""Invalid messages, to a worker of its own (more of them: `tests/bench/attack_frames.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from nfcli import Client
from nfcli.models.environment.curve_keys import ensure_client_key, read_public_key
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.workers import RunningWorker

pytestmark = pytest.mark.slow

ATTACK = Path(__file__).parents[2] / "bench" / "attack_frames.py"
SECONDS = 240
Frames = list[bytes]
Ask = Callable[[Frames], Frames | None]


@pytest.mark.parametrize(
    ("transport", "messages", "unauthenticated", "level"), [("tcp", 12_000, 90, "INFO"), ("ipc", 4_000, 36, "DEBUG")]
)
def test_the_worker_serves_on_through_wrong_messages_and_unauthenticated_peers(
    transport: str, messages: int, unauthenticated: int, level: str
) -> None:
    """No thread dies, nothing leaks, no job runs and no token is stored that shouldn't; the log has no fault."""
    numbers = ["--messages", str(messages), "--unauthenticated", str(unauthenticated), "--seed", "3"]
    command = [sys.executable, str(ATTACK), *numbers, "--transport", transport, "--log-level", level]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    report = json.loads(done.stdout or "{}")
    assert (report.get("wrong"), done.stderr, done.returncode) == ([], "", 0)
    assert (report["messages"], sum(report["unauthenticated"].values())) == (messages, unauthenticated)


@pytest.fixture
def ask(environment: Environment, worker: RunningWorker) -> Iterator[Ask]:
    """Send a message over a raw connection; return the first answer that comes before that to a GET sent after it."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        keys = ensure_client_key(environment)
        dealer.curve_publickey, dealer.curve_secretkey = keys.public, keys.secret
        dealer.curve_serverkey = read_public_key(environment.keys_folder / f"{DEFAULT_WORKER}.key")
        dealer.connect(worker.endpoint)

        def send(frames: Frames) -> Frames | None:
            dealer.send_multipart(frames)
            dealer.send_multipart([b"", b"NFPC01", b"0x06", b"fastmcp", b"all", b"after", b""])
            answers: list[Frames] = []
            while not answers or answers[-1][4:6] != [b"after", b"404"]:
                assert dealer.poll(SECONDS * 1_000), "no answer"
                answers.append(dealer.recv_multipart())
            return None if answers[0][4] == b"after" else answers[0]

        yield send


def test_ready_without_a_service_is_skipped(ask: Ask, client: Client) -> None:
    """It ends the reference's broker."""
    assert ask([b"", b"NFPW01", b"0x01"]) is None
    assert client.run_job("fastmcp", "bearer_token_check", kwargs={"token": "x"})[DEFAULT_WORKER]["result"] is False


@pytest.mark.parametrize("data", [b"not json", b"", b"\xff", b"[" * 100_000])
def test_a_post_that_is_no_json_is_refused_and_the_next_one_runs(ask: Ask, client: Client, data: bytes) -> None:
    """It keeps the reference's worker from taking any more jobs."""
    answer = ask([b"", b"NFPC01", b"0x04", b"fastmcp", b"all", b"u1", data])
    assert answer is not None
    assert answer[:6] == [b"", b"NFPB01", b"0x05", b"fastmcp", b"u1", b"400"]
    assert "JSON" in json.loads(answer[6])["error"]
    assert client.run_job("fastmcp", "bearer_token_list")[DEFAULT_WORKER]["result"] == []
