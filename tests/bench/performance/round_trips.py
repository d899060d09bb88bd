"""Round trips of a job through the client API, beside their floors and the reference."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import zmq
from performance.durable import durable_commits, durable_lines
from performance.figures import Figure, percentile
from subjects.processes import BenchError
from subjects.sites import HERE, TOKEN, Sites

from nfcli import Client, NorFab

ROUNDS = 5
JOBS_A_ROUND = 200
PAYLOAD = b"x" * 150
"""As many bytes as a small job's request has."""

MILLISECONDS = 1e3
_CHECK_TARGET_MS, _CHECK_TARGET_ECHOES, _STORE_TARGET_MS = 0.9, 5, 2.0
_Samples = dict[str, list[float]]


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure a check and a durable store; the rounds of all parties take turns, so that they meet the same machine."""
    samples: _Samples = {}
    with ExitStack() as opened:
        dealer = opened.enter_context(_echo_server(sites.new_folder()))
        commit = opened.enter_context(durable_commits(sites.new_folder()))
        append = opened.enter_context(durable_lines(sites.new_folder()))
        worker = opened.enter_context(sites.worker())
        reference = opened.enter_context(sites.reference())
        norfab = NorFab(inventory=worker.environment.inventory_file)
        opened.callback(norfab.destroy)
        client = norfab.make_client()
        for number in range(ROUNDS + 1):
            if number == 1:
                samples.clear()  # the first round warms up
            # The floors take turns with what stands on them, one by one: in a loop of its own an echo's median is 0.04
            # or 0.11 ms, by the core that the scheduler happens to keep its server on.
            for _ in range(JOBS_A_ROUND):
                _add(samples, "echo", _echo(dealer))
                _add(samples, "check", _job(client, "bearer_token_check", token=TOKEN))
            for each in range(JOBS_A_ROUND):
                token = f"new-{number}-{each}"
                _add(samples, "commit", commit(token))
                _add(samples, "line", append())
                _add(samples, "store", _job(client, "bearer_token_store", username="bench", token=token))
            if reference is not None:
                checked = [{"token": TOKEN}] * JOBS_A_ROUND
                stored = [{"username": "bench", "token": f"new-{number}-{each}"} for each in range(JOBS_A_ROUND)]
                for name, kwargs in (("check", checked), ("store", stored)):
                    seconds = reference.call("round_trips", task=f"bearer_token_{name}", kwargs=kwargs)
                    _add(samples, f"reference {name}", *seconds)
    yield from _figures(samples)


def _add(samples: _Samples, name: str, *seconds: float) -> None:
    samples.setdefault(name, []).extend(each * MILLISECONDS for each in seconds)


def _figures(samples: _Samples) -> Iterator[Figure]:
    echo, check, commit, line, store = (
        percentile(samples[name], 50) for name in ("echo", "check", "commit", "line", "store")
    )
    yield _p50("floor: bare ZeroMQ echo over ipc", samples, "echo")
    yield _p50("bearer_token_check", samples, "check", _CHECK_TARGET_MS)
    echoes = check / echo
    target = f"<= {_CHECK_TARGET_ECHOES} x"
    yield Figure("    times the echo", echoes, "x", target=target, met=echoes <= _CHECK_TARGET_ECHOES)
    yield _p50("floor: durable SQLite commit", samples, "commit")
    yield _p50("floor: durable line of a file", samples, "line")
    yield _p50("bearer_token_store, durable", samples, "store", _STORE_TARGET_MS)
    yield Figure("    times echo, commit and line", store / (echo + commit + line), "x")


def _p50(work: str, samples: _Samples, name: str, target_ms: float | None = None) -> Figure:
    p50, theirs = percentile(samples[name], 50), samples.get(f"reference {name}")
    details = {"p99 ms": percentile(samples[name], 99)}
    if theirs:
        details["reference p99 ms"] = percentile(theirs, 99)
    return Figure(
        work,
        p50,
        "ms",
        reference=percentile(theirs, 50) if theirs else None,
        target="" if target_ms is None else f"<= {target_ms:g} ms",
        met=None if target_ms is None else p50 <= target_ms,
        details=details,
    )


def _job(client: Client, task: str, **kwargs: Any) -> float:
    start = time.perf_counter()
    answer = client.run_job("fastmcp", task, kwargs=kwargs, workers="all", timeout=30)
    seconds = time.perf_counter() - start
    if any(result["failed"] for result in answer.values()):
        raise BenchError(f"{task} failed: {answer}")
    return seconds


@contextlib.contextmanager
def _echo_server(folder: Path) -> Iterator[zmq.Socket[bytes]]:
    endpoint = f"ipc://{folder}/echo"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    command = [sys.executable, str(HERE / "subjects" / "echo_server.py"), endpoint]
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
