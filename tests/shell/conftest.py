"""Fixtures of the shell's tests: sessions over a fake client, and databases of NorFab's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from support.norfab.database import NorfabDatabase
from support.shell.bench import Printed, ShellBench
from support.shell.fake_client import FakeClient


@pytest.fixture
def client() -> FakeClient:
    """Provide a client with one worker."""
    return FakeClient()


@pytest.fixture
def bench(client: FakeClient) -> ShellBench:
    """Provide a session with one worker."""
    return ShellBench(client)


@pytest.fixture
def make_bench() -> Callable[..., ShellBench]:
    """Provide sessions with workers and options of the test's choice."""

    def make(*workers: str, **options: Any) -> ShellBench:
        return ShellBench(FakeClient(*workers), **options)

    return make


@pytest.fixture
def run(bench: ShellBench) -> Callable[[str], Printed]:
    """Run a line with one worker; return its exit status and what it wrote to stdout and stderr."""
    return bench.run


@pytest.fixture
def make_norfab() -> Iterator[Callable[[Path], NorfabDatabase]]:
    """Make empty databases of NorFab workers; the end of the test closes them."""
    with ExitStack() as opened:

        def make(folder: Path) -> NorfabDatabase:
            return opened.enter_context(closing(NorfabDatabase(folder)))

        yield make


@pytest.fixture
def norfab(make_norfab: Callable[[Path], NorfabDatabase], tmp_path: Path) -> NorfabDatabase:
    """Make an empty database in the folder `cache`."""
    return make_norfab(tmp_path / "cache")
