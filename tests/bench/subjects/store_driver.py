"""Drives a token store of ours without a worker around it; answers calls as `answering.py` says.

The one command-line argument is the folder of the database. Times are in seconds, one for each call.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from subjects.answering import answer_calls

from nfcli.models.tasks.auth import BearerTokenStoreInput
from nfcli.worker.http.bearer import DiskcacheBearerTokenVerifier
from nfcli.worker.tokens.store import TokenStore

NANOSECONDS = 1e9


class Driver:
    """The methods that the benchmark calls."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self._verifier = DiskcacheBearerTokenVerifier(store, [], "http://127.0.0.1:8001")
        self._plain: dict[str, bool] = {}

    def verify(self, tokens: list[str]) -> list[float]:
        """Verify tokens that are stored."""
        return asyncio.run(self._verify(tokens))

    async def _verify(self, tokens: list[str]) -> list[float]:
        seconds = []
        verify = self._verifier.verify_token
        for token in tokens:
            start = time.perf_counter_ns()
            found = await verify(token)
            seconds.append((time.perf_counter_ns() - start) / NANOSECONDS)
            if found is None:
                raise RuntimeError("a stored token is refused")
        return seconds

    def check(self, rows: list[tuple[str, str]]) -> list[float]:
        """Look tokens up that are stored."""
        return [_timed(self._is_there, token) for _, token in rows]

    def _is_there(self, token: str) -> bool:
        return self._store.lookup(token) is not None

    def floor(self, rows: list[tuple[str, str]]) -> list[float]:
        """Look the same tokens up in a plain dict of as many."""
        if not self._plain:
            self._plain = {record.token: True for record in self._store.records()}
        return [_timed(self._plain.__getitem__, token) for _, token in rows]

    def delete(self, rows: list[tuple[str, str]]) -> list[float]:
        """Delete tokens one by one."""
        return [_timed(self._is_deleted, token) for _, token in rows]

    def _is_deleted(self, token: str) -> bool:
        return self._store.delete(token=token, before_commit=None) == 1

    def create(self, rows: list[tuple[str, str]]) -> list[float]:
        """Store tokens one by one."""
        return [_timed(self._is_stored, *row) for row in rows]

    def _is_stored(self, username: str, token: str) -> bool:
        return (
            self._store.store(BearerTokenStoreInput(username=username, token=token), before_commit=None).token == token
        )


def _timed(function: Callable[..., bool], *args: str) -> float:
    start = time.perf_counter_ns()
    is_right = function(*args)
    seconds = (time.perf_counter_ns() - start) / NANOSECONDS
    if not is_right:
        raise RuntimeError("the store says the wrong thing")
    return seconds


if __name__ == "__main__":
    with TokenStore(Path(sys.argv[1])) as opened:
        answer_calls(Driver(opened))
