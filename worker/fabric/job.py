"""One job for another service, and the future of its results."""

from __future__ import annotations

import contextlib
import math
import uuid as uuids
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

from ...models.errors import NfcliError
from ...models.protocol.broker_job import BrokerJob
from ...models.protocol.broker_presence import BrokerPresence
from ...models.protocol.frames import encode_data
from ...models.protocol.jobs import Results, check_timeout, encode_request
from ...models.protocol.pending_job import OnEvent, OnStream, PendingJob

MAX_RESULT_BYTES = 16 * 1024 * 1024
MAX_WORKERS = 1_000


class OutgoingJob(BrokerJob):
    """A job for the workers of a service, its size bounded; call `complete_if_done` after each other call.

    `timeout` is in seconds, for the whole job; `depth` says how many jobs led to it; `on_stream`, and what `listen`
    returns for events, are called in the connection's thread; the other arguments are those of `BrokerJob`.

    Raises:
        UsageError: arguments that are not JSON, a timeout that is not a positive number.
    """

    def __init__(
        self,
        service: str,
        task: str,
        kwargs: dict[str, Any],
        target: str | Sequence[str],
        *,
        broker: BrokerPresence,
        endpoint: str,
        timeout: float,
        now: float,
        max_result_bytes: int = MAX_RESULT_BYTES,
        reserve: Callable[[int], str | None] = lambda _size: None,
        on_stream: OnStream | None = None,
        listen: Callable[[PendingJob], OnEvent] | None = None,
        depth: int = 0,
    ) -> None:
        whole = math.ceil(check_timeout(timeout))
        data = encode_request(task, kwargs, timeout=whole, seconds_left=timeout, depth=depth)
        job = PendingJob(
            *(service, task, uuids.uuid4().hex, data), timeout=timeout, deadline=now + timeout, on_stream=on_stream
        )
        job.on_event = None if listen is None else listen(job)
        super().__init__(
            job,
            broker,
            endpoint=endpoint,
            now=now,
            target=target,
            get_data=encode_data({"task": task, "kwargs": {}, "args": []}),
            max_workers=MAX_WORKERS,
            max_result_bytes=max_result_bytes,
            reserve=reserve,
        )
        self.future: Future[Results] = Future()

    def complete_if_done(self) -> None:
        """Set the future's results or exception once the job has ended."""
        if not self.is_done:
            return
        with contextlib.suppress(InvalidStateError):  # cancelled, or set before
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(dict(sorted(self.job.results.items())))

    def abort(self, error: NfcliError) -> None:
        """End the job without results, unless it has ended."""
        self.error = error
        self.complete_if_done()
