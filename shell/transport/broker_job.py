"""One job through a NorFab broker: sent once, asked after until every result is there, the broker's absences survived.

The job goes to all its workers in one POST; the broker names in its 202 those that it has handed it to. Results come by
themselves or are fetched with a GET, at once when a worker says that it is ready, else every few seconds. A POST is
never repeated: nobody could tell whether the first one was run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ...models.errors import NoWorkersError
from ...models.protocol.broker_connection import BrokerConnection
from ...models.protocol.broker_replies import (
    Dispatched,
    Failed,
    Finished,
    ProgressUpdate,
    Rejected,
    Reply,
    ResultReady,
    Running,
    UnknownJob,
    parse_reply,
)
from ...models.protocol.frames import BrokerMessage, ClientMessage, Command, Status, encode_target
from ...models.protocol.jobs import LOOK
from .job import Job

POLL_SECONDS = 2.5
"""Between two questions for results; their answers may have been lost, or their workers may have gone."""
PROMPT_SECONDS = 1.0
"""A broker that runs answers a POST or GET within milliseconds; if not, it is asked once more after this time."""
AWAY_SECONDS = 20.0
"""How long a broker that has gone or is silent is waited for; and then the workers, which take 15 s to register."""

_SILENT_ASKS = 2


class Delivery:
    """Carries one job; made anew for each.

    Args:
        link: the connection to the broker.
        job: what to run, and on whom; gets the results.
        notice: told when the broker goes and when it is back.
    """

    def __init__(self, link: BrokerConnection, job: Job, notice: Callable[[str], None]) -> None:
        self._link = link
        self._job = job
        self._notice = notice
        self._taken: set[str] = set()
        self._fetched: set[str] = set()
        self._unknown_at: dict[str, int] = {}
        self._asks = 0
        self._unanswered = 0
        self._asked_at = self._poll_at = 0.0
        self._losses = link.disconnects
        self._away_since: float | None = None
        self._settled_at = 0.0

    def run(self) -> None:
        """Return when no worker is missing any more or the job's deadline is there."""
        job = self._job
        if not self._post():
            error = NoWorkersError(self._reason(time.monotonic()) or f"{self._at} takes no messages: see its log")
            for name in sorted(job.missing):
                job.lose(name, error)
        while job.missing and (now := time.monotonic()) < job.deadline:
            self._watch(now)
            if now >= self._poll_at:
                self._ask(job.missing)
            self._link.wait(self._wake())
            for message in self._link.broker_messages():
                self._unanswered = 0
                if message.uuid == job.uuid:
                    self._take(message)
            if not self._unanswered:
                self._poll_at = self._asked_at + POLL_SECONDS
        if self._away_since is not None and not self._reason(time.monotonic()):
            self._notice(f"{self._at} is back")

    def _wake(self) -> float:
        """Return when there is something to do, whatever comes until then."""
        given_up = [] if self._away_since is None else [self._away_since + AWAY_SECONDS]
        return min(self._job.deadline, self._poll_at, *given_up)

    @property
    def _at(self) -> str:
        return f"the broker at {self._link.endpoint}"

    def _post(self) -> bool:
        """Send the job once; return whether it could be sent."""
        frames = self._frames(Command.POST, self._job.missing)
        while not self._link.send(frames):
            if not self._link.is_up or time.monotonic() >= self._job.deadline:
                return False
            self._link.wait(self._job.deadline, until_writable=True)
        self._has_asked()
        return True

    def _ask(self, names: Iterable[str]) -> None:
        """Ask for the results of workers; what can't be sent now is asked the next time."""
        if names and self._link.send(self._frames(Command.GET, names)):
            self._job.asked_again.update(names)
            self._has_asked()
        else:
            self._asked_at = time.monotonic()
            self._poll_at = self._asked_at + POLL_SECONDS

    def _has_asked(self) -> None:
        self._asks += 1
        self._unanswered += 1
        self._asked_at = time.monotonic()
        self._poll_at = self._asked_at + (PROMPT_SECONDS if self._away_since is None else POLL_SECONDS)

    def _frames(self, command: bytes, names: Iterable[str]) -> list[bytes]:
        job = self._job
        return ClientMessage(command, job.service, encode_target(sorted(names)), job.uuid, job.data).frames()

    def _reason(self, now: float) -> str:
        """Return what is wrong with the broker, nothing while it is well."""
        if not self._link.is_up:
            return f"{self._at} has gone away"
        is_time = self._away_since is not None or now >= self._asked_at + PROMPT_SECONDS
        return f"{self._at} doesn't answer" if self._unanswered >= _SILENT_ASKS and is_time else ""

    def _watch(self, now: float) -> None:
        """Tell when the broker goes and when it is back; give the job up when it is away for too long."""
        has_broken = self._link.disconnects > self._losses
        if has_broken:
            self._losses, self._unanswered = self._link.disconnects, 0
        reason = self._reason(now)
        if self._away_since is None and (reason or has_broken):
            self._away_since = now
            self._notice(f"{reason or f'{self._at} has gone away'}: waiting for it, up to {AWAY_SECONDS:g} s")
        if self._away_since is None:
            return
        if not reason:
            self._notice(f"{self._at} is back")
            self._away_since, self._settled_at, self._poll_at = None, now + AWAY_SECONDS, now
        elif now >= self._away_since + AWAY_SECONDS:
            for name in sorted(self._job.missing):
                self._job.fail(name, f"{reason} while the job ran: look what {name} has done before you repeat it")

    def _take(self, message: BrokerMessage) -> None:
        heard = parse_reply(message)
        missing = self._job.missing
        if isinstance(heard, Finished):
            for name in sorted(missing & heard.results.keys()):
                self._job.finish(name, heard.results[name])
        elif isinstance(heard, Dispatched | Rejected):
            self._dispatched(heard)
        elif heard is None:
            # Nobody says whose result it is meant to be.
            if message.command == Command.RESPONSE and message.status == Status.DONE and len(missing) == 1:
                self._job.finish(next(iter(missing)), None)
        else:
            self._said(heard)

    def _dispatched(self, heard: Dispatched | Rejected) -> None:
        reached = heard.workers if isinstance(heard, Dispatched) else ()
        is_first = not self._taken and not self._job.asked_again
        asked = self._job.missing if heard.asked is None and is_first else heard.asked or ()
        if isinstance(heard, Rejected) and heard.asked is None and not is_first:
            if len(self._job.missing) == 1:  # a worker's own error that doesn't name it; a broker names whom it was for
                self._job.fail(next(iter(self._job.missing)), heard.reason)
            return
        self._taken.update(self._job.missing.intersection(reached))
        for name in sorted(self._job.missing.intersection(asked).difference(reached)):
            self._absent(name)

    def _absent(self, name: str) -> None:
        """Take in that the broker doesn't know a worker; behind a restart of the broker it may still come back."""
        job = self._job
        is_asked_again = name in job.asked_again
        if is_asked_again and (self._away_since is not None or time.monotonic() < self._settled_at):
            return
        if is_asked_again or name not in self._taken:
            missing = f"worker {name} is not registered at {self._at}: see whether it runs, and its log"
            job.lose(name, job.not_started.get(name, NoWorkersError(missing)))

    def _said(self, heard: Reply) -> None:
        """Take in what a worker says of the job, if it is one that has to."""
        worker = getattr(heard, "worker", "")
        if worker not in self._job.missing:
            return
        if isinstance(heard, ProgressUpdate):
            self._job.progress(worker, heard.message)
        elif isinstance(heard, Failed):
            self._job.fail(worker, heard.reason)
        elif isinstance(heard, Running):
            self._unknown_at.pop(worker, None)
        elif isinstance(heard, ResultReady) and worker not in self._fetched:
            self._fetched.add(worker)
            self._ask([worker])
        elif isinstance(heard, UnknownJob) and self._unknown_at.setdefault(worker, self._asks) != self._asks:
            # Not the first time: workers of norfab 0.25.0 may look for a job before they have written it down.
            reason = f"worker {worker} doesn't know the job: it was restarted, or the job got lost on its way"
            self._job.fail(worker, f"{reason}: {LOOK}")
