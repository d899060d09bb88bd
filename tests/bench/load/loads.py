"""Runs the load generator and says what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from subjects.processes import BenchError
from subjects.sites import HERE

CONNECTIONS = 8
_GENERATOR = HERE / "load" / "load_generator.py"


@dataclass(frozen=True)
class Served:
    """What a server answered under load: answers a second by status, and the generator's share of a core."""

    rates: dict[int, float]
    generator_share: float

    def rate(self, expected: int, tolerated: int | None = None) -> float:
        """Return the rate of the expected answers; others than these mean that something else was measured.

        Args:
            expected: the status that most answers have.
            tolerated: another one that a few may have.
        """
        if expected not in self.rates or not self.rates.keys() <= {expected, tolerated}:
            raise BenchError(f"expected only {expected}, got {self.rates}")
        return self.rates[expected]


def load(url: str, token: str, seconds: float, *, guess: bool = False) -> Served:
    """Load a server for some seconds."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(_command(url, token, seconds, guess=guess), stdout=subprocess.PIPE, check=True)
    passed, after = time.perf_counter() - start, os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return Served(_rates(done.stdout), busy / passed)


@contextlib.contextmanager
def loading(url: str, token: str, *, source: str) -> Iterator[Callable[[], dict[int, float]]]:
    """Load a server with guesses from another address meanwhile; yields a function that ends it and returns rates."""
    command = _command(url, token, 0, "--from", source, guess=True)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None or process.stdout.readline() != b"loading\n":
            raise BenchError("the load generator doesn't begin")

        def end() -> dict[int, float]:
            out, _ = process.communicate()
            return _rates(b"loading\n" + out)

        try:
            yield end
        finally:
            process.kill()


def _command(url: str, token: str, seconds: float, *more: str, guess: bool) -> list[str]:
    flags = ["--guess"] if guess else []
    return [sys.executable, str(_GENERATOR), url, token, str(CONNECTIONS), str(seconds), *more, *flags]


def _rates(printed: bytes) -> dict[int, float]:
    answered = json.loads(printed.split(b"\n", 1)[1])
    return {int(status): count / answered["seconds"] for status, count in answered["statuses"].items()}
