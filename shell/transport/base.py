"""What the client asks of a way to reach workers: direct connections, or a NorFab broker."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from .job import Job


class Transport(Protocol):
    """Carries jobs to workers and their answers back; used by one thread at a time.

    `SOURCE` is what tells which workers there are: the inventory, or the broker.
    """

    SOURCE: ClassVar[str]

    def refresh(self, seconds: float) -> None:
        """Learn anew which workers there are, within `seconds`; NoWorkersError when that can't be learnt."""

    def settle(self) -> None:
        """Wait, not for long, until workers that were started a moment ago can be reached."""

    def candidates(self, service: str) -> list[str]:
        """Return the names of the workers of a service (`all`: of every one), as the last `refresh` found them."""

    def services(self) -> list[str]:
        """Return the names of the services that these workers serve."""

    def is_running(self, name: str) -> bool:
        """Whether a worker can be sent to, as far as that is known without a message."""

    def carry(self, job: Job) -> None:
        """Send a job to each of its missing workers, once, and take in answers until none is missing or time is up."""

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker, as the shell shows it."""

    def show_broker(self) -> dict[str, Any]:
        """Return what the broker tells of itself; NfcliError where there is none."""

    def describe(self) -> dict[str, Any]:
        """Return how workers are reached; asks nobody."""

    def close(self) -> None:
        """Give up every connection at once."""
