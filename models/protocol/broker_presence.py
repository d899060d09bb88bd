"""Whether a broker answers, and how long to wait for one that doesn't. No I/O; times are monotonic seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for brokers and workers, in seconds.

    Attributes:
        poll: between two requests for results that have not arrived.
        answer: for a broker to answer a request; it needs milliseconds.
        comeback: for a broker that is away to return, and then for its workers to register again.
        silence: for any message after one was sent, before the broker counts as away; a job asks again once after half
            of it. 0: at once, without that second request.
    """

    poll: float = 2.5
    answer: float = 2.5
    comeback: float = 20.0
    silence: float = 0.0


class BrokerPresence:
    """Tracks a broker that falls silent, disconnects and returns; the owner of the connection reports what happens.

    Args:
        timeouts: how long to wait for what.
        handshakes: how often the connection has been established so far.

    Attributes:
        away_at: when the broker counts as away unless it answers before; infinite while nothing is unanswered.
        is_disconnected: the connection broke, and no message has arrived since.
    """

    def __init__(self, timeouts: Timeouts, *, handshakes: int = 0) -> None:
        self.timeouts = timeouts
        self.away_at = math.inf
        self.is_disconnected = False
        self._handshakes = handshakes
        self._silent_since = math.inf
        self._settled_at = -math.inf

    @property
    def retry_at(self) -> float:
        """When a job asks again because its last message is unanswered."""
        return self._silent_since + self.timeouts.silence / 2 if self.timeouts.silence else math.inf

    @property
    def lost_at(self) -> float:
        """When jobs stop waiting for the broker."""
        return self.away_at + self.timeouts.comeback

    def is_away(self, now: float) -> bool:
        """Whether the broker has disconnected or been silent for too long."""
        return now >= self.away_at

    def is_settling(self, now: float) -> bool:
        """Whether the broker returned so recently that workers may not have registered again."""
        return now < self._settled_at

    def record_sent(self, now: float) -> None:
        """A message was sent to the broker."""
        if self._silent_since == math.inf:
            self._silent_since = now
            self.away_at = now + self.timeouts.silence

    def record_received(self, now: float) -> None:
        """A message arrived from the broker. One that was frozen may have dropped workers meanwhile."""
        if now - self._silent_since > 2 * self.timeouts.poll:
            self._settled_at = now + self.timeouts.comeback
        self._silent_since = self.away_at = math.inf
        self.is_disconnected = False

    def update_connection(self, *, is_up: bool, handshakes: int, now: float) -> bool:
        """Record the connection's state; return whether it was re-established, so that requests under way are lost."""
        is_new = handshakes != self._handshakes
        is_reconnected = is_new and self._handshakes > 0
        self._handshakes = handshakes
        if is_reconnected:
            self._settled_at = now + self.timeouts.comeback
        if is_reconnected or not is_up:
            self._silent_since = min(self._silent_since, now)
            self.away_at = min(self.away_at, now)
            self.is_disconnected = True
        return is_new
