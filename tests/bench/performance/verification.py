"""What it takes to verify a token, with few and with many of them stored; each store in a process of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

from performance.figures import Figure, Growth, percentile
from performance.token_counts import FLAT, TOKEN_COUNTS
from subjects.sites import Sites, token_rows

ROUNDS, CALLS, REFERENCE_CALLS = 5, 4_000, 400
MICROSECONDS = 1e6
_TARGET_US = 2.0
_COMPARED = ("100", "100,000")


def measure(sites: Sites) -> Iterator[Figure | Growth]:
    """Measure each size; the stores and the reference's take turns."""
    ours: dict[str, list[float]] = {name: [] for name in TOKEN_COUNTS}
    theirs: dict[str, list[float]] = {name: [] for name in _COMPARED}
    with ExitStack() as opened:
        stores = {name: opened.enter_context(sites.store(stock.rows())) for name, stock in TOKEN_COUNTS.items()}
        references = {name: opened.enter_context(sites.reference(start=False)) for name in _COMPARED}
        for name, reference in references.items():
            if reference is not None:
                reference.call("open_tokens", tokens=list(token_rows(TOKEN_COUNTS[name].tokens)))
        for turn in range(ROUNDS):
            for name, store in stores.items():
                ours[name] += store.call("verify", tokens=_sample(TOKEN_COUNTS[name].tokens, turn, CALLS))
                reference = references.get(name)
                if reference is not None:
                    sample = _sample(TOKEN_COUNTS[name].tokens, turn, REFERENCE_CALLS)
                    theirs[name] += reference.call("verify", tokens=sample)
    for name in _COMPARED:
        yield _figure(name, ours[name], theirs[name])
    medians = {name: percentile(seconds, 50) * MICROSECONDS for name, seconds in ours.items()}
    factor = max(medians.values()) / medians["100"]
    yield Growth("verify_token, by tokens", medians, "us", factor, f"<= {FLAT}", factor <= FLAT)


def _figure(name: str, ours: list[float], theirs: list[float]) -> Figure:
    p50 = percentile(ours, 50) * MICROSECONDS
    details = {"p99 us": percentile(ours, 99) * MICROSECONDS}
    if theirs:
        details["reference p99 us"] = percentile(theirs, 99) * MICROSECONDS
    reference = percentile(theirs, 50) * MICROSECONDS if theirs else None
    work = f"verify_token, {name} tokens"
    return Figure(work, p50, "us", reference, f"<= {_TARGET_US:g} us", p50 <= _TARGET_US, details)


def _sample(size: int, turn: int, calls: int) -> list[str]:
    numbers = random.Random(turn).choices(range(size), k=calls)  # noqa: S311  a sample, the same in each run
    return [f"bench-{number}" for number in numbers]
