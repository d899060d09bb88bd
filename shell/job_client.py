"""The client as those use it that run jobs and don't know how it reaches the workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..models.protocol.jobs import Page, Results


class JobClient(Protocol):
    """Runs jobs on workers; `shell/client/client.py` implements it and documents the errors."""

    def run_job(
        self,
        service: str,
        task: str,
        *,
        kwargs: dict[str, Any] | None = ...,
        workers: str | Sequence[str] = ...,
        timeout: float = ...,
        page: Page | None = ...,
    ) -> Results:
        """Run a task; return one entry for each targeted worker, failed ones included."""

    def check_workers(self, names: Sequence[str]) -> None:
        """Check that these workers exist; raises NoWorkersError for those that don't."""
