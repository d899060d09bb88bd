"""The outcome of one job while it is awaited: which workers still have to answer, and what the others answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from ..errors import NfcliError
from ..inventory.schema import SERVICE
from ..mailbox import Mailbox
from ..tasks.effects import READING_TASKS, TOKEN_CHANGING_TASKS
from .frames import Command
from .jobs import (
    CHECK_BEFORE_RETRY,
    OUTCOME_UNKNOWN,
    Event,
    Results,
    ResultStatus,
    failed_result,
    normalize_result,
    read_event,
)

OnEvent = Callable[[Event], None]
"""Called with each event of a worker."""

OnStream = Callable[[bytes], Sequence[bytes]]
"""Called with each part of a file that a worker streams; returns the data of the PUTs to send, which request others.

An `NfcliError` that it raises fails the job.
"""

_CANCEL = b'{"input_id":"","cancel":true}'
"""An `InputAnswer` that cancels the job."""

_AUDIT_TELLS = "once the worker answers again, show fastmcp audit says what it has changed"


@dataclass
class PendingJob:
    """A job that has been sent, or is about to be.

    Attributes:
        data: the request, as it is sent.
        timeout: seconds for the whole job, for messages.
        deadline: when the job ends, in monotonic seconds.
        missing: workers whose result has not arrived.
        results: the results that have, by worker.
        asked_again: workers that were asked for their result after the job was sent.
        unreached: workers that never got the job, and why.
        on_stream: takes what the worker streams; None: nothing is expected.
        may_be_repeated: the caller chose the uuid: that a worker has not begun the job in time may be said of an
            earlier sending, so it is the result only if no other one comes.
        late: these results, by worker.
        not_started: reasons for that which are known beforehand and explain more than what the transport finds.
        on_event: called with each event of a worker that is still missing, in the thread that waits.
        is_detached: nobody waits for results: a worker is missing until it has `accepted` the job.
        is_query: only the results that there are by now are requested, of a job that was sent before; `states` has
            those of workers that have none yet, and `unknown` are those that don't know the job.
        waker: wakes the thread that waits; None: no other thread has anything to say to it.
        is_abandoned: nobody waits any more, and the workers are to be notified of that.
    """

    service: str
    task: str
    uuid: str
    data: bytes
    _: KW_ONLY
    timeout: float
    deadline: float
    on_event: OnEvent | None = None
    on_stream: OnStream | None = None
    is_detached: bool = False
    is_query: bool = False
    waker: Mailbox[Any] | None = None
    is_abandoned: bool = False
    may_be_repeated: bool = False
    late: Results = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    results: Results = field(default_factory=dict)
    asked_again: set[str] = field(default_factory=set)
    unreached: dict[str, NfcliError] = field(default_factory=dict)
    not_started: dict[str, NfcliError] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    states: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    _outgoing: deque[tuple[str, bytes]] = field(default_factory=deque)

    @property
    def command(self) -> bytes:
        """The command that the job is sent with."""
        return Command.GET if self.is_query else Command.POST

    def accept(self, name: str) -> None:
        """Note that a worker has the job; where nobody waits for results, that was all that was to come from it."""
        if self.is_detached and name in self.missing:
            self.accepted.add(name)
            self.missing.discard(name)

    def note_state(self, name: str, state: str) -> None:
        """Note that a worker has no result yet; a query waits for nothing else."""
        if self.is_query and name in self.missing:
            self.states[name] = state
            self.missing.discard(name)

    def send_data(self, name: str, data: bytes) -> None:
        """Have the data of a PUT sent to a worker; from any thread."""
        self._outgoing.append((name, data))
        self._wake()

    def abandon(self) -> None:
        """End the wait, and tell the workers that nobody wants the results any more; from any thread."""
        self.is_abandoned = True
        self._wake()

    def take_outgoing(self) -> Iterator[tuple[str, bytes]]:
        """Yield the data of the PUTs to send, with their workers' names; last those that cancel an abandoned job."""
        while self._outgoing:
            yield self._outgoing.popleft()
        if self.is_abandoned:
            for name in sorted(self.missing):
                yield name, _CANCEL

    def _wake(self) -> None:
        if self.waker is not None:
            self.waker.wake()

    def finish(self, name: str, value: object) -> None:
        """Store a worker's result; a value of another shape becomes a failed result."""
        result = normalize_result(value)
        if self.may_be_repeated and result["failed"] and result["status"] == ResultStatus.TIMEOUT:
            self.late[name] = result
        else:
            self.results[name] = result
            self.accepted.add(name)
            self.missing.discard(name)

    def fail(self, name: str, reason: str, status: ResultStatus = ResultStatus.ERROR) -> None:
        """Store a failed result for a worker."""
        self.results[name] = failed_result(reason, status, task=self.task, juuid=self.uuid, service=self.service)
        self.missing.discard(name)

    def fail_gone(self, name: str, error: NfcliError) -> None:
        """Store a failed result for a worker that is not reachable; `error` says why it was never reached."""
        if name in self.asked_again:
            self.fail(name, f"worker {name} has gone away while the job ran{self._remedy()}")
        else:
            self.unreached[name] = self.not_started.get(name, error)
            self.fail(name, str(self.unreached[name]))

    def fail_unknown(self, name: str) -> None:
        """Store a failed result for a worker that doesn't know the job whose result was requested."""
        self.unknown.add(name)
        self.fail(name, f"worker {name} doesn't know the job: it was restarted, or keeps the result no longer")

    def fail_restarted(self, name: str) -> None:
        """Store a failed result for a worker that had the job and no longer knows it."""
        self.fail(name, f"worker {name} was restarted while the job ran{self._remedy()}")

    def expire(self) -> None:
        """Store a failed result for each missing worker: the deadline has passed, and with it the last moment to begin.

        A worker may still have begun the job before it.
        """
        remedy = self._remedy()
        reason = f"no answer within {self.timeout:g} s{remedy and f', {OUTCOME_UNKNOWN}{remedy}'}"
        for name in sorted(self.missing):
            if name in self.late:
                self.results[name] = self.late[name]
                self.missing.discard(name)
                continue
            self.fail(name, reason, ResultStatus.TIMEOUT)

    def _has_no_effect(self) -> bool:
        return self.service == SERVICE and self.task in READING_TASKS

    def _remedy(self) -> str:
        """Return what to do about a result that is lost: nothing for a task that changes nothing."""
        if self._has_no_effect():
            return ""
        is_recorded = self.service == SERVICE and self.task in TOKEN_CHANGING_TASKS
        return f": {_AUDIT_TELLS if is_recorded else CHECK_BEFORE_RETRY}"

    def interruption(self) -> str:
        """Return what it means that nobody waits for the missing workers any more, empty if nothing follows from it."""
        if not self.missing or self._has_no_effect():
            return ""
        names = ", ".join(sorted(self.missing))
        have, remedy = "has" if len(self.missing) == 1 else "have", self._remedy()
        return f"{OUTCOME_UNKNOWN.removeprefix('so ')} on {names}, which {have} not answered{remedy}"

    def report_event(self, name: str, data: Mapping[str, Any] | None) -> None:
        """Pass on an event of a worker that is still missing, under the name that it is reached by."""
        if self.on_event is not None and data is not None and name in self.missing:
            self.on_event(read_event({**data, "worker": name}))

    def receive_stream(self, data: bytes) -> Sequence[bytes]:
        """Pass on a part of a file; return the data of the PUTs to send. A part that is refused fails the job."""
        if self.on_stream is None or not self.missing:
            return ()
        try:
            return self.on_stream(data)
        except NfcliError as error:
            for name in sorted(self.missing):
                self.fail(name, str(error))
            return ()
