"""The rows of `show norfab workers`: what broker or inventory list, and what the workers say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ...models.commands.norfab.show import ShowWorkers, mapping
from ...models.errors import NfcliError
from ...models.protocol.jobs import failure_reason
from .observer import FabricObserver, Report

_ALIVE = "alive"


def show_workers(command: ShowWorkers, client: FabricObserver, *, fail: Report) -> list[dict[str, Any]]:
    """Return a row for each worker that is wanted, with uptime, memory, CPU and jobs of those that are alive."""
    rows: list[dict[str, Any]] = [dict(row) for row in client.show_workers()]
    if rows and not any(row["status"] == _ALIVE for row in rows):
        fail("no worker is alive: start them with nfcli -w, or run a command for them, which starts them")
    rows = [row for row in rows if _is_wanted(row, command)]
    alive = [row["name"] for row in rows if row["status"] == _ALIVE]
    try:
        results = client.observe("get_stats", alive, timeout=command.seconds()) if alive else {}
    except NfcliError as error:
        results = {name: {"failed": True, "errors": [str(error)]} for name in alive}
    return [{**row, **_usage(row, results.get(row["name"]))} for row in rows]


def _is_wanted(row: Mapping[str, Any], command: ShowWorkers) -> bool:
    return command.service in {None, row["service"]} and command.status in {None, row["status"]}


def _usage(row: Mapping[str, Any], result: Mapping[str, Any] | None) -> dict[str, Any]:
    seconds = _number(row.get("alive (s)"))
    shown: dict[str, Any] = {"uptime": uptime_text(seconds), "memory (MB)": None, "cpu (%)": None, "jobs": None}
    if result is None:
        return shown
    stats = result.get("result")
    if result.get("failed") or not isinstance(stats, Mapping):
        note = f"no statistics: {failure_reason(result)}" if result.get("failed") else "its statistics can't be read"
        return {**shown, "note": row.get("note") or note}
    return {**shown, **usage_of(stats)}


def usage_of(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a worker's statistics, which aren't validated, say for people: uptime, memory, CPU and jobs."""
    process, jobs = mapping(stats.get("process")), mapping(stats.get("jobs"))
    memory = _number(process.get("memory_rss_mbyte"))
    return {
        "uptime": uptime_text(_number(process.get("uptime_seconds"))),
        "memory (MB)": None if memory is None else round(memory),
        "cpu (%)": _number(process.get("cpu_percent")),
        "jobs": jobs.get("total_jobs"),
    }


def uptime_text(seconds: float | None) -> str:
    """Return a time in days, hours, minutes and seconds: `3 days, 4:05:06`."""
    return "" if seconds is None else str(timedelta(seconds=int(seconds)))


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None
