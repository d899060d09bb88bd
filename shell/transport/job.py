"""One job while it is waited for: who still has to answer, and what came of it; the transports fill it in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...models.errors import NfcliError, UsageError
from ...models.protocol.frames import encode_data
from ...models.protocol.jobs import LOOK, ResultStatus, failed_result, normalize_result

Results = dict[str, dict[str, Any]]
OnProgress = Callable[[str, str], None]
"""Gets a worker's name and what it says of the job that it runs."""

_AUTOMATIC = frozenset({"", "starting", "completed"})
"""What workers say of every job, and nobody needs to be told."""


class Job:
    """One job; its deadline is computed once.

    `data` is the request as it is sent. `missing` are the workers whose result isn't there yet, `asked_again` those
    that were asked for it after the job was sent, `unreached` those that the job never got to, and why. `not_started`
    has reasons for that which are better than what the transport finds.
    """

    def __init__(
        self,
        service: str,
        task: str,
        uuid: str,
        data: bytes,
        *,
        timeout: float,
        deadline: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.service = service
        self.task = task
        self.uuid = uuid
        self.data = data
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout if deadline is None else deadline
        self.on_progress = on_progress
        self.not_started: dict[str, NfcliError] = {}
        self.missing: set[str] = set()
        self.asked_again: set[str] = set()
        self.unreached: dict[str, NfcliError] = {}
        self.results: Results = {}

    def finish(self, name: str, value: object) -> None:
        """Take in a worker's result as it came; what isn't one is a failed result that says so."""
        self.results[name] = normalize_result(value)
        self.missing.discard(name)

    def fail(self, name: str, reason: str, status: ResultStatus = ResultStatus.ERROR) -> None:
        """Give a worker a failed result."""
        self.results[name] = failed_result(reason, status, task=self.task, juuid=self.uuid, service=self.service)
        self.missing.discard(name)

    def lose(self, name: str, error: NfcliError) -> None:
        """Give a worker that can't be reached, or not any more, a failed result."""
        if name in self.asked_again:
            self.fail(name, f"worker {name} has gone away while the job ran: {LOOK}")
        else:
            self.unreached[name] = error
            self.fail(name, str(error))

    def progress(self, name: str, message: str) -> None:
        """Pass on what a worker says of the job that it runs."""
        if self.on_progress is not None and name in self.missing and message not in _AUTOMATIC:
            self.on_progress(name, message)


def request_data(task: str, args: Sequence[Any] | None, kwargs: dict[str, Any] | None, timeout: float) -> bytes:
    """Return the data of a job's request.

    Raises:
        UsageError: arguments that are no JSON, or a timeout that isn't a positive number.
    """
    if not 0 < timeout < float("inf"):
        raise UsageError(f"timeout must be a positive number of seconds, got {timeout}")
    request = {"task": task, "kwargs": kwargs or {}, "args": list(args or ()), "timeout": timeout}
    try:
        return encode_data(request)
    except (TypeError, ValueError):
        raise UsageError(f"the arguments of {task} must be values that JSON knows, in valid Unicode") from None


def listed(names: Iterable[str]) -> str:
    """Return names for a message."""
    return ", ".join(names) or "none"
