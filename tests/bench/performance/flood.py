"""What a flood of wrong tokens does to those who have the right one.

One client with a token asks steadily from 127.0.0.1; wrong tokens come from 127.0.0.2 over 8 connections, each as fast
as it is answered. All of that runs on one machine: the worker, the flood and the client share its cores, which a flood
from elsewhere would leave to the worker.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack

from load.loads import loading
from performance.figures import Figure, percentile
from subjects.processes import BenchError, Driver
from subjects.sites import HERE, NO_LIMIT, TOKEN, Sites

ELSEWHERE = "127.0.0.2"
LIMIT = 10
RATE, SECONDS, ROUNDS = 100, 3.0, 5
REFUSALS = {401, 429}
MILLISECONDS = 1e3
_TARGET = 5
_FLOODS = {"in a flood": LIMIT, "in a flood, no limit": NO_LIMIT}


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure quiet and flooded seconds in turn, with the limit on wrong tokens and without."""
    quiet: list[float] = []
    flooded: dict[str, list[float]] = {name: [] for name in _FLOODS}
    rates: dict[str, list[float]] = {name: [] for name in _FLOODS}
    with ExitStack() as opened:
        workers = {
            name: opened.enter_context(sites.worker(wrong_tokens_per_minute=limit)) for name, limit in _FLOODS.items()
        }
        folder = sites.new_folder()
        client = opened.enter_context(Driver.running([sys.executable, str(HERE / "load" / "steady_client.py")], folder))
        for _ in range(ROUNDS):
            for name, worker in workers.items():
                quiet += _asked(client, worker.url)
                with loading(worker.url, "wrong", source=ELSEWHERE) as end:
                    flooded[name] += _asked(client, worker.url)
                    answered = end()
                if not answered.keys() <= REFUSALS:
                    raise BenchError(f"wrong tokens were answered {answered}")
                rates[name].append(sum(answered.values()))
    base = percentile(quiet, 99)
    yield Figure("quiet", base, "ms", details={"p50 ms": percentile(quiet, 50)})
    for name, samples in flooded.items():
        p99 = percentile(samples, 99)
        details = {"p50 ms": percentile(samples, 50), "refusals a second": min(rates[name])}
        yield Figure(name, p99, "ms", details=details)
        yield Figure("    times the quiet one", p99 / base, "x", target=f"< {_TARGET} x", met=p99 < _TARGET * base)


def _asked(client: Driver, url: str) -> list[float]:
    answers = client.call("ask", url=url, token=TOKEN, rate=RATE, seconds=SECONDS)
    return [seconds * MILLISECONDS for seconds in answers]
