"""What the client asks of a way to reach workers: direct connections, or a NorFab broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..models.errors import NfcliError
from ..models.nfp import BrokerMessage, ClientMessage


@dataclass(frozen=True, slots=True)
class Answer:
    """A message that came from a worker, or from the broker in its name."""

    worker: str
    message: BrokerMessage


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that can't be reached (`was_up` false: nothing was delivered) or that has gone away."""

    worker: str
    error: NfcliError
    was_up: bool


class Transport(Protocol):
    """Carries NFP messages to workers and back; used by one thread at a time."""

    def candidates(self, service: str) -> list[str]:
        """Return the names of the workers of a service (`all`: of every one)."""

    def endpoint(self, name: str) -> str:
        """Return where a worker is reached; NoWorkersError where it can't be."""

    def is_running(self, name: str) -> bool:
        """Whether a worker can be sent to, as far as that is known without a message."""

    def send(self, name: str, message: ClientMessage) -> None:
        """Send a message to a worker; NoWorkersError when there is no way to."""

    def receive(self, names: Sequence[str], deadline: float) -> Iterator[Answer | Lost]:
        """Wait until something comes from these workers or `deadline` (monotonic seconds) is there."""

    def close(self) -> None:
        """Give up every connection at once."""
