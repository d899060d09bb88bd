"""How many requests an MCP server answers in a second, with 8 keep-alive connections."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from load.loads import Served, load
from performance.figures import Figure
from subjects.processes import BenchError, child
from subjects.sites import HERE, TOKEN, Sites

SECONDS = 1.0
ROUNDS = 12
LIMIT = 10
OK, UNAUTHORIZED, TOO_MANY = 200, 401, 429
_PING_TARGET, _OPEN_TARGET, _REFUSAL_TARGET = 2.5, 0.95, 2.0


@dataclass
class _Turn:
    """One server and what it is asked; `rates` has an entry for each round."""

    url: str
    token: str = TOKEN
    expected: int = OK
    tolerated: int | None = None
    rates: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def run(self) -> None:
        served: Served = load(self.url, self.token, SECONDS, guess=self.expected != OK)
        self.rates.append(served.rate(self.expected, self.tolerated))
        self.shares.append(served.generator_share)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def details(self) -> dict[str, float]:
        return {"generator's share of a core": statistics.median(self.shares)}


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure pings with and without authentication, and refusals.

    Many short rounds, in which the servers take turns in one order and then in the other: what else the machine does
    meets them alike.
    """
    with ExitStack() as opened:
        turns = _turns(sites, opened)
        for number in range(ROUNDS):
            for turn in turns.values() if number % 2 else reversed(turns.values()):
                turn.run()
    yield from _figures(turns)


def _turns(sites: Sites, opened: ExitStack) -> dict[str, _Turn]:
    ours = opened.enter_context(sites.worker())
    free = opened.enter_context(sites.worker(authentication=False))
    strict = opened.enter_context(sites.worker(wrong_tokens_per_minute=LIMIT))
    turns = {
        "ping": _Turn(ours.url),
        "open": _Turn(free.url),
        "floor": _Turn(opened.enter_context(_sdk_server(sites))),
        "401": _Turn(ours.url, "wrong", UNAUTHORIZED),
        # The first wrong tokens of each minute get 401.
        "429": _Turn(strict.url, "wrong", TOO_MANY, UNAUTHORIZED),
    }
    reference = opened.enter_context(sites.reference())
    if reference is not None:
        turns["reference ping"] = _Turn(reference.url)
        turns["reference 401"] = _Turn(reference.url, "wrong", UNAUTHORIZED)
    return turns


def _figures(turns: dict[str, _Turn]) -> Iterator[Figure]:
    yield Figure("floor: the SDK's own server", turns["floor"].rate, "/s")
    yield Figure("ping, no authentication", turns["open"].rate, "/s")
    yield _compared("ping, authenticated", turns, "ping", _PING_TARGET)
    share = statistics.median(a / b for a, b in zip(turns["ping"].rates, turns["open"].rates, strict=True))
    yield Figure("    share of that without", share, "", target=f">= {_OPEN_TARGET}", met=share >= _OPEN_TARGET)
    yield _compared("401 answers", turns, "401", _REFUSAL_TARGET)
    # Slow by intent: whoever gets one has sent too many wrong tokens.
    yield Figure("429 answers, held up", turns["429"].rate, "/s")


def _compared(work: str, turns: dict[str, _Turn], name: str, target: float) -> Figure:
    ours, theirs = turns[name], turns.get(f"reference {name}")
    return Figure(
        work,
        ours.rate,
        "/s",
        reference=theirs.rate if theirs else None,
        target=f">= {target:g} x",
        met=ours.rate >= target * theirs.rate if theirs else None,
        details=ours.details,
    )


@contextlib.contextmanager
def _sdk_server(sites: Sites) -> Iterator[str]:
    with child([sys.executable, str(HERE / "subjects" / "sdk_server.py")], sites.new_folder()) as process:
        url = process.stdout.readline().decode().strip() if process.stdout is not None else ""
        if not url:
            raise BenchError("the SDK's server doesn't start")
        yield url
