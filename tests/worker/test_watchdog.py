"""The worker's look at its memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.watchdog import MemoryWatchdog


@pytest.mark.parametrize(("action", "stops"), [("log", False), ("shutdown", True)])
def test_a_passed_threshold_is_logged_once_and_ends_the_worker_if_the_inventory_says_so(
    caplog: pytest.LogCaptureFixture, action: str, stops: bool
) -> None:
    """It is logged again after the memory was below it; nothing is looked at before it is time."""
    now = SimpleNamespace(seconds=0.0, mbyte=200.0)
    inventory = WorkerInventory.model_validate(
        {
            "service": "fastmcp",
            "watchdog_interval": 10,
            "memory_threshold_mbyte": 100,
            "memory_threshold_action": action,
        }
    )
    watchdog = MemoryWatchdog(inventory, lambda: now.mbyte, lambda: now.seconds)
    found = []
    for seconds, mbyte in ((9, 200), (10, 200), (15, 200), (20, 201), (30, 100), (40, 300)):
        now.seconds, now.mbyte = seconds, mbyte
        found.append(watchdog.check())
    assert found == [False, stops, False, stops, False, stops]
    assert watchdog.runs == 4
    assert [record.getMessage() for record in caplog.records] == [
        "memory: 200 MiB are used, more than memory_threshold_mbyte: 100",
        "memory: 300 MiB are used, more than memory_threshold_mbyte: 100",
    ]
