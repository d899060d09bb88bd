"""A worker whose tools call other services of a fabric."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS

ERAS = [HANDSHAKE_ERA, SINGLE_POST_ERA]


PING = "service_net__task_ping"
MODES = ["legacy", "auto"]

Serve = Callable[..., Any]

in_both_eras = pytest.mark.parametrize("era", ERAS)


class Fabric:
    """A fabric whose jobs return `answer`, or raise it, at once; with `hold` they wait until they are cancelled.

    `calls` are the jobs so far; `has_begun` is released by each of them, `was_cancelled` set by a cancelled one.
    """

    def __init__(self) -> None:
        self.answer: Any = {}
        self.calls: list[tuple[Any, ...]] = []
        self.hold = False
        self.has_begun, self.was_cancelled = threading.Semaphore(0), threading.Event()

    async def run_job(
        self,
        service: str,
        task: str,
        kwargs: dict[str, Any],
        *,
        timeout: float,  # noqa: ASYNC109
        reserve: Callable[[int], str | None],  # noqa: ARG002  results are as small as tests' are
        listen: Any,  # noqa: ARG002  its workers say nothing
    ) -> Any:
        """Run a job."""
        self.calls.append((service, task, kwargs, timeout))
        self.has_begun.release()
        if self.hold:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.was_cancelled.set()
                raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def with_client(worker: Any, use: Callable[[Client], Any], mode: str, *, token: str = TOKEN) -> Any:
    """Call `use` with a client of the SDK that has a token; return what it returns."""

    async def run() -> Any:
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(streamable_http_client(worker.url, http_client=http), mode=mode) as client,
        ):
            return await use(client)

    return asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))
