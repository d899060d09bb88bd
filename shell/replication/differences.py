"""In which tokens workers differ, without the tokens: for `show fastmcp tokens diff`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from ...models.tasks.token_sync import TokenState
from .workers import ComparedWorkers

MAX_ROWS = 1_000


def find_differences(compared: ComparedWorkers) -> Iterator[dict[str, Any]]:
    """Yield a row for each token in which the workers differ.

    The `difference` is `missing` on some workers, `deleted` there after it was created, another `expiry`, or a
    `conflict`: it belongs to different users.

    Raises:
        TaskError: the workers have different fleet keys.
    """
    compared.check_comparable()
    for ranges in compared.different_ranges():
        for _, states in compared.states(ranges):
            row = _row(states, sorted(compared.reports))
            if row is not None:
                yield row


def _row(states: Mapping[str, TokenState], workers: list[str]) -> dict[str, Any] | None:
    stored = {worker: state for worker, state in states.items() if state.is_stored and worker in workers}
    if not stored:
        return None
    absent = [worker for worker in workers if worker not in stored]
    users = {state.username or "" for state in stored.values()}
    first = next(iter(stored.values()))
    row = {"fingerprint": first.fingerprint, "username": ", ".join(sorted(users)), "on": sorted(stored)}
    if len(users) > 1:
        sides = "; ".join(f"{state.username} on {worker}" for worker, state in sorted(stored.items()))
        return {**row, "difference": "conflict", "not on": absent, "note": sides}
    if absent:
        deleted = {worker: states[worker].deleted for worker in absent if worker in states}
        note = "; ".join(f"deleted on {worker} at {_text(time)}" for worker, time in sorted(deleted.items()))
        return {**row, "difference": "deleted" if deleted else "missing", "not on": absent, "note": note}
    if len({state.expires for state in stored.values()}) > 1:
        sides = "; ".join(f"{_text(state.expires)} on {worker}" for worker, state in sorted(stored.items()))
        return {**row, "difference": "expiry", "not on": [], "note": f"expires {sides}"}
    return None


def _text(time: float | None) -> str:
    return "never" if time is None else datetime.fromtimestamp(time).astimezone().isoformat(" ", "seconds")
