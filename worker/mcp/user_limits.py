"""Limits on the tool calls of each user, as the inventory's `limits` say: how many, how many at once, what size."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ...models.errors import ToolCallError
from ...models.inventory.sections.limits import UserLimit
from ..token_bucket import TokenBucket

MAX_USERS = 10_000
_MINUTE = 60.0


class _Usage:
    """What one user has used of his limits."""

    def __init__(self, limit: UserLimit, monotonic: Callable[[], float]) -> None:
        self.limit = limit
        self.running = 0
        calls, size = limit.calls_per_minute, limit.bytes_per_minute
        self.calls = None if calls is None else TokenBucket(calls, _MINUTE / calls, monotonic)
        self.bytes = None if size is None else TokenBucket(size, _MINUTE / size, monotonic)

    def refusal(self) -> str | None:
        """Return why a further call is refused now, or None."""
        limit = self.limit
        if limit.calls_at_once is not None and self.running >= limit.calls_at_once:
            return f"{limit.calls_at_once} of your calls are running, which is your limit: wait for one of them"
        if self.bytes is not None and (seconds := self.bytes.seconds_until(1)) > 0:
            what = f"{limit.bytes_per_minute} bytes of results a minute"
        elif self.calls is not None and (seconds := self.calls.seconds_until(1)) > 0:
            what = f"{limit.calls_per_minute} calls a minute"
        else:
            return None
        return f"your limit of {what} is reached: try again in {math.ceil(seconds)} s"


class UserLimits:
    """The limits of all users; belongs to one loop. `monotonic` returns seconds.

    Without authentication all calls are those of a user without a name.
    """

    def __init__(self, limits: Sequence[UserLimit], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._usages: OrderedDict[str, _Usage] = OrderedDict()

    @contextmanager
    def call(self, user: str) -> Iterator[None]:
        """Count a call that runs for the length of a `with` block.

        Raises:
            ToolCallError: a limit is reached; the message says which, and how long to wait.
        """
        usage = self._usage(user)
        if usage is None:
            yield
            return
        refusal = usage.refusal()
        if refusal is not None:
            raise ToolCallError(refusal)
        if usage.calls is not None:
            usage.calls.take()
        usage.running += 1
        try:
            yield
        finally:
            usage.running -= 1

    def count_result(self, user: str, size: int) -> None:
        """Count the bytes of a result that a user gets."""
        usage = self._usage(user)
        if usage is not None and usage.bytes is not None:
            usage.bytes.spend(size)

    def _usage(self, user: str) -> _Usage | None:
        usage = self._usages.get(user)
        if usage is None:
            limit = next((limit for limit in self._limits if limit.has(user)), None)
            if limit is None:
                return None
            usage = self._usages[user] = _Usage(limit, self._monotonic)
            self._drop_oldest()
        self._usages.move_to_end(user)
        return usage

    def _drop_oldest(self) -> None:
        """Forget users who have called nothing for longest, and have no call running: there may be any number."""
        idle = (user for user, usage in self._usages.items() if not usage.running)
        if len(self._usages) > MAX_USERS and (oldest := next(idle, None)) is not None:
            del self._usages[oldest]
