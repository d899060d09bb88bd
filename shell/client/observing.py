"""What a client asks of workers and broker without starting or changing anything."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ...models.protocol.frames import ALL
from ...models.protocol.jobs import Results
from ..transport.base import Transport
from .jobs.runner import JobRunner, Submission

OBSERVE_SECONDS = 5.0


class Observing(Protocol):
    """The client, as far as it only looks at what runs."""

    _origin: str
    _runner: JobRunner
    _transport: Transport

    def _refreshed(self, seconds: float = ...) -> AbstractContextManager[None]: ...

    def observe(self, task: str, workers: Sequence[str], timeout: float = OBSERVE_SECONDS) -> Results:
        """Run a task that only reads on these workers of any service, and start none; return the result of each.

        Raises:
            NoWorkersError: none of them can be reached, or one isn't known.
        """
        submission = Submission(ALL, task, origin=self._origin, workers=workers, timeout=timeout)
        with self._refreshed():
            return self._runner.without_starting().run(submission)[1]

    def ask_broker(self, task: str, **kwargs: Any) -> Any:
        """Return what the broker itself answers to a request, such as `get_stats` or `get_logs`; not validated.

        Raises:
            NfcliError: the environment has no broker.
            NoWorkersError: the broker isn't reachable.
        """
        with self._refreshed():
            return self._transport.ask_broker(task, **kwargs)
