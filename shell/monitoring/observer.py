"""The client as those use it that look at workers and broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...models.protocol.jobs import Results, failure_reason
from ..job_client import JobClient

Report = Callable[[str], None]


def listed_rows(results: Results, fail: Report) -> list[dict[str, Any]]:
    """Return the rows that workers have listed, with their names; `fail` is called for each that has listed none."""
    rows: list[dict[str, Any]] = []
    for worker, result in sorted(results.items()):
        listed = result.get("result")
        if result.get("failed") or not isinstance(listed, list):
            fail(f"{worker}: {failure_reason(result)}")
        else:
            rows += [{"worker": worker, **row} for row in listed if isinstance(row, dict)]
    return rows


class FabricObserver(JobClient, Protocol):
    """Runs jobs and looks at workers; `shell/client/client.py` implements it and documents the errors."""

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker."""

    def show_broker(self) -> dict[str, Any]:
        """Return state and versions of the broker."""

    def observe(self, task: str, workers: Sequence[str], timeout: float = ...) -> Results:
        """Run a task that only reads, and start no worker."""

    def ask_broker(self, task: str, **kwargs: Any) -> Any:
        """Return the broker's answer to a request."""

    def describe(self) -> dict[str, Any]:
        """Return environment, public key and connection mode."""
