"""A session over a client that keeps tokens as workers do, its output as text, and databases of NorFab's workers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from nfcli.shell.output.console import Console
from nfcli.shell.repl.session import Session
from support.fake_client import FakeClient
from support.norfab.database import NorfabDatabase


class Bench:
    """A session and what it has printed."""

    def __init__(self, client: FakeClient, **options: Any) -> None:
        self.client = client
        self.out = io.StringIO()
        self.err = io.StringIO()
        self.session = Session(client, console=Console(self.out, self.err), **options)

    def run(self, line: str) -> tuple[int, str, str]:
        """Run a line; return its exit status and what it wrote to stdout and stderr."""
        return self._told(self.session.run_line(line))

    def run_words(self, *words: str) -> tuple[int, str, str]:
        """Run the words of a command line; return as `run` does."""
        return self._told(self.session.run_words(words))

    def _told(self, status: int) -> tuple[int, str, str]:
        told = status, self.out.getvalue(), self.err.getvalue()
        for stream in (self.out, self.err):
            stream.seek(0)
            stream.truncate()
        return told


@pytest.fixture
def client() -> FakeClient:
    """Provide a client with one worker."""
    return FakeClient()


@pytest.fixture
def bench(client: FakeClient) -> Bench:
    """Provide a session with one worker."""
    return Bench(client)


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    """Provide sessions with workers and options of the test's choice."""

    def make(*workers: str, **options: Any) -> Bench:
        return Bench(FakeClient(*workers), **options)

    return make


@pytest.fixture
def run(bench: Bench) -> Callable[[str], tuple[int, str, str]]:
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
