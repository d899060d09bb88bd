"""Rate limit of wrong tokens per client network."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW_SECONDS = 60
MAX_NETWORKS = 10_000
_MAX_WARNINGS = 10  # per window, all networks together: a flood must not fill the log


class _Failures:
    """When one network last tried each of its last wrong tokens, and the time of its last warning.

    The tokens are hashes, in the order of those times.
    """

    __slots__ = ("tokens", "warned_at")

    def __init__(self) -> None:
        self.tokens: OrderedDict[int, float] = OrderedDict()
        self.warned_at = -math.inf


class FailedAuthLimiter:
    """Lock out a network after more than `limit` different wrong tokens in 60 s, until the oldest leaves the window.

    A token that is tried again counts once, at the time of its last failure: a client that repeats an old one guesses
    nothing. At most `MAX_NETWORKS` are remembered; beyond that, the network whose last failure is the oldest is
    dropped. Each call takes constant time. Not thread-safe. `limit` is at least 1; `clock` returns monotonic seconds.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = limit + 1
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._warnings: deque[float] = deque(maxlen=_MAX_WARNINGS)

    def __len__(self) -> int:
        """Return the number of networks that are remembered."""
        return len(self._failures)

    def retry_after(self, network: str) -> int:
        """Return the whole seconds until the lock-out of `network` ends; 0 when it is not locked out."""
        found = self._failures.get(network)
        if found is None or len(found.tokens) < self._size:
            return 0
        return max(0, math.ceil(_oldest(found.tokens) + WINDOW_SECONDS - self._clock()))

    def record_failure(self, network: str, token: str) -> bool:
        """Count a wrong token; return whether to log a warning about the lock-out of `network`.

        True at most once per window for a network, and at most ten times per window for all of them.
        """
        now = self._clock()
        found = self._failures.pop(network, None) or _Failures()
        found.tokens[hash(token)] = now
        found.tokens.move_to_end(hash(token))
        if len(found.tokens) > self._size:
            found.tokens.popitem(last=False)
        self._failures[network] = found
        self._expire(now)
        is_locked = len(found.tokens) == self._size and now < _oldest(found.tokens) + WINDOW_SECONDS
        if not is_locked or now < found.warned_at + WINDOW_SECONDS:
            return False
        found.warned_at = now
        if len(self._warnings) == _MAX_WARNINGS and now < self._warnings[0] + WINDOW_SECONDS:
            return False
        self._warnings.append(now)
        return True

    def _expire(self, now: float) -> None:
        """Drop a network beyond the maximum, and up to two without a failure in the window: the oldest come first."""
        if len(self._failures) > MAX_NETWORKS:
            self._failures.popitem(last=False)
        for _ in range(2):
            failures = next(iter(self._failures.values()))
            if now < next(reversed(failures.tokens.values())) + WINDOW_SECONDS:
                return
            self._failures.popitem(last=False)


def _oldest(tokens: OrderedDict[int, float]) -> float:
    return next(iter(tokens.values()))
