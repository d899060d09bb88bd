"""`show norfab logging`: the logs of workers and broker, merged by time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ...models.commands.norfab.show import ShowLogging
from ...models.errors import NfcliError
from .observer import FabricObserver, Report, listed_rows

_FIRST = datetime.min.replace(tzinfo=UTC)


def show_logs(command: ShowLogging, client: FabricObserver, *, fail: Report) -> list[dict[str, Any]]:
    """Return the newest records of workers and broker, the oldest first; `fail` is called for each that has none."""
    records = listed_rows(client.run_job(**command.job()), fail)
    if command.includes_broker and client.describe().get("mode") == "fabric":
        records += _of_broker(command, client, fail)
    # A worker with few records has older ones than those of the others that are shown.
    return sorted(({**record, "time": _shown(record)} for record in records), key=_moment)[-command.last :]


def _of_broker(command: ShowLogging, client: FabricObserver, fail: Report) -> list[dict[str, Any]]:
    try:
        listed = client.ask_broker("get_logs", **command.filters())
    except NfcliError as error:
        fail(f"broker: {error}")
        return []
    if not isinstance(listed, list):
        fail("broker: it has no log to show: norfab 0.25.0 or newer is needed")
        return []
    return [{"worker": "broker", **record} for record in listed if isinstance(record, dict)]


def _moment(record: Mapping[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(str(record.get("ts"))).astimezone(UTC)
    except (ValueError, OverflowError):
        return _FIRST


def _shown(record: Mapping[str, Any]) -> str:
    moment = _moment(record)
    if moment is _FIRST:
        return ""
    local = moment.astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1_000:03d}"
