"""Which signals a worker sends its broker when, to be registered and to stay so; without sockets and clock.

A broker of norfab 0.25.0 silently drops the messages of workers that it doesn't know, because it was restarted or
because it has removed a worker whose keepalives failed to come. The worker has to infer that from the broker's silence.
It then asks before it sends READY: one that is unread when another worker connects with the name would register a
worker that doesn't exist, because ZeroMQ delivers the old connection's messages under a generated name.
"""

from __future__ import annotations

from ...models.protocol.broker_replies import HOLD_SECONDS, KEEPALIVE_SECONDS
from ...models.protocol.frames import Command

SILENT_INTERVALS = 3


class Registration:
    """The signals of one connection to a broker, started `now`; all times are in monotonic seconds.

    `has_stale_entry`: the broker still lists a dead worker of this name, perhaps for another service. Keepalives come
    every `keepalive_seconds` in both directions, and either side waits `hold_seconds` for the other's.
    """

    def __init__(
        self,
        now: float,
        *,
        has_stale_entry: bool = False,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        self.last_keepalive = now
        self._has_stale_entry = has_stale_entry
        self._keepalive_seconds = keepalive_seconds
        self._hold_seconds = hold_seconds
        self._keepalive_at = now
        self._ready_at: float | None = None
        self._is_ready_due = True

    def connected(self, now: float) -> None:
        """Restart: the connection is established, perhaps again, to a broker that may have been restarted."""
        self.last_keepalive = self._keepalive_at = now
        self._is_ready_due = True

    def keepalive_received(self, now: float) -> None:
        """Note a keepalive of the broker's."""
        self.last_keepalive = now

    def reregister(self, now: float) -> None:
        """Register again at once, or with the next keepalive if the last time is less than an interval ago."""
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
        return self.last_keepalive + self._hold_seconds

    def next_change(self, now: float) -> float:
        """Return when `due_signals` returns the next ones, or the broker becomes silent if that is earlier."""
        silent_at = self._silent_at()
        return min(self._keepalive_at, silent_at) if silent_at > now else self._keepalive_at

    def due_signals(self, now: float) -> list[bytes]:
        """Return the commands to send now, in order; READY comes with a keepalive, which renews an old registration.

        A broker that knows this worker ignores another READY.
        """
        if now < self._keepalive_at:
            return []
        # If this process was suspended, the broker may have removed the worker.
        is_late = now >= self._keepalive_at + self._keepalive_seconds
        self._keepalive_at = now + self._keepalive_seconds if is_late else self._keepalive_at + self._keepalive_seconds
        if not (self._is_ready_due or is_late):
            return [Command.KEEPALIVE]
        first = [Command.DISCONNECT] if self._has_stale_entry else []
        self._has_stale_entry = self._is_ready_due = False
        self._ready_at = now
        return [*first, Command.READY, Command.KEEPALIVE]

    def send_failed(self, now: float) -> None:
        """Make what `due_signals` returned due again in a moment: it couldn't be sent."""
        self._is_ready_due = True
        self._ready_at = None
        self._keepalive_at = now + self._keepalive_seconds / 20

    def _silent_at(self) -> float:
        return self.last_keepalive + SILENT_INTERVALS * self._keepalive_seconds
