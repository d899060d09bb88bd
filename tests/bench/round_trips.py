"""Round trips of a job through the client API, beside the bare ZeroMQ echo and the reference."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq
from figures import Figure, percentile
from sites import TOKEN, BenchError, Reference, Sites

from nfcli import Client, NorFab

ROUNDS = 5
JOBS_A_ROUND = 200
PAYLOAD = b"x" * 150
"""As many bytes as a small job's request has."""

MILLISECONDS = 1e3

_CHECK_TARGET_MS, _CHECK_TARGET_ECHOES, _STORE_TARGET_MS = 0.9, 5, 2.0


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure a check and a durable store; the rounds of all parties take turns, so that they meet the same machine."""
    samples: dict[str, list[float]] = {}

    def add(name: str, seconds: list[float]) -> None:
        samples.setdefault(name, []).extend(each * MILLISECONDS for each in seconds)

    with _echo_server(sites.new_folder()) as dealer, sites.worker() as worker, sites.reference() as reference:
        norfab = NorFab(inventory=worker.environment.inventory_file)
        client = norfab.make_client()
        for number in range(ROUNDS + 1):
            stored = [{"username": "bench", "token": f"new-{number}-{each}"} for each in range(JOBS_A_ROUND)]
            checked = [{"token": TOKEN}] * JOBS_A_ROUND
            if number == 1:
                samples.clear()  # the first round warms up
            for each in checked:
                # One echo before each job: in a loop of its own an echo's median is 0.04 or 0.11 ms, by the core that
                # the scheduler happens to keep its server on.
                add("echo", [_echo(dealer)])
                add("check", _jobs(client, "bearer_token_check", [each]))
            add("store", _jobs(client, "bearer_token_store", stored))
            if isinstance(reference, Reference):
                add("reference check", reference.call("round_trips", task="bearer_token_check", kwargs=checked))
                add("reference store", reference.call("round_trips", task="bearer_token_store", kwargs=stored))
        norfab.destroy()
    yield from _figures(samples)


def _figures(samples: dict[str, list[float]]) -> Iterator[Figure]:
    echo = percentile(samples["echo"], 50)
    yield Figure("bare ZeroMQ echo over ipc, p50", echo, "ms", details={"p99 ms": percentile(samples["echo"], 99)})
    for task in ("check", "store"):
        p50 = percentile(samples[task], 50)
        theirs = samples.get(f"reference {task}")
        details = {"p99 ms": percentile(samples[task], 99), "echoes": p50 / echo}
        if theirs:
            details["reference p99 ms"] = percentile(theirs, 99)
        is_check = task == "check"
        target = (
            f"<= {_CHECK_TARGET_MS} ms, <= {_CHECK_TARGET_ECHOES} echoes" if is_check else f"<= {_STORE_TARGET_MS} ms"
        )
        limit = min(_CHECK_TARGET_MS, _CHECK_TARGET_ECHOES * echo) if is_check else _STORE_TARGET_MS
        yield Figure(
            f"job round trip bearer_token_{task}, p50",
            p50,
            "ms",
            reference=percentile(theirs, 50) if theirs else None,
            target=target,
            met=p50 <= limit,
            details=details,
        )


def _jobs(client: Client, task: str, kwargs: list[dict[str, Any]]) -> list[float]:
    seconds = []
    for each in kwargs:
        start = time.perf_counter()
        answer = client.run_job("fastmcp", task, kwargs=each, workers="all", timeout=30)
        seconds.append(time.perf_counter() - start)
        if any(result["failed"] for result in answer.values()):
            raise BenchError(f"{task} failed: {answer}")
    return seconds


@contextlib.contextmanager
def _echo_server(folder: Path) -> Iterator[zmq.Socket[bytes]]:
    endpoint = f"ipc://{folder}/echo"
    command = [sys.executable, str(Path(__file__).with_name("echo_server.py")), endpoint]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()
            dealer = context.socket(zmq.DEALER)
            dealer.connect(endpoint)
            yield dealer
        finally:
            process.kill()
            context.destroy(linger=0)


def _echo(dealer: zmq.Socket[bytes]) -> float:
    start = time.perf_counter()
    dealer.send_multipart([b"", PAYLOAD])
    dealer.recv_multipart()
    return time.perf_counter() - start
