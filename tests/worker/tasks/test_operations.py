"""The tasks about a worker's log, the files that it has fetched, and its watchdog."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.jobs.task_context import TaskContext
from nfcli.worker.logging import configure_logging
from nfcli.worker.tasks import operations
from nfcli.worker.tokens.store import TokenStore
from support.task_context import task_context

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LEVELS = ("INFO", "WARNING", "ERROR", "INFO")

Run = Callable[..., Any]


@pytest.fixture
def worker(open_store: Callable[[], TokenStore], trail: AuditTrail, tmp_path: Path) -> TaskContext:
    """Return a worker with a watchdog of its own."""
    inventory = WorkerInventory(service="fastmcp", watchdog_interval=5, memory_threshold_action="shutdown")
    registry = TaskRegistry(operations)
    return task_context(Environment(tmp_path, None), registry, open_store(), trail, inventory=inventory)


@pytest.fixture
def run(worker: TaskContext) -> Run:
    """Run a task; return its result, or the errors of one that failed."""

    def run_task(name: str, /, **kwargs: object) -> Any:
        result = worker.registry.run(worker, name, kwargs)
        return result.errors if result.failed else result.result

    return run_task


@pytest.fixture
def log(worker: TaskContext) -> list[str]:
    """Write the worker's log, four records in two files, a minute apart; return their messages."""
    file = worker.environment.log_file("w1")
    file.parent.mkdir(parents=True)
    lines = [
        json.dumps(
            {
                "time": (NOON + timedelta(minutes=number)).isoformat(timespec="milliseconds"),
                "level": level,
                "logger": f"nfcli.{level.lower()}",
                "message": f"message {number}",
            }
        )
        for number, level in enumerate(LEVELS)
    ]
    Path(f"{file}.1").write_text("\n".join(lines[:2]) + "\n", encoding="utf-8")
    file.write_text("\n".join(lines[2:]) + "\n", encoding="utf-8")
    return [f"message {number}" for number in range(len(LEVELS))]


def messages(records: Any) -> list[str]:
    """Return what the records say."""
    return [record["message"] for record in records]


def test_the_log_is_read_back_the_oldest_record_first(run: Run, log: list[str]) -> None:
    """In NorFab's format, from all its files."""
    records = run("get_logs")
    assert messages(records) == log
    assert records[1] == {
        "ts": (NOON + timedelta(minutes=1)).astimezone().isoformat(timespec="microseconds"),
        "level": "WARNING",
        "logger": "nfcli.warning",
        "message": "message 1",
        "role": "worker",
        "name": "w1",
        "log_file": "w1.jsonl.1",
    }


@pytest.mark.parametrize(
    ("kwargs", "numbers"),
    [
        ({"last": 2}, [2, 3]),
        ({"level": "info", "last": 1}, [3]),
        ({"level": "ERROR"}, [2]),
        ({"logger": "nfcli.warning"}, [1]),
        ({"since": "2026-11-22T12:01:00+00:00"}, [1, 2, 3]),
        ({"until": "2026-11-22T12:01:00.000+00:00"}, [0, 1]),
        ({"since": "2026-11-22T13:30:00+01:30", "until": "2026-11-22T12:00:30Z"}, [0]),
        ({"since": "2027-01-01"}, []),
    ],
)
def test_records_can_be_filtered(run: Run, log: list[str], kwargs: dict[str, Any], numbers: list[int]) -> None:
    """By number, level, logger and time, as at NorFab's workers; times may have any offset."""
    assert messages(run("get_logs", **kwargs)) == [log[number] for number in numbers]


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"since": "yesterday"}, "since: must be a time in ISO 8601, such as 2026-12-01 or 2026-12-01T04:30:00"),
        ({"level": "LOUD"}, "level: must be one of NOTSET, DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ({"last": 0}, "last: must be 1 or more"),
    ],
)
def test_wrong_filters_are_refused(run: Run, kwargs: dict[str, Any], error: str) -> None:
    """With the rule that they break."""
    assert run("get_logs", **kwargs) == [error]


def test_what_the_worker_logs_can_be_read_without_credentials(run: Run, worker: TaskContext) -> None:
    """The log itself has none; an exception is named with the places it came from."""
    worker.environment.log_file("w1").parent.mkdir(parents=True, mode=0o700)
    restore = configure_logging(worker.environment.log_file("w1"), "INFO")
    try:
        logging.getLogger("nfcli.x").warning("got Authorization: Bearer secret-token")
        try:
            {}["secret-token"]
        except KeyError:
            logging.getLogger("nfcli.x").exception("failed")
    finally:
        restore()
    first, second = run("get_logs", logger="nfcli.x")
    assert (first["level"], second["message"]) == ("WARNING", "failed")
    assert json.loads(second["exception"])[0]["type"] == "KeyError"
    assert "secret-token" not in str([first, second])


def test_a_damaged_line_hides_no_other(run: Run, worker: TaskContext, log: list[str]) -> None:
    """It is shown as an error, without what it has."""
    with worker.environment.log_file("w1").open("a", encoding="utf-8") as stream:
        stream.write('{"time": "x", "secret\n[1]\n')
    assert messages(run("get_logs")) == [*log, *["a line that can't be read"] * 2]


def test_a_worker_without_a_log_has_no_records(run: Run) -> None:
    """It hasn't logged anything yet."""
    assert run("get_logs") == []


@pytest.fixture
def fetched(worker: TaskContext) -> Path:
    """Return the folder of fetched files, with three of them."""
    folder = worker.environment.fetched_folder("w1")
    for name in ("a.txt", "maps/b.txt", "maps/deep/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("a.txt", ["a.txt"]),
        ("maps/*.txt", ["maps/b.txt"]),
        ("**/*.txt", ["maps/deep/c.txt", "maps/b.txt", "a.txt"]),
        ("maps", ["maps"]),
        ("*", ["a.txt", "maps"]),
        ("none*", []),
    ],
)
def test_fetched_files_are_deleted_by_a_glob(run: Run, fetched: Path, pattern: str, gone: list[str]) -> None:
    """Files, and folders with all that they hold."""
    report = run("delete_fetched_files", filepath=pattern)
    assert sorted(report["deleted"]) == sorted(str(fetched / name) for name in gone)
    assert report["errors"] == []
    assert not any((fetched / name).exists() for name in gone)


@pytest.mark.parametrize("pattern", ["../w1", "/etc/*", "maps/../../../*", "", "."])
def test_nothing_outside_the_folder_can_be_named(run: Run, fetched: Path, pattern: str) -> None:
    """A pattern is for paths below the folder, which itself stays."""
    assert run("delete_fetched_files", filepath=pattern) == [
        "filepath: must be a glob for paths below the folder of fetched files"
    ]
    assert (fetched / "maps/deep/c.txt").exists()


def test_a_link_out_of_the_folder_is_not_followed(run: Run, fetched: Path, tmp_path: Path) -> None:
    """The link itself can be deleted."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("x", encoding="utf-8")
    (fetched / "link").symlink_to(outside)
    report = run("delete_fetched_files", filepath="link/*")
    assert report == {
        "deleted": [],
        "errors": [f"{fetched / 'link/kept.txt'}: a link leads out of the folder of fetched files"],
    }
    assert run("delete_fetched_files", filepath="link")["deleted"] == [str(fetched / "link")]
    assert (outside / "kept.txt").exists()


def test_the_watchdogs_configuration_is_the_inventorys(run: Run) -> None:
    """In NorFab's format."""
    assert run("get_watchdog_configuration") == {
        "watchdog_interval": 5,
        "memory_threshold_mbyte": 1000,
        "memory_threshold_action": "shutdown",
    }
