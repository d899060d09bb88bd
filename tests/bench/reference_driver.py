"""Drives the reference; run by a Python that has the package norfab, which knows nothing of nfcli.

A line on stdin is a JSON list `[method, {argument: value}]`; a line on stdout is its JSON answer, `{"value": …}` or
`{"error": …}`. The one command-line argument is a folder that holds an `inventory.yaml` of NorFab's. The end of stdin
stops what was started.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from diskcache import FanoutCache
from norfab.core.nfapi import NorFab
from norfab.workers.fastmcp_worker.fastmcp_worker import DiskcacheBearerTokenVerifier

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

    def verify_seconds(self, tokens: list[tuple[str, str]], calls: int) -> list[float]:
        """Store tokens in a new database and verify some of them; return the seconds that each call took."""
        cache = _open_cache(self._folder / f"cache-{len(tokens)}")
        _fill(cache, tokens)
        seconds = asyncio.run(_verify(DiskcacheBearerTokenVerifier(cache), [token for _, token in tokens], calls))
        cache.close()
        return seconds


async def _verify(verifier: Any, tokens: list[str], calls: int) -> list[float]:
    seconds = []
    for token in random.Random(1).choices(tokens, k=calls):  # noqa: S311  a sample, the same in each run
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
    """Answer each line of stdin."""
    # NorFab prints; what isn't an answer goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    driver = Driver(Path(sys.argv[1]))
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer = {"value": getattr(driver, method)(**arguments)}
        except Exception as error:  # noqa: BLE001  the benchmark says so and ends
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    driver.stop()


if __name__ == "__main__":
    main()
