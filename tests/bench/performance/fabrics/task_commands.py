"""Commands made from the tasks of services: reading the tasks, running one beside a built-in command, and Tab."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import cast

from performance.figures import Figure, percentile
from subjects.processes import BenchError

from nfcli import Client
from nfcli.shell.output.console import Console
from nfcli.shell.repl.completion import complete
from nfcli.shell.repl.dispatch import ShellClient
from nfcli.shell.repl.session import Session

COMMANDS, WARM_UP = 300, 20
KEY_PRESSES = 300
FOUND_SECONDS = 60.0
NOISE = 0.05
"""By which two measurements of the same may differ."""

MOST_READING, MOST_TAB_MILLISECONDS = 1.5, 50.0
_RUN, _BUILT_IN = "run fastmcp get_version", "show fastmcp version"
_MILLISECONDS = 1e3


def measure(client: Client, services: int, discover_seconds: float) -> Iterator[Figure]:
    """Measure a session of the shell; `discover_seconds` is what the worker took to discover the same services."""
    session = _session(client)
    begun = time.perf_counter()
    names = [name for name in session.catalogue.services() if name.startswith("crowd")]
    found = sum(len(session.catalogue.task_entries(name)) for name in names)
    seconds = time.perf_counter() - begun
    if len(names) != services:
        raise BenchError(f"{len(names)} services were found")
    yield Figure(
        f"run: reading {found} tasks of {services} services",
        seconds,
        "s",
        target=f"at most {MOST_READING:g} x discover",
        met=seconds <= MOST_READING * discover_seconds,
        details={"discover s": discover_seconds},
    )
    yield _commands(session)
    yield _key_presses(_session(client), names)


def _session(client: Client) -> Session:
    return Session(cast("ShellClient", client), console=Console(io.StringIO(), io.StringIO()))


def _commands(session: Session) -> Figure:
    samples: dict[str, list[float]] = {_RUN: [], _BUILT_IN: []}
    for _ in range(COMMANDS + WARM_UP):
        for each, seconds in samples.items():
            begun = time.perf_counter()
            if session.run_line(each):
                raise BenchError(f"{each} has failed")
            seconds.append(time.perf_counter() - begun)
    ours, built_in = (percentile([each * _MILLISECONDS for each in samples[key][WARM_UP:]], 50) for key in samples)
    return Figure(
        f"{_RUN}, tasks known, p50",
        ours,
        "ms",
        target="as a built-in command",
        met=ours <= built_in * (1 + NOISE),
        details={"built-in ms": built_in},
    )


def _key_presses(session: Session, services: list[str]) -> Figure:
    lines = ["run ", *(f"run {name} t" for name in services), *(f"run {name} task_1 a" for name in services)]
    # The first ones ask for the tasks, and wait for an answer no longer than a key press may take.
    first = [_press(session, line) for line in lines]
    deadline = time.monotonic() + FOUND_SECONDS
    while not all(map(session.catalogue.task_entries, services)):
        if time.monotonic() > deadline:
            raise BenchError("the tasks were not listed")
    known = [_press(session, lines[number % len(lines)]) for number in range(KEY_PRESSES)]
    return Figure(
        "Tab behind run, tasks known, p99",
        percentile(known, 99),
        "ms",
        target=f"at most {MOST_TAB_MILLISECONDS:g} ms",
        met=percentile(known, 99) <= MOST_TAB_MILLISECONDS,
        details={"p50 ms": percentile(known, 50), "not known yet, p50 ms": percentile(first, 50)},
    )


def _press(session: Session, line: str) -> float:
    """Return how long the Tab key takes at the end of a line, in milliseconds."""
    begun = time.perf_counter()
    with session.catalogue.only_known():
        complete(line, session.navigator.location, session.suggester)
    return (time.perf_counter() - begun) * _MILLISECONDS
