"""How many requests an MCP server answers in a second, with 8 keep-alive connections."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure
from sites import TOKEN, BenchError, Sites

CONNECTIONS = 8
SECONDS = 1.0
ROUNDS = 12
GENERATOR = Path(__file__).with_name("load_generator.py")
_PING_TARGET, _OPEN_TARGET, _REFUSAL_TARGET = 2.5, 0.95, 2.0


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure pings with and without authentication, and refusals.

    Many short rounds, in which the servers take turns in one order and then in the other: what else the machine does
    meets them alike.
    """
    rates: dict[str, list[float]] = {}
    with sites.worker() as ours, sites.worker(authentication=False) as free, sites.reference() as theirs:
        turns = [("ping", ours.url, TOKEN, 200), ("open", free.url, TOKEN, 200), ("refusal", ours.url, "wrong", 401)]
        if theirs is not None:
            turns += [("reference ping", theirs.url, TOKEN, 200), ("reference refusal", theirs.url, "wrong", 401)]
        for number in range(ROUNDS):
            for turn in turns if number % 2 else reversed(turns):
                _add(rates, *turn)
    ping, theirs_ping = _median(rates, "ping"), _median(rates, "reference ping")
    to_open = statistics.median(a / b for a, b in zip(rates["ping"], rates["open"], strict=True))
    yield Figure(
        f"authenticated MCP ping, {CONNECTIONS} connections",
        ping or 0,
        "/s",
        reference=theirs_ping,
        target=f">= {_PING_TARGET} x the reference",
        met=None if theirs_ping is None or ping is None else ping >= _PING_TARGET * theirs_ping,
        details={"generator's share of a core": statistics.median(rates["ping busy"])},
    )
    yield Figure(
        "the same without authentication; with it as a share",
        _median(rates, "open") or 0,
        "/s",
        target=f"share >= {_OPEN_TARGET}",
        met=to_open >= _OPEN_TARGET,
        details={"share": to_open},
    )
    refusal, theirs_refusal = _median(rates, "refusal"), _median(rates, "reference refusal")
    yield Figure(
        f"401 answers, {CONNECTIONS} connections",
        refusal or 0,
        "/s",
        reference=theirs_refusal,
        target=f">= {_REFUSAL_TARGET} x the reference",
        met=None if theirs_refusal is None or refusal is None else refusal >= _REFUSAL_TARGET * theirs_refusal,
        details={"generator's share of a core": statistics.median(rates["refusal busy"])},
    )


def _median(rates: dict[str, list[float]], name: str) -> float | None:
    return statistics.median(rates[name]) if name in rates else None


def _add(rates: dict[str, list[float]], name: str, url: str, token: str, expected: int) -> None:
    """Load a server for a while; add the answers a second, and how busy the generator was."""
    command = [sys.executable, str(GENERATOR), url, token, str(CONNECTIONS), str(SECONDS)]
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    passed, after = time.perf_counter() - start, os.times()
    answered = json.loads(done.stdout)
    statuses = answered["statuses"]
    if list(statuses) != [str(expected)]:
        raise BenchError(f"{name}: expected only {expected}, got {statuses}")
    rates.setdefault(name, []).append(statuses[str(expected)] / answered["seconds"])
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    rates.setdefault(f"{name} busy", []).append(busy / passed)
