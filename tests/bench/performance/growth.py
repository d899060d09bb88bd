"""How costs grow with the number of tokens: of one token not at all, of a user's tokens with how many these are."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from performance.figures import Figure, Growth
from performance.token_counts import (
    CACHE_MISSES_US,
    FLAT,
    GROUPS,
    MANY,
    TOKEN_COUNTS,
    TokenCount,
    group_user,
    grouped_rows,
)
from subjects.processes import BenchError, Driver
from subjects.sites import Rows, Sites, running, token_rows

from nfcli import Client, NorFab

ROUNDS = 5
CALLS_IN_STORE = {"floor": 4_000, "check": 4_000, "delete": 40, "create": 40}
JOBS = {"check": 100, "delete": 20, "create": 20}
LISTINGS = 5
STARTS = 3
MICROSECONDS, MILLISECONDS = 1e6, 1e3
_START_TARGET_S = 2.0

_Row = tuple[str, str]
_Party = Callable[[str, list[_Row]], list[float]]
"""Does an operation with each row; returns the seconds that each took."""


def measure(sites: Sites) -> Iterator[Figure | Growth]:
    """Measure single tokens in the store and as jobs, then users' tokens, then the start."""
    with ExitStack() as opened:
        stores = {name: opened.enter_context(sites.store(stock.rows())) for name, stock in TOKEN_COUNTS.items()}
        parties: dict[str, _Party] = {name: partial(_in_store, store) for name, store in stores.items()}
        yield from _flat("store", parties, CALLS_IN_STORE, MICROSECONDS, "us")
    with ExitStack() as opened:
        clients = {name: _client(opened, sites, stock.rows()) for name, stock in TOKEN_COUNTS.items()}
        parties = {name: partial(_as_jobs, client) for name, client in clients.items()}
        yield from _flat("job", parties, JOBS, MILLISECONDS, "ms")
    with ExitStack() as opened:
        yield from _by_user(
            _client(opened, sites, grouped_rows()), _client(opened, sites, TOKEN_COUNTS["of one user"].rows())
        )
    yield from _starts(sites)


def _flat(where: str, parties: dict[str, _Party], calls: dict[str, int], scale: float, unit: str) -> Iterator[Growth]:
    """Let stocks of different sizes take turns; what is deleted is created again, so that the sizes stay."""
    samples: dict[str, dict[str, list[float]]] = {each: {name: [] for name in parties} for each in calls}
    for turn in range(ROUNDS):
        for name, party in parties.items():
            for operation, count in calls.items():
                samples[operation][name] += party(operation, _sample(TOKEN_COUNTS[name], turn, count))
    for operation, by_stock in samples.items():
        medians = {name: statistics.median(seconds) * scale for name, seconds in by_stock.items()}
        yield _growth(f"{operation} a token, {where}", operation, medians, unit)


def _growth(work: str, operation: str, medians: dict[str, float], unit: str) -> Growth:
    most, least = max(medians.values()), medians["100"]
    factor = most / least
    if operation == "floor":
        return Growth("floor: look-up in a dict", medians, unit, factor)
    if unit == "us" and operation == "check":
        return Growth(work, medians, unit, factor, f"+ {CACHE_MISSES_US} us", most <= least + CACHE_MISSES_US)
    return Growth(work, medians, unit, factor, f"<= {FLAT}", factor <= FLAT)


def _sample(stock: TokenCount, turn: int, count: int) -> list[_Row]:
    """Return rows of a stock, the same ones in each run and for each operation of a turn, none twice where enough."""
    sampler = random.Random(turn)  # noqa: S311  see above
    numbers = sampler.sample(range(stock.tokens), min(count, stock.tokens))
    return [(f"user-{number % stock.users}", f"bench-{number}") for number in numbers]


def _in_store(store: Driver, operation: str, rows: list[_Row]) -> list[float]:
    seconds: list[float] = store.call(operation, rows=rows)
    return seconds


_TASKS = {"check": "bearer_token_check", "create": "bearer_token_store", "delete": "bearer_token_delete"}


def _as_jobs(client: Client, operation: str, rows: list[_Row]) -> list[float]:
    return [
        _job(client, _TASKS[operation], token=token, **({"username": username} if operation == "create" else {}))[0]
        for username, token in rows
    ]


def _job(client: Client, task: str, **kwargs: str) -> tuple[float, Any]:
    """Return the seconds that a job took, and its result."""
    start = time.perf_counter()
    [answer] = client.run_job("fastmcp", task, kwargs=kwargs, timeout=60).values()
    seconds = time.perf_counter() - start
    if answer["failed"] or answer["result"] is False:
        raise BenchError(f"{task}: {answer['errors'] or answer['messages']}")
    return seconds, answer["result"]


def _client(opened: ExitStack, sites: Sites, rows: Rows) -> Client:
    """Return a client of a worker that has these tokens."""
    worker = opened.enter_context(sites.worker(rows=rows))
    norfab = NorFab(inventory=worker.environment.inventory_file)
    opened.callback(norfab.destroy)
    return norfab.make_client()


def _by_user(grouped: Client, whole: Client) -> Iterator[Growth]:
    """List and delete users' tokens; `grouped` has users of each group, `whole` one user who has all."""
    users = [(grouped, size, group_user(size, number)) for size, count in GROUPS.items() for number in range(count)]
    users.append((whole, MANY, next(token_rows(1))[0]))
    listing: dict[int, list[float]] = {}
    deletion: dict[int, list[float]] = {}
    for client, size, username in users:
        for _ in range(LISTINGS):
            seconds, result = _job(client, "bearer_token_list", username=username)
            if len(result) != size:
                raise BenchError(f"{len(result)} tokens are listed where there are {size}")
            listing.setdefault(size, []).append(seconds * MILLISECONDS)
    for client, size, username in users:
        deletion.setdefault(size, []).append(_job(client, "bearer_token_delete", username=username)[0] * MILLISECONDS)
    for operation, samples in (("list", listing), ("delete", deletion)):
        medians = {f"{size:,}": statistics.median(each) for size, each in samples.items()}
        yield _proportional(f"{operation} a user's, of {MANY:,}", medians)


def _proportional(work: str, medians: dict[str, float]) -> Growth:
    """Compare what a token costs in the last column with what it costs in the one before.

    In the first one the round trip and the commit outweigh the tokens.
    """
    (_, middle), (_, last) = list(medians.items())[1:]
    factor = last / middle / (MANY / list(GROUPS)[-1])
    return Growth(work, medians, "ms", factor, f"<= {FLAT}", factor <= FLAT)


def _starts(sites: Sites) -> Iterator[Figure]:
    """Start workers until they are ready; the stocks take turns."""
    environments = {name: sites.environment(stock.rows()) for name, stock in TOKEN_COUNTS.items()}
    samples: dict[str, list[float]] = {name: [] for name in TOKEN_COUNTS}
    for _ in range(STARTS):
        for name, environment in environments.items():
            start = time.perf_counter()
            with running(environment):
                samples[name].append(time.perf_counter() - start)
    for name, seconds in samples.items():
        took = statistics.median(seconds)
        work = f"worker's start, {name if TOKEN_COUNTS[name].users > 1 else f'{MANY:,} {name}'}"
        yield Figure(work, took, "s", target=f"<= {_START_TARGET_S:g} s", met=took <= _START_TARGET_S)
