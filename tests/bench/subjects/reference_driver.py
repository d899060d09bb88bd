"""Drives the reference; run by a Python that has the package norfab, which knows nothing of nfcli.

Answers calls as `answering.py` says. The one command-line argument is a folder that holds an `inventory.yaml` of
NorFab's. The end of stdin stops what was started.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from diskcache import FanoutCache
from norfab.core.nfapi import NorFab
from norfab.workers.fastmcp_worker.fastmcp_worker import DiskcacheBearerTokenVerifier
from subjects.answering import answer_calls

NANOSECONDS = 1e9


class Driver:
    """The methods that the benchmark calls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._norfab: Any = None
        self._client: Any = None

    def fill(self, worker: str, tokens: list[tuple[str, str]]) -> None:
        """Store tokens for a worker that isn't running yet."""
        cache = _open_cache(self._folder / "__norfab__" / "files" / "worker" / worker / "cache")
        _fill(cache, tokens)
        cache.close()

    def start(self) -> None:
        """Start broker and workers, and connect a client."""
        self._norfab = NorFab(inventory=str(self._folder / "inventory.yaml"))
        self._norfab.start()
        self._client = self._norfab.make_client(name="bench")

    def stop(self) -> None:
        """Stop them."""
        if self._norfab is not None:
            self._norfab.destroy()

    def processes(self) -> dict[str, int]:
        """Return the process numbers: this one's, the broker's and the workers'."""
        workers = {name: each["process"].pid for name, each in self._norfab.workers_processes.items()}
        return {"client": os.getpid(), "broker": self._norfab.broker.pid, **workers}

    def round_trips(self, task: str, kwargs: list[dict[str, Any]]) -> list[float]:
        """Run a job for each of `kwargs`; return the seconds that each took."""
        seconds = []
        for each in kwargs:
            start = time.perf_counter()
            answer = self._client.run_job("fastmcp", task, kwargs=each, workers="all", timeout=30)
            seconds.append(time.perf_counter() - start)
            if not answer or any(result["failed"] for result in answer.values()):
                raise RuntimeError(f"{task} failed: {answer}")
        return seconds

    def list_seconds(self) -> tuple[float, int]:
        """List all tokens; return how long that took and how many there are."""
        start = time.perf_counter()
        answer = self._client.run_job("fastmcp", "bearer_token_list", workers="all", timeout=300)
        seconds = time.perf_counter() - start
        return seconds, sum(len(result["result"] or ()) for result in answer.values())

    def open_tokens(self, tokens: list[tuple[str, str]]) -> None:
        """Store tokens in a new database, which `verify` asks."""
        self._cache = _open_cache(self._folder / "tokens")
        self._verifier = DiskcacheBearerTokenVerifier(self._cache)
        _fill(self._cache, tokens)

    def verify(self, tokens: list[str]) -> list[float]:
        """Verify tokens that are stored; return the seconds that each call took."""
        return asyncio.run(_verify(self._verifier, tokens))


async def _verify(verifier: Any, tokens: list[str]) -> list[float]:
    seconds = []
    for token in tokens:
        start = time.perf_counter_ns()
        found = await verifier.verify_token(token)
        seconds.append((time.perf_counter_ns() - start) / NANOSECONDS)
        if found is None:
            raise RuntimeError("a stored token is refused")
    return seconds


def _open_cache(folder: Path) -> FanoutCache:
    """Open a token database as the reference's worker does."""
    folder.mkdir(parents=True, exist_ok=True)
    return FanoutCache(directory=str(folder), shards=4, timeout=1, size_limit=1_073_741_824)


def _fill(cache: FanoutCache, tokens: list[tuple[str, str]]) -> None:
    created = str(datetime.now())  # noqa: DTZ005  what the reference writes
    with cache.transact():
        for username, token in tokens:
            value = {"token": token, "username": username, "created": created}
            cache.set(f"bearer_token::{token}", value, expire=None, tag=username)


def main() -> None:
    """Answer calls, then stop."""
    driver = Driver(Path(sys.argv[1]))
    answer_calls(driver)
    driver.stop()


if __name__ == "__main__":
    main()
