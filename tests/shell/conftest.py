"""A session over a client that keeps tokens as workers do, its output as text, and databases of NorFab's workers."""

from __future__ import annotations

import io
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import diskcache
import pytest
from pydantic import BaseModel, ValidationError

from nfcli.models.errors import validation_messages
from nfcli.models.inventory.schema import Inventory
from nfcli.models.protocol.jobs import Result
from nfcli.models.tasks.auth import (
    BearerTokenCheckInput,
    BearerTokenDeleteInput,
    BearerTokenListInput,
    BearerTokenStoreInput,
)
from nfcli.shell.output.console import Console
from nfcli.shell.repl.session import Session

INPUTS: dict[str, type[BaseModel]] = {
    "bearer_token_store": BearerTokenStoreInput,
    "bearer_token_list": BearerTokenListInput,
    "bearer_token_delete": BearerTokenDeleteInput,
    "bearer_token_check": BearerTokenCheckInput,
}
CREATION = "2026-05-31 12:08:51.914919"


class FakeClient:
    """The client as the shell sees it, with token stores in memory.

    `calls` holds the keyword arguments of every job. `failing` maps workers to what goes wrong there; `raising` is
    raised instead of running a job.
    """

    def __init__(self, *workers: str) -> None:
        self.inventory = Inventory.default()
        self.workers = workers or ("fastmcp-worker-1",)
        self.tokens: dict[str, dict[str, dict[str, str]]] = {worker: {} for worker in self.workers}
        self.failing: dict[str, str] = {}
        self.messages: dict[str, list[str]] = {}
        self.answers: dict[str, Any] = {}
        self.raising: BaseException | None = None
        self.calls: list[dict[str, Any]] = []

    def run_job(self, service: str, task: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Run a task on the workers that `workers` names."""
        self.calls.append({"service": service, "task": task, **options})
        if self.raising is not None:
            raise self.raising
        targets = options.get("workers", "all")
        names = self.workers[:1] if targets == "any" else self.workers if targets == "all" else targets
        return {name: self._result(name, task, options.get("kwargs") or {}) for name in names}

    def worker_names(self, service: str) -> list[str]:
        """Return the workers' names."""
        assert service == "fastmcp"
        return list(self.workers)

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker."""
        return [
            {"name": name, "service": "fastmcp", "status": "alive", "endpoint": "ipc://x", "alive (s)": "1", "note": ""}
            for name in self.workers
        ]

    def describe(self) -> dict[str, Any]:
        """Return what this client is."""
        return {"environment": "/somewhere", "workers": list(self.workers)}

    def _result(self, worker: str, task: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        if worker in self.failing:
            result = Result(failed=True, errors=[self.failing[worker]], status="error")
        else:
            try:
                model = INPUTS[task].model_validate(kwargs) if task in INPUTS else None
                value = self.answers[task] if task in self.answers else getattr(self, task)(worker, model)
                result = Result(result=value, messages=self.messages.get(worker, []))
            except ValidationError as error:
                result = Result(failed=True, errors=validation_messages(error), status="error")
        return result.model_dump(mode="json")

    def bearer_token_store(self, worker: str, arguments: BearerTokenStoreInput) -> bool:
        """Keep a token."""
        row = {"username": arguments.username, "token": arguments.token, "age": "0:00:01", "creation": CREATION}
        self.tokens[worker][arguments.token] = {**row, "expires": str(arguments.expire)}
        return True

    def bearer_token_list(self, worker: str, arguments: BearerTokenListInput) -> list[dict[str, str]]:
        """Return rows, by user."""
        rows = self.tokens[worker].values()
        return sorted(
            (row for row in rows if arguments.username in {None, row["username"]}), key=lambda row: row["username"]
        )

    def bearer_token_delete(self, worker: str, arguments: BearerTokenDeleteInput) -> bool:
        """Drop tokens; return whether there were any."""
        kept = {
            token: row
            for token, row in self.tokens[worker].items()
            if not (arguments.token in {None, token} and arguments.username in {None, row["username"]})
        }
        removed = len(kept) < len(self.tokens[worker])
        self.tokens[worker] = kept
        return removed

    def bearer_token_check(self, worker: str, arguments: BearerTokenCheckInput) -> bool:
        """Return whether the token is kept."""
        return arguments.token in self.tokens[worker]


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


class Norfab:
    """A NorFab worker's token database in the making."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cache = diskcache.FanoutCache(directory=str(folder), shards=4, timeout=1, size_limit=1024**3)

    def store(self, token: str, username: str, expires: float | None = None, created: str = CREATION) -> None:
        """Store a token as NorFab's workers do; `expires` in epoch seconds."""
        record = {"token": token, "username": username, "created": created}
        self.put(f"bearer_token::{token}", record, username, expires)

    def put(self, key: object, value: object, tag: object = "alice", expires: float | None = None) -> None:
        """Write a row."""
        lifetime = None if expires is None else expires - time.time()
        self._cache.set(key, value, expire=lifetime, tag=tag)

    def plant(self, data: bytes, key: str = "bearer_token::t1", **columns: object) -> None:
        """Write a row with a pickle of the test's making, or whatever columns."""
        row = {"key": key, "raw": 1, "tag": "alice", "mode": 4, "value": data, **columns}
        with closing(sqlite3.connect(self.folder / "000" / "cache.db")) as connection, connection:
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO Cache({', '.join(row)}) VALUES({marks})", tuple(row.values()))

    def close(self) -> None:
        """Close the files: SQLite folds its write-ahead logs in and removes them."""
        self._cache.close()


@pytest.fixture
def make_norfab() -> Iterator[Callable[[Path], Norfab]]:
    """Make empty databases of NorFab workers; the end of the test closes them."""
    with ExitStack() as opened:

        def make(folder: Path) -> Norfab:
            return opened.enter_context(closing(Norfab(folder)))

        yield make


@pytest.fixture
def norfab(make_norfab: Callable[[Path], Norfab], tmp_path: Path) -> Norfab:
    """Make an empty database in the folder `cache`."""
    return make_norfab(tmp_path / "cache")
