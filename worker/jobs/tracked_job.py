"""One job of one client, from its arrival until it is forgotten."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from ...models.protocol.jobs import JobEvent, JobRequest
from .task import TaskSpec

if TYPE_CHECKING:
    from .channels.job_channel import JobChannel
    from .context import WorkerContext

MAX_KEPT_EVENTS = 100

Deliver = Callable[[bytes], None]
JobKey = tuple[str, str]
"""The client and the uuid."""


class JobState(StrEnum):
    """State of a job; the values are NFP's."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    WAITING = "WAITING_CLIENT_INPUT"
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
    gets events. `channel` is made when the job begins, and not for tasks that are run inline. `is_cancelled`: by its
    client; `has_place`: in its lane, which it gives to others before it waits for an answer. Times are seconds since
    the epoch; `events` are the newest, and `record` has at the end the JSON of arguments and events, while it is kept.
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
    channel: JobChannel | None = None
    is_cancelled: bool = False
    has_place: bool = True
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

    def event(
        self, worker: WorkerContext, message: str, event_type: str = "progress", status: str = "running"
    ) -> JobEvent:
        """Return an event of this job, which a worker runs."""
        return JobEvent(
            worker=worker.name,
            service=worker.service,
            uuid=self.uuid,
            event_type=event_type,
            message=message,
            task=self.request.task[:64],
            status=status,
        )

    def tell(self, event: JobEvent) -> None:
        """Send an event to the client and keep it without what may be long, unless the job has ended."""
        if self.completed is not None:  # a thread of the task may outlive the job
            return
        self.events.append(event.model_copy(update={"extras": None}))
        if (notify := self.notify) is not None:
            notify(event.encode())
