"""A job at a broker, as its owner drives it, with a clock that the test moves."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol.broker_job import BrokerJob
from nfcli.models.protocol.broker_presence import BrokerPresence, Timeouts
from nfcli.models.protocol.frames import BrokerMessage, ClientMessage, Command
from nfcli.models.protocol.jobs import Event, Result, is_automatic
from nfcli.models.protocol.pending_job import PendingJob

TIMEOUTS = Timeouts(poll=2.5, answer=2.5, comeback=20.0, silence=2.0)
GOOD = {"result": 1, "failed": False}
POST_DATA, GET_DATA = b'{"task":"t","timeout":60}', b'{"task":"t"}'


class Sent:
    """A job of service `s`, posted at second 0 to `workers`, or to all: then `dispatched` are in the broker's 202."""

    def __init__(
        self,
        *dispatched: str,
        workers: Sequence[str] = (),
        target: Any = "all",
        timeout: float = 60.0,
        silence: float = TIMEOUTS.silence,
        max_workers: float = math.inf,
        max_result_bytes: float = math.inf,
    ) -> None:
        self.broker = BrokerPresence(Timeouts(silence=silence), handshakes=1)
        self.progress: list[tuple[str, str]] = []
        self.pending = PendingJob(
            *("s", "t", "u1", POST_DATA),
            timeout=timeout,
            deadline=timeout,
            on_event=self._record,
        )
        self.pending.missing = set(workers)
        self.job = BrokerJob(
            self.pending,
            self.broker,
            endpoint="tcp://b:1",
            now=0.0,
            target=None if workers else target,
            get_data=GET_DATA,
            max_workers=max_workers,
            max_result_bytes=max_result_bytes,
        )
        self.job.is_posted = True
        self.broker.record_sent(0.0)
        if dispatched:
            self.receive("202", {"workers": list(dispatched), "target": "all"})

    def _record(self, event: Event) -> None:
        if not is_automatic(event):
            self.progress.append((event["worker"], event["message"]))

    def receive(self, status: str, data: Any, *, command: bytes = Command.RESPONSE, now: float = 0.0) -> None:
        """Pass a message to the job; bytes as they are."""
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.broker.record_received(now)
        self.job.receive(BrokerMessage(command, "s", self.pending.uuid, status, payload), now)

    def advance(self, now: float) -> None:
        """Let time pass."""
        self.job.advance(now, "the broker at tcp://b:1 has gone away")

    def asked(self, now: float) -> list[str] | None:
        """Return the workers that a GET goes to at this time, None if none is due."""
        frames = self.job.request(now)
        if frames is None:
            return None
        message = ClientMessage.parse(frames)
        assert (message.command, message.service, message.uuid) == (Command.GET, "s", self.pending.uuid)
        assert message.data == GET_DATA
        self.broker.record_sent(now)
        workers: list[str] = json.loads(message.target)
        return workers

    @property
    def values(self) -> dict[str, Any]:
        """The value of each result, or the errors of a failed one, of a job that has ended with results."""
        assert (self.job.is_done, self.job.error) == (True, None)
        results = self.pending.results
        assert all(result.keys() == Result.model_fields.keys() for result in results.values())
        return {name: result["errors"] if result["failed"] else result["result"] for name, result in results.items()}

    @property
    def error(self) -> str:
        """The message of the NoWorkersError that the job has ended with."""
        assert self.job.is_done
        assert isinstance(self.job.error, NoWorkersError)
        return str(self.job.error)


def ready(worker: str) -> dict[str, str]:
    """Return the data of a `result_ready` event."""
    return {"worker": worker, "event_type": "result_ready"}
