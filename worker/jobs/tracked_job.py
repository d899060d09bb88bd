"""One job of one client, from its arrival until it is forgotten."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from ...models.protocol.jobs import JobEvent, JobRequest
from .progress import JobProgress
from .task import TaskSpec

MAX_KEPT_EVENTS = 100

Deliver = Callable[[bytes], None]
JobKey = tuple[str, str]
"""The client and the uuid."""


class JobState(StrEnum):
    """State of a job; the values are NFP's."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    COMPLETED = "COMPLETED"


@dataclass(frozen=True)
class StartDeadline:
    """The time after which a job isn't begun: by the monotonic clock since it arrived, and by its client's UTC clock.

    The first holds whatever the clocks of the two machines say; the second also counts the time before the arrival,
    while the network, the broker or this process kept the job.
    """

    monotonic: float = math.inf
    utc: float = math.inf

    @classmethod
    def of(cls, request: JobRequest, waited_seconds: float) -> StartDeadline:
        """Return the deadline of a job that has been here unread for at most `waited_seconds`.

        These count only without a deadline of the client's: the job may as well have come just now.
        """
        arrived = time.monotonic()
        seconds = math.inf if request.timeout is None else request.timeout
        if request.deadline is None:
            return cls(arrived - waited_seconds + seconds)
        return cls(arrived + seconds, request.deadline)

    def later(self, other: StartDeadline) -> StartDeadline:
        """Return the later of two deadlines: the job is begun while one of its senders waits."""
        return StartDeadline(max(self.monotonic, other.monotonic), max(self.utc, other.utc))

    def seconds_late(self, utc_now: float) -> float:
        """Return how long ago the deadline was; below 0 before it."""
        return max(time.monotonic() - self.monotonic, utc_now - self.utc)


@dataclass(eq=False)
class TrackedJob:
    """One job of one client, which is not started any more after `deadline`; `is_late`: it was that time.

    `spec` is its task, None for an unknown one; `size` the bytes of its request, `peer` where it came from; `payload`
    the result's JSON, None before it is completed and when it is no longer kept. `waiting` get the result, `notify`
    gets events. `progress` is made for the first progress line of a task. Times are seconds since the epoch; `events`
    are the newest, and `record` has at the end the JSON of arguments and events, while it is kept.
    """

    client: str
    uuid: str
    request: JobRequest
    deadline: StartDeadline
    spec: TaskSpec | None = None
    size: int = 0
    peer: str = ""
    state: JobState = JobState.PENDING
    payload: bytes | None = None
    was_run: bool = False
    is_late: bool = False
    waiting: list[Deliver] = field(default_factory=list)
    notify: Deliver | None = None
    progress: JobProgress | None = None
    received: float = field(default_factory=time.time)
    started: float | None = None
    completed: float | None = None
    has_failed: bool = False
    events: deque[JobEvent] = field(default_factory=lambda: deque(maxlen=MAX_KEPT_EVENTS))
    record: bytes | None = None

    @property
    def key(self) -> JobKey:
        """The key that the job is found by."""
        return self.client, self.uuid
