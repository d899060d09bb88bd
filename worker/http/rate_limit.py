"""Rate limit of failed authentications per client network."""

from __future__ import annotations

import math
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW_SECONDS = 60
MAX_NETWORKS = 10_000
_MAX_WARNINGS = 10  # per window, all networks together: a flood must not fill the log
_MAPPED_IPV4 = bytes(10) + b"\xff\xff"


def client_network(peer: str) -> str:
    """Return the network that the failures of a peer address count against.

    That is the /64 of an IPv6 address, since a host can use every address of its /64, and the address itself for IPv4,
    including IPv4-mapped IPv6 addresses of dual-stack sockets.
    """
    if ":" not in peer:
        return peer
    try:
        packed = socket.inet_pton(socket.AF_INET6, peer.partition("%")[0])
    except OSError:
        return peer
    if packed.startswith(_MAPPED_IPV4):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return f"{socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8))}/64"


class _Failures:
    """Times of the last failed authentications of one network, and of its last warning."""

    __slots__ = ("times", "warned_at")

    def __init__(self, size: int) -> None:
        self.times: deque[float] = deque(maxlen=size)
        self.warned_at = -math.inf


class FailedAuthLimiter:
    """Lock out a network after more than `limit` failures in 60 s, until the oldest one leaves the window.

    At most `MAX_NETWORKS` are remembered; beyond that, the network whose last failure is the oldest is dropped. Each
    call takes constant time. Not thread-safe. `limit` is at least 1; `clock` returns monotonic seconds.
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
        if found is None or len(found.times) < self._size:
            return 0
        return max(0, math.ceil(found.times[0] + WINDOW_SECONDS - self._clock()))

    def record_failure(self, network: str) -> bool:
        """Count a failed authentication; return whether to log a warning about the lock-out of `network`.

        True at most once per window for a network, and at most ten times per window for all of them.
        """
        now = self._clock()
        found = self._failures.pop(network, None) or _Failures(self._size)
        found.times.append(now)
        self._failures[network] = found
        self._expire(now)
        is_locked = len(found.times) == self._size and now < found.times[0] + WINDOW_SECONDS
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
            oldest = next(iter(self._failures.values()))
            if now < oldest.times[-1] + WINDOW_SECONDS:
                return
            self._failures.popitem(last=False)
