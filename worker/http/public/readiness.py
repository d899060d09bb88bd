"""Whether the worker should get requests, as load balancers and orchestrators ask it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import anyio.to_thread

from ..responses import NO_STORE, StaticResponse, error_response

log = logging.getLogger(__name__)

CACHE_SECONDS = 1.0
CHECK_SECONDS = 2.0

_READY = StaticResponse(200, headers=(NO_STORE,))
_STOPPING = error_response(503, "not ready: the worker is stopping", NO_STORE)
_NOT_WRITABLE = error_response(503, "not ready: the token store can't be written; see the worker's log", NO_STORE)
_NO_ANSWER = error_response(503, "not ready: the token store's disk doesn't respond", NO_STORE)


class Readiness:
    """Responses to the ready probe. Belongs to the server's loop.

    `find_problem` returns why the token store can't be written, None if it can; it runs in a thread, at most once per
    `CACHE_SECONDS` for all clients, since they need no token. Its text is logged and not sent. `is_stopping` returns
    whether the worker has begun to stop.
    """

    def __init__(
        self,
        find_problem: Callable[[], str | None] = lambda: None,
        is_stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find_problem = find_problem
        self._is_stopping = is_stopping
        self._clock = clock
        self._check: asyncio.Task[str | None] | None = None
        self._checked_at = 0.0
        self._problem: str | None = None

    async def response(self) -> StaticResponse:
        """Return the response to a probe, within `CHECK_SECONDS`."""
        if self._is_stopping():
            return _STOPPING
        if self._check is None or (self._check.done() and self._clock() >= self._checked_at + CACHE_SECONDS):
            self._check = asyncio.create_task(self._run_check())
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                problem = await asyncio.shield(self._check)
        except TimeoutError:
            return _NO_ANSWER
        return _READY if problem is None else _NOT_WRITABLE

    async def _run_check(self) -> str | None:
        try:
            problem = await anyio.to_thread.run_sync(self._find_problem, abandon_on_cancel=True)
        except Exception as error:  # noqa: BLE001  whatever it is, tokens can't be stored
            problem = f"the token store can't be checked: {type(error).__name__}"
        self._checked_at = self._clock()
        if problem != self._problem:
            self._problem = problem
            log.warning("not ready: %s", problem) if problem is not None else log.info("ready again")
        return problem
