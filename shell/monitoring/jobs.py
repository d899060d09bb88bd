"""`show norfab jobs`: the jobs of all workers, or one of them in full."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...models.commands.norfab.show import ShowNorfabJobs
from ...models.errors import NfcliError
from ...models.protocol.jobs import failure_reason, is_unanswered
from .observer import FabricObserver, Report, listed_rows

_TIMES = ("received_timestamp", "started_timestamp", "completed_timestamp")


def show_worker_jobs(command: ShowNorfabJobs, client: FabricObserver, *, fail: Report) -> Any:
    """Return the newest jobs of the workers by time, or for a uuid what each worker that had it knows of it.

    Raises:
        NfcliError: no worker knows the job of that uuid; or as the client's `run_job`.
    """
    results = client.run_job(**command.job())
    if command.uuid is not None:
        return _details(command, results, fail)
    rows = [{**row, "received": _shown(row)} for row in listed_rows(results, fail)]
    rows.sort(key=lambda row: _seconds(row.get(_TIMES[0])))
    return rows[-command.last :]


def _details(command: ShowNorfabJobs, results: Mapping[str, Any], fail: Report) -> dict[str, Any]:
    known = {worker: result["result"] for worker, result in sorted(results.items()) if not result.get("failed")}
    for worker, result in sorted(results.items()):
        if result.get("failed") and is_unanswered(result):
            fail(f"{worker}: {failure_reason(result)}")
    if not known:
        raise NfcliError(f"no worker knows job {command.uuid!r}: show norfab jobs lists those that they know")
    return known


def _seconds(text: object) -> float:
    """Return a time, ISO 8601 or NorFab's local one, in seconds since the epoch; 0 for anything else."""
    if not isinstance(text, str):
        return 0.0
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return time.mktime(time.strptime(text))
    except (ValueError, OverflowError):
        return 0.0


def _shown(row: Mapping[str, Any]) -> str:
    seconds = _seconds(row.get(_TIMES[0]))
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}" if seconds else ""
