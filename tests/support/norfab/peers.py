"""Clients as the matrix sees them: the reference's and ours run the same jobs and say alike what came of them."""

from __future__ import annotations

from typing import Any

import pytest

from nfcli import Client, NoWorkersError
from nfcli.models.protocol.jobs import Results

SERVICE = "fastmcp"
SECONDS = 20.0

Workers = str | list[str]


class ReferencePeer:
    """The reference's client, driven in its own process."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def run(self, task: str, workers: Workers, *, service: str = SERVICE, **kwargs: Any) -> Results:
        """Run a job that has to complete; return the results by worker."""
        done = self._call(task, workers, service, kwargs)
        assert done["state"] == "COMPLETED", done
        results: Results = done["result"]
        return results

    def fail_to_reach(self, task: str, workers: Workers, *, service: str = SERVICE) -> None:
        """Run a job that no worker can be found for: it fails, without results."""
        done = self._call(task, workers, service, {})
        assert (done["state"], done["result"]) == ("FAILED", None)

    def _call(self, task: str, workers: Workers, service: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = self._reference.call(
            "run_job", service=service, task=task, workers=workers, kwargs=kwargs
        )
        return done


class OurPeer:
    """Our client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def run(self, task: str, workers: Workers, *, service: str = SERVICE, **kwargs: Any) -> Results:
        """Run a job; return the results by worker."""
        return self._client.run_job(service, task, kwargs=kwargs, workers=workers, timeout=SECONDS)

    def fail_to_reach(self, task: str, workers: Workers, *, service: str = SERVICE) -> None:
        """Run a job that no worker can be found for: the error names what isn't there."""
        with pytest.raises(NoWorkersError) as caught:
            self._client.run_job(service, task, workers=workers, timeout=SECONDS)
        missing = service if workers in ("all", "any") else workers
        assert all(repr(name) in str(caught.value) for name in ([missing] if isinstance(missing, str) else missing))
