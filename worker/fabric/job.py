"""A job that this worker has sent to others through a broker: what comes of it, message by message.

Nothing here waits, sends or looks at a clock: who owns the connection does, and says what came and what time it is.
Everything that comes is somebody else's: what isn't what it should be costs its sender's result and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import uuid as uuids
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any

from ...models.errors import NfcliError, NoWorkersError, UsageError
from ...models.protocol.broker_replies import (
    Dispatched,
    Failed,
    Finished,
    Rejected,
    Reply,
    ResultReady,
    Running,
    UnknownJob,
    parse_reply,
)
from ...models.protocol.frames import BrokerMessage, ClientMessage, Command, encode_data, encode_target
from ...models.protocol.jobs import LOOK, ResultStatus, failed_result, normalize_result

MAX_RESULT_BYTES = 64 * 1024 * 1024
MAX_WORKERS = 1_000

_FIRST_KEY = re.compile(rb'\s*\{\s*("(?:[^"\\]|\\.){1,256}")\s*:')

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Patience:
    """How long brokers and workers are waited for, in seconds.

    `poll`: between two questions for a result that hasn't come. `answer`: for a broker, which needs milliseconds.
    `comeback`: for a broker that has gone away, and for workers to register again once it is back.
    """

    poll: float = 2.5
    answer: float = 2.5
    comeback: float = 20.0


class SentJob:
    """One job; its owner calls `settle` after each thing it told it.

    Args:
        service: whose workers shall run it.
        task: name of the task.
        kwargs: its arguments.
        target: `all`, `any`, a worker's name, or a list of names.
        endpoint: the broker's, for messages.
        timeout: seconds for the whole job.
        now: the time, in monotonic seconds.
        patience: how long to wait for what.

    Raises:
        UsageError: arguments that are no JSON, a timeout that isn't a positive number.
    """

    def __init__(
        self,
        service: str,
        task: str,
        kwargs: dict[str, Any],
        target: str | Sequence[str],
        *,
        endpoint: str,
        timeout: float,
        now: float,
        patience: Patience,
    ) -> None:
        if not 0 < timeout < math.inf:
            raise UsageError(f"timeout must be a positive number of seconds, got {timeout}")
        self.service = service
        self.task = task
        self.uuid = uuids.uuid4().hex
        self.future: Future[Results] = Future()
        self.is_posted = False
        self.is_dispatched = False
        self.missing: set[str] = set()
        self._broker = f"the broker at {endpoint}"
        self._patience = patience
        self._timeout = timeout
        self._started = now
        self._deadline = now + timeout
        self._taken_by = now + min(patience.answer, timeout)
        self._next_poll = math.inf
        self._results: Results = {}
        self._early: dict[str, Any] = {}
        self._bytes = 0
        self._ready: set[str] = set()
        self._fetched: set[str] = set()
        self._acknowledged: set[str] = set()
        request = {"task": task, "kwargs": kwargs, "args": [], "timeout": math.ceil(timeout)}
        try:
            message = ClientMessage(Command.POST, service, encode_target(target), self.uuid, encode_data(request))
            self.post = message.frames()
        except (TypeError, ValueError):
            raise UsageError(f"the arguments of {task} must be values that JSON knows, in valid Unicode") from None

    # -- what is to be sent, and when ------------------------------------------------------------------------------

    def next_time(self) -> float:
        """Return when this job has to be looked at again if nothing comes, in monotonic seconds."""
        return min(self._deadline, self._next_poll) if self.is_dispatched else self._taken_by

    def poll_at(self, now: float) -> None:
        """Ask for what is missing at `now`."""
        if self.is_dispatched:
            self._next_poll = now

    def question(self, now: float) -> list[bytes] | None:
        """Return the frames that ask for the results which are due, None where none are."""
        if now >= self._next_poll:
            self._next_poll = now + self._patience.poll
            names = self.missing
        else:
            names = (self._ready & self.missing) - self._fetched
            self._fetched |= names
        if not names:
            return None
        data = encode_data({"task": self.task, "kwargs": {}, "args": []})
        return ClientMessage(Command.GET, self.service, encode_target(sorted(names)), self.uuid, data).frames()

    # -- what came -------------------------------------------------------------------------------------------------

    def receive(self, message: BrokerMessage, *, is_settling: bool) -> None:
        """Take in a message of this job.

        Args:
            message: as it came.
            is_settling: the broker is back since a moment, and may not have all its workers yet.
        """
        size = len(message.data)
        if size > MAX_RESULT_BYTES:
            self._take({_first_key(message.data): self._failed(_too_large())}, 0)
            return
        heard = parse_reply(message)
        if isinstance(heard, Dispatched):
            self._dispatched(heard, is_settling=is_settling)
        elif isinstance(heard, Rejected):
            self._refused(heard, is_settling=is_settling)
        elif isinstance(heard, Finished):
            self._take(heard.results, size)
        elif heard is not None:
            self._told(heard)

    def _dispatched(self, heard: Dispatched, *, is_settling: bool) -> None:
        if self.is_dispatched:
            if heard.asked is not None and not is_settling:
                self._gone(set(heard.asked) - set(heard.workers))
            return
        self.is_dispatched = True
        self.missing = {name for name in heard.workers if _is_unicode(name)}
        if not self.missing:
            self.fail(NoWorkersError(self._nobody()))
        elif len(self.missing) > MAX_WORKERS:
            self.fail(NoWorkersError(f"service {self.service} has more than {MAX_WORKERS} workers: name some of them"))
        self._next_poll = self._started + self._patience.poll
        early, self._early = self._early, {}
        self._take(early, 0)

    def _refused(self, heard: Rejected, *, is_settling: bool) -> None:
        if not self.is_dispatched:
            self.fail(NoWorkersError(self._nobody()))
        elif heard.asked is not None and not is_settling:
            self._gone(heard.asked)

    def _take(self, results: dict[str, Any], size: int) -> None:
        """Keep the results of workers that were to send one; those that come before it's known who, until it is."""
        wanted = {name: answer for name, answer in results.items() if not self.is_dispatched or name in self.missing}
        if not wanted:
            return
        self._bytes += size
        if self._bytes > MAX_RESULT_BYTES:
            self._bytes -= size
            wanted = {name: self._failed(_too_large()) for name in wanted}
        if not self.is_dispatched:
            self._early.update(list(wanted.items())[: MAX_WORKERS - len(self._early)])
            return
        for name, answer in wanted.items():
            self._results[name] = normalize_result(answer)
            self.missing.discard(name)

    def _told(self, heard: Reply) -> None:
        """Take in what one worker says of itself."""
        if isinstance(heard, ResultReady) and (heard.worker in self.missing or not self.is_dispatched):
            if len(self._ready) < MAX_WORKERS:
                self._ready.add(heard.worker)
        elif isinstance(heard, Running) and heard.worker in self.missing:
            self._acknowledged.add(heard.worker)
        elif isinstance(heard, Failed):
            self._lose([heard.worker], " ".join(heard.reason.split()))
        elif isinstance(heard, UnknownJob) and heard.worker in self.missing:
            # A question may overtake its job: workers of norfab 0.25.0 read the two in different threads.
            if heard.worker in self._acknowledged:
                self._lose([heard.worker], f"the worker was restarted while the job ran: {LOOK}")
            self._acknowledged.add(heard.worker)

    # -- the end ---------------------------------------------------------------------------------------------------

    def look_at_time(self, now: float, problem: str, *, is_lost: bool) -> None:
        """Give up what was waited for long enough.

        Args:
            now: the time, in monotonic seconds.
            problem: what is wrong with the connection if the broker is not heard, on one line.
            is_lost: the broker has been away for so long that it isn't waited for any more.
        """
        if not self.is_dispatched:
            if now >= self._taken_by:
                seconds = self._taken_by - self._started
                posted = f"{self._broker} did not take the job within {seconds:g} s: {LOOK}"
                self.fail(NoWorkersError(posted if self.is_posted else problem))
        elif now >= self._deadline:
            self._lose(self.missing, f"no answer within {self._timeout:g} s", ResultStatus.TIMEOUT)
        elif is_lost:
            self._lose(self.missing, f"{problem}; the job was under way, {LOOK}")

    def settle(self) -> bool:
        """Hand the results over if all are there; return whether the job is over."""
        if self.is_dispatched and not self.missing and not self.future.done():
            with contextlib.suppress(InvalidStateError):
                self.future.set_result({name: self._results[name] for name in sorted(self._results)})
        return self.future.done()

    def fail(self, error: NfcliError) -> None:
        """End the job without results; harmless where it has ended."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)

    def _nobody(self) -> str:
        return f"{self._broker} has no worker of service {self.service}: show norfab workers names those there are"

    def _gone(self, names: Iterable[str]) -> None:
        for name in self.missing.intersection(names):
            self._lose([name], f"worker {name} has gone away while the job ran: {LOOK}")

    def _lose(self, names: Iterable[str], reason: str, status: ResultStatus = ResultStatus.ERROR) -> None:
        for name in self.missing.intersection(names):
            self._results[name] = self._failed(reason, status)
            self.missing.discard(name)

    def _failed(self, reason: str, status: ResultStatus = ResultStatus.ERROR) -> dict[str, Any]:
        return failed_result(reason, status, task=self.task, juuid=self.uuid, service=self.service)


def _too_large() -> str:
    return f"the result is larger than the {MAX_RESULT_BYTES} bytes that a job may bring"


def _first_key(data: bytes) -> str:
    """Return the name that a long answer begins with: it is too long to be read."""
    found = _FIRST_KEY.match(data[:1_024])
    try:
        return str(json.loads(found[1])) if found else ""
    except ValueError:
        return ""


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
