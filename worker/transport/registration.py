"""When a worker tells its broker what, so that it is registered and stays so; neither sockets nor a clock.

A broker of norfab 0.25.0 drops all that comes from a worker it doesn't know, silently: one that was restarted, or that
has taken a worker for dead. So a worker finds out by itself, from the broker's silence; and then by a question, since
a READY that lies unread when the name changes hands would register a worker that isn't there: ZeroMQ hands out what
came on the old connection under a name that it makes up.
"""

from __future__ import annotations

from ...models.protocol.broker_replies import HOLD_SECONDS, KEEPALIVE_SECONDS
from ...models.protocol.frames import Command

SILENT_INTERVALS = 3


class Registration:
    """The signals of one connection to a broker; all times are in monotonic seconds.

    Args:
        now: when the connection was begun.
        is_left: the broker has an entry of this name that a dead worker has left, perhaps for another service.
        keepalive_seconds: between two keepalives, in both directions.
        hold_seconds: how long either side waits for the other's keepalives.
    """

    def __init__(
        self,
        now: float,
        *,
        is_left: bool = False,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        self.heard_at = now
        self._is_left = is_left
        self._keepalive_seconds = keepalive_seconds
        self._hold_seconds = hold_seconds
        self._keepalive_at = now
        self._ready_at: float | None = None
        self._is_ready_due = True

    def connected(self, now: float) -> None:
        """Begin anew: the connection has come about, perhaps again, with a broker that may have been restarted."""
        self.heard_at = self._keepalive_at = now
        self._is_ready_due = True

    def heard(self, now: float) -> None:
        """Take in a keepalive of the broker's."""
        self.heard_at = now

    def forgotten(self, now: float) -> None:
        """Register again at once, or with the next keepalive where that was done less than an interval ago."""
        if self._ready_at is None or now >= self._ready_at + self._keepalive_seconds:
            self._keepalive_at = now
        self._is_ready_due = True

    def is_silent(self, now: float) -> bool:
        """Whether the broker has missed several keepalives."""
        return now >= self._silent_at()

    def is_lost(self, now: float) -> bool:
        """Whether the broker has been silent for the whole hold time."""
        return now >= self.lost_at()

    def lost_at(self) -> float:
        """Return when the hold time ends."""
        return self.heard_at + self._hold_seconds

    def next_change(self, now: float) -> float:
        """Return when `signals` has the next ones, or the broker is silent if that comes first."""
        silent_at = self._silent_at()
        return min(self._keepalive_at, silent_at) if silent_at > now else self._keepalive_at

    def signals(self, now: float) -> list[bytes]:
        """Return the commands to send now, in order; READY comes with a keepalive, which renews an old registration.

        To a broker that knows this worker a further READY means nothing.
        """
        if now < self._keepalive_at:
            return []
        # After a pause of this process's own it may have been taken for dead.
        is_late = now >= self._keepalive_at + self._keepalive_seconds
        self._keepalive_at = now + self._keepalive_seconds if is_late else self._keepalive_at + self._keepalive_seconds
        if not (self._is_ready_due or is_late):
            return [Command.KEEPALIVE]
        first = [Command.DISCONNECT] if self._is_left else []
        self._is_left = self._is_ready_due = False
        self._ready_at = now
        return [*first, Command.READY, Command.KEEPALIVE]

    def not_sent(self, now: float) -> None:
        """Take back what `signals` gave: it couldn't be sent, and is due again in a moment."""
        self._is_ready_due = True
        self._ready_at = None
        self._keepalive_at = now + self._keepalive_seconds / 20

    def _silent_at(self) -> float:
        return self.heard_at + SILENT_INTERVALS * self._keepalive_seconds
