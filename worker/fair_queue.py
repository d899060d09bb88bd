"""A queue in front of a bounded number of places, where no owner of items can take all of them."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class FairQueue(Generic[ItemT]):
    """Items that wait for a place, by owner; owners take turns, whatever number of items each has. Not thread-safe.

    At most `places` items have a place at a time, and at most `places_per_owner` of one owner's.
    """

    def __init__(self, places: int, places_per_owner: int) -> None:
        self._free = places
        self._places_per_owner = places_per_owner
        self._taken: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[ItemT]] = OrderedDict()

    def put(self, owner: str, item: ItemT) -> bool:
        """Add an item; return whether it has a place at once. `release` returns it later if not."""
        if self._free and self._taken[owner] < self._places_per_owner:
            self._take(owner)
            return True
        self._waiting.setdefault(owner, deque()).append(item)
        return False

    def release(self, owner: str) -> ItemT | None:
        """Free a place of an owner's item; return the waiting item that has one now, None if there is none."""
        self._free += 1
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
        for each in self._waiting:
            if self._taken[each] < self._places_per_owner:
                return self._next_of(each)
        return None

    def remove(self, owner: str, item: ItemT) -> bool:
        """Remove an item that is waiting; return whether it was."""
        waiting = self._waiting.get(owner)
        if waiting is None or item not in waiting:
            return False
        waiting.remove(item)
        if not waiting:
            del self._waiting[owner]
        return True

    def waiting(self, owner: str) -> int:
        """Return how many items of an owner are waiting."""
        return len(self._waiting.get(owner, ()))

    def _next_of(self, owner: str) -> ItemT:
        waiting = self._waiting.pop(owner)
        item = waiting.popleft()
        if waiting:
            self._waiting[owner] = waiting  # last: the others come first the next time
        self._take(owner)
        return item

    def _take(self, owner: str) -> None:
        self._free -= 1
        self._taken[owner] += 1
