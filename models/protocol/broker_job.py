"""The state machine of one job that goes through a NorFab broker. No I/O; times are monotonic seconds.

The POST is sent once: whether a lost one was run could not be known. The broker's 202 names the workers that it was
forwarded to. Results arrive unasked or in answer to a GET, which is sent as soon as a worker reports its result ready,
and to all missing workers every few seconds.

All messages come from other programs: one of the wrong shape costs its sender's result at most.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import NfcliError, NoWorkersError, UsageError
from .broker_presence import BrokerPresence
from .broker_replies import Dispatched, Finished, JobState, WorkerReply, parse_reply
from .frames import BrokerMessage, ClientMessage, Command, Status, encode_target
from .jobs import CHECK_BEFORE_RETRY, failed_result
from .pending_job import PendingJob

_FIRST_KEY = re.compile(rb'\s*\{\s*("(?:[^"\\]|\\.){1,256}")\s*:')


@dataclass(slots=True)
class _Requests:
    """The GETs sent to one worker; it answers them in order, so the n-th answer belongs to the n-th request.

    `first_informed` is the first request that the worker can only have read after it had stored the job; infinite until
    it has acknowledged the job.
    """

    sent: int = 0
    answered: int = 0
    first_informed: float = math.inf
    has_denied: bool = False


class BrokerJob:
    """One job and what to send for it.

    The owner of the connection sends `post` once, sets `is_posted`, then passes each message of this job to `receive`,
    calls `advance` when time has passed, and sends what `request` returns and `puts` holds, until `is_done`.

    Args:
        job: gets the results. Its `missing` workers are the recipients, unless `target` is given.
        broker: presence of the broker at `endpoint`.
        target: `all`, `any`, a worker's name or a list of names: the broker's 202 says which workers these are.
        get_data: data of a GET, if not that of the POST.
        max_workers: a job for more workers is refused.
        max_result_bytes: size of all results together; those beyond it fail.
        reserve: called with the bytes of results before they are kept; returns why they must not be, None if they may.

    Raises:
        UsageError: the service or target is not valid Unicode.
    """

    def __init__(
        self,
        job: PendingJob,
        broker: BrokerPresence,
        *,
        endpoint: str,
        now: float,
        target: str | Sequence[str] | None = None,
        get_data: bytes | None = None,
        max_workers: float = math.inf,
        max_result_bytes: float = math.inf,
        reserve: Callable[[int], str | None] = lambda _size: None,
    ) -> None:
        self.job = job
        self.is_posted = False
        self.error: NfcliError | None = None
        """Why the whole job failed."""
        self.puts: deque[list[bytes]] = deque()
        """Frames of the PUTs to send, in order."""
        self._broker = broker
        self._at = f"the broker at {endpoint}"
        self._get_data = job.data if get_data is None else get_data
        self._max_workers = max_workers
        self._max_result_bytes = max_result_bytes
        self._reserve = reserve
        self._has_workers = target is None
        self._started = self._polled_at = now
        self._accept_by = now + min(broker.timeouts.answer, job.timeout)
        self._reached: set[str] = set()
        # Workers with a result: whether the GET for it is still to be sent.
        self._ready: dict[str, bool] = {}
        self._requests: defaultdict[str, _Requests] = defaultdict(_Requests)
        self._early: dict[str, Any] = {}
        self._bytes = 0
        try:
            self.post = self._frames(job.command, sorted(job.missing) if target is None else target, job.data)
        except ValueError:
            raise UsageError(f"service and workers of {job.task} must be valid Unicode") from None

    @property
    def is_done(self) -> bool:
        """Whether the job has ended, with results or an `error`."""
        return self.error is not None or (self._has_workers and not self.job.missing)

    # -- what to send, and when ------------------------------------------------------------------------------------

    def next_time(self) -> float:
        """Return when `advance` and `request` are due if no message arrives before."""
        if not self._has_workers:
            return self._accept_by
        return min(self.job.deadline, self._next_poll(), self._broker.lost_at)

    def request(self, now: float) -> list[bytes] | None:
        """Return the frames of the GET that is due, None if none is."""
        if not self._has_workers:
            return None
        if now >= self._next_poll():
            self._polled_at = now
            names = set(self.job.missing)
        else:
            names = {name for name in self.job.missing if self._ready.get(name)}
        if not names:
            return None
        self._ready |= dict.fromkeys(names & self._ready.keys(), False)
        self.job.asked_again |= names
        for name in names:
            self._requests[name].sent += 1
        return self._frames(Command.GET, sorted(names), self._get_data)

    def restart_requests(self) -> None:
        """Make a GET due at once: what was under way is lost, since the connection is new."""
        if self._has_workers:
            self._polled_at = -math.inf
        for requests in self._requests.values():
            requests.answered = requests.sent

    def put(self, names: Sequence[str], data: bytes) -> None:
        """Have data sent to workers that run the job."""
        self.puts.append(self._frames(Command.PUT, sorted(names), data))

    def _next_poll(self) -> float:
        due, retry_at = self._polled_at + self._broker.timeouts.poll, self._broker.retry_at
        return min(due, retry_at) if self._polled_at < retry_at else due

    def _frames(self, command: bytes, target: str | Sequence[str], data: bytes) -> list[bytes]:
        return ClientMessage(command, self.job.service, encode_target(target), self.job.uuid, data).frames()

    # -- what arrives ----------------------------------------------------------------------------------------------

    def receive(self, message: BrokerMessage, now: float) -> None:
        """Handle a message of this job."""
        if message.command == Command.STREAM:
            for data in self.job.receive_stream(message.data):
                self.put(list(self.job.missing), data)
            return
        size = len(message.data)
        if size > self._max_result_bytes:
            self._store({_first_key(message.data): self._too_large()}, 0)
            return
        match parse_reply(message):
            case Dispatched(workers) if not self._has_workers:
                self._set_workers(set(workers))
            case Dispatched(_, None, str(error)) if not self._is_first_answer():
                self._fail_only_worker(error)
            case Dispatched(workers, asked):
                self._handle_dispatch(workers, asked, now)
            case Finished(results):
                self._store(results, size)
            case WorkerReply(worker, state, text) as reply if worker in self.job.missing or not self._has_workers:
                self.job.report_event(worker, reply.event)
                self._handle_state(worker, state, text)
            case None if message.command == Command.RESPONSE and message.status == Status.DONE:
                self._fail_only_worker(None)

    def _handle_dispatch(self, reached: Collection[str], asked: Collection[str] | None, now: float) -> None:
        """Handle which of the `asked` workers the broker forwarded a POST or GET to."""
        missing = self.job.missing
        if asked is None:
            asked = missing if self._is_first_answer() else ()
        self._reached |= missing.intersection(reached)
        for name in sorted(missing.intersection(asked).difference(reached)):
            is_known = self._broker.is_settling(now) if name in self.job.asked_again else name in self._reached
            if not is_known:
                reason = f"worker {name} is not registered at {self._at}: check that it runs, and its log"
                self.job.fail_gone(name, NoWorkersError(reason))

    def _is_first_answer(self) -> bool:
        """Whether an answer of the broker can only be to the POST."""
        return not self._reached and not self.job.asked_again

    def _set_workers(self, names: set[str]) -> None:
        """Adopt the workers that the broker forwarded the job to.

        Results that arrived before the broker's confirmation are adopted as well.
        """
        self._has_workers = True
        self._reached = set(names)
        self.job.missing = names
        if not names:
            none = f"{self._at} has no worker of service {self.job.service}"
            self.error = NoWorkersError(f"{none}: show norfab workers lists the registered ones")
        elif len(names) > self._max_workers:
            service, limit = self.job.service, self._max_workers
            self.error = NoWorkersError(f"service {service} has more than {limit} workers: name some of them")
        early, self._early = self._early, {}
        self._store(early, 0)

    def _store(self, results: dict[str, Any], size: int) -> None:
        """Store the results of missing workers, and before these are known, those of all workers."""
        missing = self.job.missing
        wanted = {name: value for name, value in results.items() if not self._has_workers or name in missing}
        if not wanted:
            return
        if self._bytes + size > self._max_result_bytes:
            wanted = dict.fromkeys(wanted, self._too_large())
        elif (refusal := self._reserve(size)) is not None:
            wanted = dict.fromkeys(wanted, self._dropped(refusal))
        else:
            self._bytes += size
        if self._has_workers:
            for name, value in wanted.items():
                self.job.finish(name, value)
        else:
            for name in list(wanted)[: int(min(self._max_workers - len(self._early), len(wanted)))]:
                self._early[name] = wanted[name]

    def _too_large(self) -> dict[str, Any]:
        reason = f"the result is larger than the {self._max_result_bytes} bytes that a job may bring"
        return self._dropped(reason)

    def _dropped(self, reason: str) -> dict[str, Any]:
        return failed_result(reason, task=self.job.task, juuid=self.job.uuid, service=self.job.service)

    def _fail_only_worker(self, reason: str | None) -> None:
        """Fail the only missing worker for an answer that names none; with several missing it could be any of them."""
        if len(self.job.missing) == 1:
            (name,) = self.job.missing
            if reason is None:
                self.job.finish(name, None)
            else:
                self.job.fail(name, reason)

    def _handle_state(self, name: str, state: JobState, text: str) -> None:
        """Handle the report of a missing worker, or of any before these are known."""
        if state is JobState.READY:
            if len(self._ready) < self._max_workers:
                self._ready.setdefault(name, True)
        elif state is JobState.FAILED and self._has_workers:
            self.job.fail(name, text)
        elif self.job.is_query:
            self._handle_state_of_query(name, state, text)
        elif self._has_workers and state is not JobState.PROGRESS:
            self._handle_acknowledgement(name, state)

    def _handle_state_of_query(self, name: str, state: JobState, text: str) -> None:
        if state is JobState.UNKNOWN:
            self.job.fail_unknown(name)
        elif state is JobState.RUNNING:
            self.job.note_state(name, text)

    def _handle_acknowledgement(self, name: str, state: JobState) -> None:
        """Handle a worker's acknowledgement of the job, or that it doesn't know it (404).

        A GET may overtake its POST: workers of norfab 0.25.0 handle the two in different threads, and the 404 may even
        arrive after the 201. So a 404 is final only if it answers a GET that was sent after the acknowledgement (the
        worker was restarted), or if it is the second one and no acknowledgement has arrived.
        """
        requests = self._requests[name]
        is_answer = state is not JobState.ACCEPTED and requests.answered < requests.sent
        requests.answered += is_answer
        if state is not JobState.UNKNOWN:
            self.job.accept(name)
            uninformed = requests.answered if is_answer else requests.sent
            requests.first_informed = min(requests.first_informed, uninformed + 1)
        elif not is_answer:
            return  # a repetition
        elif requests.answered >= requests.first_informed:
            self.job.fail_restarted(name)
        elif requests.first_informed < math.inf:
            return  # the GET overtook the POST
        elif requests.has_denied:
            reason = f"worker {name} doesn't know the job: it was restarted, or the job was lost on its way"
            self.job.fail(name, f"{reason}: {CHECK_BEFORE_RETRY}")
        else:
            requests.has_denied = True

    # -- the end ---------------------------------------------------------------------------------------------------

    def advance(self, now: float, connection_error: str) -> None:
        """End what has waited long enough; `connection_error` is what is wrong with the connection if anything is."""
        if not self._has_workers:
            if self.error is None and now >= self._accept_by:
                seconds = self._accept_by - self._started
                posted = f"{self._at} did not accept the job within {seconds:g} s: {CHECK_BEFORE_RETRY}"
                self.error = NoWorkersError(posted if self.is_posted else connection_error)
        elif now >= self.job.deadline:
            self.job.expire()
        elif now >= self._broker.lost_at:
            for name in sorted(self.job.missing):
                self.job.fail(name, f"{connection_error}; the job was running on {name}: {CHECK_BEFORE_RETRY}")


def _first_key(data: bytes) -> str:
    """Return the first key of a JSON object that is too long to be decoded."""
    found = _FIRST_KEY.match(data[:1_024])
    try:
        return str(json.loads(found[1])) if found else ""
    except ValueError:
        return ""
