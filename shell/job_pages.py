"""Long lists of workers, requested in pages, so that neither side has a whole list in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from ..models.errors import NfcliError
from ..models.protocol.jobs import Page, Results, failed_result
from .job_client import JobClient

FIRST_PAGE_ITEMS = 500
"""Small: that of each worker is in memory at once, and the first rows are to come soon."""
PAGE_ITEMS = 5_000

CheckResult = Callable[[dict[str, Any]], dict[str, Any]]


def run_in_pages(
    client: JobClient,
    job: dict[str, Any],
    check: CheckResult,
    *,
    monotonic: Callable[[], float] = time.monotonic,
) -> tuple[Results, Callable[[str], Iterator[dict[str, Any]]]]:
    """Run a task that has pages; return the first page of each worker, and a function that requests the others of one.

    `job` has the arguments of `run_job`, with `timeout`: the seconds for all requests together, without what the caller
    does in between. `check` is called with each worker's result. A failed result ends a worker's pages. NorFab's
    workers don't know pages: what they return is a whole list.

    Raises:
        NfcliError: as `run_job` for the first pages.
    """
    seconds_left = job["timeout"]

    def request(page: Page, **changed: Any) -> tuple[Results, dict[str, str | None]]:
        nonlocal seconds_left
        started = monotonic()
        try:
            results = client.run_job(**job | {"timeout": seconds_left} | changed, page=page)
        finally:
            seconds_left -= monotonic() - started
        pages = {worker: _split(result) for worker, result in results.items()}
        rows = {worker: check(result) for worker, (result, _) in pages.items()}
        return rows, {worker: cursor for worker, (_, cursor) in pages.items()}

    first, cursors = request(Page(limit=FIRST_PAGE_ITEMS))

    def following(worker: str) -> Iterator[dict[str, Any]]:
        cursor = cursors[worker]
        while cursor is not None and not first[worker].get("failed"):
            if seconds_left <= 0:
                yield failed_result(f"the job's {job['timeout']:g} s are over: set a longer timeout")
                return
            try:
                results, later = request(Page(limit=PAGE_ITEMS, after=cursor), workers=[worker])
            except NfcliError as error:
                yield failed_result(str(error))
                return
            cursor = later[worker]
            yield results[worker]

    return first, following


def _split(result: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return a result with its rows alone, and the cursor of the page after it."""
    value = result.get("result")
    if not isinstance(value, dict) or value.keys() != {"rows", "next"}:
        return result, None
    cursor = value["next"]
    return {**result, "result": value["rows"]}, cursor if isinstance(cursor, str) else None
