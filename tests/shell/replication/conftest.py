"""Fixtures of the tests that compare workers and bring them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.shell.bench import Printed, ShellBench
from support.tokens.fleet import Fleet


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Make fleets of workers; the end of the test closes them."""
    with ExitStack() as stack:
        yield lambda *names, **options: Fleet(tmp_path, stack, *names, **options)


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    """Provide a fleet of three workers."""
    return make_fleet("w1", "w2", "w3")


@pytest.fixture
def run_in() -> Callable[[Fleet, str], Printed]:
    """Run a line of the shell with a fleet's client; return exit status, stdout and stderr."""
    return lambda fleet, line: ShellBench(fleet).run(line)  # type: ignore[arg-type]
