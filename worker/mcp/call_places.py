"""Places for the calls of tools: tokens take turns for them, and a call whose client has gone has none."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from ...models.errors import TaskError, ToolCallError
from ..fair_queue import FairQueue

TASK_PLACES = 40
"""Calls of this worker's tasks at a time, each in a thread."""
TASK_PLACES_PER_TOKEN = 10
JOB_PLACES = 150
"""Calls of other services' tasks at a time."""
JOB_PLACES_PER_TOKEN = 25
MAX_ASKING = 100
"""Calls that have asked their client, whose tasks run on without a place."""
MAX_ASKING_PER_TOKEN = 5
CHECK_PLACES = 3
"""Checks of arguments and results at a time, which take only processor time, up to a second each."""
CHECK_PLACES_PER_TOKEN = 1
WAITING_PER_TOKEN = 50
"""Calls that may wait for a place; each keeps a connection open."""
CHECKS_WAITING_PER_TOKEN = 200

_ValueT = TypeVar("_ValueT")


class CallPlaces:
    """Places that callers wait for, in turn by token, `waiting_per_token` of each; belongs to one loop."""

    def __init__(self, places: int, places_per_token: int, waiting_per_token: int = WAITING_PER_TOKEN) -> None:
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(places, places_per_token)
        self._waiting_per_token = waiting_per_token

    async def acquire(self, token: str) -> None:
        """Wait for a place, to be given back by `release`.

        Raises:
            ToolCallError: too many calls of this token are waiting.
        """
        if (waiting := self._queue.waiting(token)) >= self._waiting_per_token:
            raise ToolCallError(f"{waiting} calls of this token are waiting: try again when some have ended")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._queue.put(token, turn):
            return
        try:
            await turn
        except BaseException:
            if not self._queue.remove(token, turn):
                self.release(token)  # it has just been given the place
            raise

    def release(self, token: str) -> None:
        """Give back a place of a token's."""
        turn = self._queue.release(token)
        if turn is not None and not turn.done():
            turn.set_result(None)


class AskingLimit:
    """Bounds the calls that have asked their client: of each token's, and of all. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking: Counter[str] = Counter()

    def take(self, token: str) -> None:
        """Count a call that asks, until `give`; TaskError if there are too many."""
        with self._lock:
            if self._asking[token] >= MAX_ASKING_PER_TOKEN:
                raise TaskError(f"{MAX_ASKING_PER_TOKEN} calls of this token have asked questions: answer them")
            if self._asking.total() >= MAX_ASKING:
                raise TaskError(f"{MAX_ASKING} calls have asked questions: call again later")
            self._asking[token] += 1

    def once(self, token: str) -> AskingCall:
        """Return the part of one call."""
        return AskingCall(self, token)

    def give(self, token: str) -> None:
        """Count a call as ended that has asked."""
        with self._lock:
            self._asking[token] -= 1
            self._asking += Counter()  # drops zero counts


class AskingCall:
    """One call's part of a limit: counted from its first question to its end. From any thread."""

    def __init__(self, limit: AskingLimit, token: str) -> None:
        self._limit = limit
        self._token = token
        self._lock = threading.Lock()
        self._is_counted = self._has_ended = False

    def take(self) -> None:
        """Count the call, once; TaskError if too many are counted."""
        with self._lock:
            if not self._is_counted and not self._has_ended:
                self._limit.take(self._token)
                self._is_counted = True

    def give(self) -> None:
        """Count the call no longer."""
        with self._lock:
            self._has_ended = True
            if self._is_counted:
                self._is_counted = False
                self._limit.give(self._token)


class TaskRun:
    """One function in a thread, which is begun once and not after it has been cancelled.

    `give_place` is called in its thread before it waits for its client, and gives its place to others; it raises a
    TaskError where too many do so.
    """

    def __init__(self, token: str, give_place: Callable[[TaskRun], None]) -> None:
        self.token = token
        self.give_place = partial(give_place, self)
        self.has_asked = False
        self.cancelled = threading.Event()
        self.has_place = True
        self._lock = threading.Lock()
        self._has_begun = False

    def begin(self) -> bool:
        """Return whether the function is to be run; from its thread."""
        with self._lock:
            self._has_begun = not self.cancelled.is_set()
            return self._has_begun

    def cancel(self) -> bool:
        """Tell the function that its result is not wanted any more; return whether it has begun."""
        with self._lock:
            self.cancelled.set()
            return self._has_begun


class TaskThreads:
    """Runs the tasks of calls in threads, with `places` for those whose client waits; belongs to one loop.

    A cancelled call gives its place back at once although its task may run on, but no more of them than there are
    places, for each token and in all: the number of threads is bounded by twice that.
    """

    def __init__(
        self,
        places: int = TASK_PLACES,
        places_per_token: int = TASK_PLACES_PER_TOKEN,
        waiting_per_token: int = WAITING_PER_TOKEN,
        asking: AskingLimit | None = None,
    ) -> None:
        self._places = CallPlaces(places, places_per_token, waiting_per_token)
        self._max_abandoned, self._max_abandoned_per_token = places, places_per_token
        self._abandoned: Counter[str] = Counter()
        self._asking = AskingLimit() if asking is None else asking
        self._lock = threading.Lock()
        self._limiter = anyio.CapacityLimiter(math.inf)

    async def run(self, token: str, function: Callable[[TaskRun], _ValueT]) -> _ValueT:
        """Return what a function returns that is called in a thread; its run has an event for when it is cancelled.

        Raises:
            ToolCallError: as `CallPlaces.acquire`; and what the function raises.
        """
        await self._places.acquire(token)
        loop = asyncio.get_running_loop()
        run = TaskRun(token, partial(self._give_place, loop))

        def work() -> _ValueT:
            if not run.begin():
                raise RuntimeError("cancelled before it began")  # nobody awaits it
            try:
                return function(run)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._end, run)

        try:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        except anyio.get_cancelled_exc_class():
            self._abandon(run)
            raise

    def _give_place(self, loop: asyncio.AbstractEventLoop, run: TaskRun) -> None:
        """Free the place of a run, from its thread."""
        with self._lock:
            if run.has_asked or run.cancelled.is_set():
                return
            self._asking.take(run.token)
            run.has_asked = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._free_place, run)

    def _free_place(self, run: TaskRun) -> None:
        if run.has_place:
            run.has_place = False
            self._places.release(run.token)

    def _abandon(self, run: TaskRun) -> None:
        with self._lock:
            has_begun, has_asked = run.cancel(), run.has_asked
        if not has_begun:
            self._places.release(run.token)
        elif has_asked:
            self._free_place(run)
        elif (
            self._abandoned.total() < self._max_abandoned
            and self._abandoned[run.token] < self._max_abandoned_per_token
            and run.has_place
        ):
            run.has_place = False
            self._abandoned[run.token] += 1
            self._places.release(run.token)

    def _end(self, run: TaskRun) -> None:
        if run.has_asked:
            self._asking.give(run.token)
        if run.has_place:
            self._free_place(run)
        elif not run.has_asked:
            self._abandoned[run.token] -= 1
            self._abandoned += Counter()
