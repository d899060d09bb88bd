"""The interface between the client and its way to reach workers: direct connections, or a NorFab broker."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from ...models.protocol.pending_job import PendingJob

START_IT = "start it (nfcli -w, or a new shell without -c)"
"""The remedy where a worker isn't running."""
START_THERE = "start it on its machine, or correct its endpoint in the inventory"
"""That for a worker of another machine."""

MISSING = "missing"
"""Status of a worker that is expected and that the broker or the inventory doesn't list."""


class Transport(Protocol):
    """Sends jobs to workers and receives their results; used by one thread at a time.

    `SOURCE` names what lists the workers: the inventory, or the broker. `COLUMNS` are those of `show_workers`.
    """

    SOURCE: ClassVar[str]
    COLUMNS: ClassVar[tuple[str, ...]]

    @property
    def identity(self) -> str:
        """What a broker's workers know this client by; empty where that is its key."""

    def refresh(self, seconds: float) -> None:
        """Refresh the list of workers; raises NoWorkersError if that fails or takes longer than `seconds`."""

    def wait_registered(self) -> None:
        """Wait, for a bounded time, until workers that have just been started are reachable."""

    def candidates(self, service: str) -> list[str]:
        """Return the names of a service's workers (`all`: of every service), as of the last `refresh`."""

    def registered(self, service: str) -> list[str]:
        """Return the names of those that a broker lists for `service`; none without a broker."""

    def services(self) -> list[str]:
        """Return the names of these workers' services."""

    def is_running(self, name: str) -> bool:
        """Whether a worker seems to be running, judged without sending a message."""

    def answers(self, name: str, seconds: float) -> bool:
        """Whether a worker answers a request that changes nothing within `seconds`; a stopped one doesn't."""

    def send(self, job: PendingJob) -> None:
        """Send a job to each of its missing workers, once, and wait for results until none is missing or it expires."""

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker, as the shell shows it."""

    def show_broker(self) -> dict[str, Any]:
        """Return the broker's state; raises NfcliError if there is no broker."""

    def ask_broker(self, task: str, **kwargs: Any) -> Any:
        """Return the broker's answer to a request, not validated; raises NfcliError if there is no broker."""

    def describe(self) -> dict[str, Any]:
        """Return how workers are reached, without sending a message."""

    def close(self) -> None:
        """Close all connections at once."""


def not_running(name: str) -> str:
    """Return the message for a worker of this machine that does not run, with the remedy."""
    return f"worker {name} is not running: {START_IT}"
