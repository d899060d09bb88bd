"""How many wrong tokens an address may try: a bounded table of when it tried the last ones."""

from __future__ import annotations

import math
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW_SECONDS = 60
MAX_ADDRESSES = 10_000
_MAX_WARNINGS = 10  # in a window, all addresses together: strangers must not fill the log
_MAPPED_IPV4 = bytes(10) + b"\xff\xff"


def counted_address(peer: str) -> str:
    """Return the address that the guesses of a connection's peer are counted under.

    That is the /64 of an IPv6 address, since whoever has one address of it has them all, and IPv4 as itself, also
    where a socket for both shows it as IPv6.
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


class _Guesses:
    """When an address sent its last wrong tokens, and when its lock-out was last told of."""

    __slots__ = ("times", "told")

    def __init__(self, size: int) -> None:
        self.times: deque[float] = deque(maxlen=size)
        self.told = -math.inf


class GuessLimit:
    """Locks an address out that sent more than `most` wrong tokens within a minute, until one of them is that old.

    At most `MAX_ADDRESSES` are remembered, then the one whose last wrong token is the oldest is forgotten. Each call
    takes the same time whatever came before. For one thread.

    Args:
        most: how many wrong tokens are let pass, at least 1.
        clock: seconds that never go back.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = most + 1
        self._clock = clock
        self._guesses: OrderedDict[str, _Guesses] = OrderedDict()
        self._told: deque[float] = deque(maxlen=_MAX_WARNINGS)

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._guesses)

    def wait_seconds(self, address: str) -> int:
        """Return after how many whole seconds `address` may try again; 0 when it may now."""
        found = self._guesses.get(address)
        if found is None or len(found.times) < self._size:
            return 0
        return max(0, math.ceil(found.times[0] + WINDOW_SECONDS - self._clock()))

    def count(self, address: str) -> bool:
        """Count a wrong token; return whether the operator should be told that `address` is locked out now.

        True once a minute for an address at most, and ten times for all of them.
        """
        now = self._clock()
        found = self._guesses.pop(address, None) or _Guesses(self._size)
        found.times.append(now)
        self._guesses[address] = found
        self._forget(now)
        is_locked = len(found.times) == self._size and now < found.times[0] + WINDOW_SECONDS
        if not is_locked or now < found.told + WINDOW_SECONDS:
            return False
        found.told = now
        if len(self._told) == _MAX_WARNINGS and now < self._told[0] + WINDOW_SECONDS:
            return False
        self._told.append(now)
        return True

    def _forget(self, now: float) -> None:
        """Let go of an address too many, or of two that sent nothing wrong for a minute: they come in that order."""
        if len(self._guesses) > MAX_ADDRESSES:
            self._guesses.popitem(last=False)
        for _ in range(2):
            oldest = next(iter(self._guesses.values()))
            if now < oldest.times[-1] + WINDOW_SECONDS:
                return
            self._guesses.popitem(last=False)
