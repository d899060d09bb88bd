"""The introspection tasks, run through the registry."""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import socket
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import TypeAdapter

from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.models.protocol.broker_connection import BrokerAddress
from nfcli.models.protocol.broker_key import BrokerKey
from nfcli.models.protocol.jobs import Result
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.jobs.task_context import TaskContext
from nfcli.worker.tasks import auth as auth_tasks
from nfcli.worker.tasks import introspection as service_tasks
from nfcli.worker.tasks import tools as tool_tasks
from nfcli.worker.tasks.process_stats import process_stats
from nfcli.worker.tokens.store import TokenStore
from support.task_context import task_context
from support.tokens.token_store import store_token

TASKS = [
    *(
        "bearer_token_access",
        "bearer_token_check",
        "bearer_token_delete",
        "bearer_token_introspect",
        "bearer_token_list",
        "bearer_token_store",
        "discover",
        "echo",
    ),
    *("get_inventory", "get_prompts"),
    *("get_stats", "get_status", "get_tools", "get_version", "get_worker_status", "list_tasks"),
    "token_users",
]
Run = Callable[..., Any]


@pytest.fixture
def worker(
    open_store: Callable[[], TokenStore], trail: AuditTrail, clock: SimpleNamespace, tmp_path: Path
) -> TaskContext:
    """Return a worker that was started 90 seconds ago, with two live tokens and an expired one, all of alice."""
    store = open_store()
    store_token(store, "alice", "a", None)
    store_token(store, "alice", "b", 100)
    store_token(store, "bob", "c", 90)
    started = clock.now
    clock.now += 90
    return task_context(
        environment=Environment(tmp_path, None),
        inventory=WorkerInventory(
            service="fastmcp", authentication_enabled=True, logging={"handlers": {"password": "hidden", "level": 10}}
        ),
        registry=TaskRegistry(auth_tasks, service_tasks, tool_tasks),
        store=store,
        audit=trail,
        url="http://127.0.0.1:8001/mcp",
        endpoint="ipc:///run/w1.ipc",
        clock=lambda: clock.now,
        started=started,
    )


@pytest.fixture
def run(worker: TaskContext) -> Run:
    """Run a task that must succeed with a value of its declared type; return the value."""

    def run_task(task: str, **kwargs: object) -> Any:
        result = worker.registry.run(worker, task, kwargs)
        assert result.errors == []
        TypeAdapter(worker.registry.get(task).result_type).validate_python(result.result)
        return result.result

    return run_task


def failure(worker: TaskContext, task: str, **kwargs: object) -> list[str]:
    """Run a task that must fail; return its errors."""
    result: Result = worker.registry.run(worker, task, kwargs)
    assert (result.failed, result.result) == (True, None)
    return result.errors


def test_status_has_addresses_state_and_counts(run: Run, worker: TaskContext) -> None:
    """Expired tokens and users without others don't count."""
    assert run("get_status") == {
        "name": "w1",
        "service": "fastmcp",
        "status": "active",
        "url": "http://127.0.0.1:8001/mcp",
        "endpoint": "ipc:///run/w1.ipc",
        "metrics_url": None,
        "authentication_enabled": True,
        "tokens_count": 2,
        "tokens_digest": f"{worker.store.digest():064x}",
        "fleet_key": worker.store.hasher.key_id,
        "users_count": 1,
        "tools_count": len(worker.catalogue.tools),
        "prompts_count": 0,
        "relays": [],
        "version": version("nfcli"),
        "pid": os.getpid(),
        "started": "2026-05-28T20:26:40.250000Z",
        "uptime_seconds": 90.0,
        "disk": "ok",
        "certificate_expires": None,
        "http_connections": 0,
        "http_connections_closed": 0,
    }


def test_status_is_stopping_during_shutdown(worker: TaskContext, run: Run) -> None:
    """This holds for all three reports."""
    worker.stopping.set()
    assert [run(task)["status"] for task in ("get_status", "get_worker_status", "get_stats")] == ["stopping"] * 3


def test_version_has_the_installed_versions(run: Run) -> None:
    """It covers nfcli, its main libraries, Python and the platform."""
    packages = ("nfcli", "mcp", "uvicorn", "starlette", "pydantic", "pyzmq", "diskcache")
    expected = {package: version(package) for package in packages}
    assert run("get_version") == {**expected, "python": platform.python_version(), "platform": sys.platform}


def test_version_of_a_missing_package_is_empty(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """This is NorFab's convention."""
    monkeypatch.setattr(service_tasks, "PACKAGES", ("no-such-package",))
    assert run("get_version")["no-such-package"] == ""


def test_inventory_is_returned_with_secrets_masked(run: Run, worker: TaskContext) -> None:
    """Keys that aren't set have their defaults."""
    shown = run("get_inventory")
    assert shown == worker.inventory.redacted()
    assert shown["logging"] == {"handlers": {"password": "***", "level": 10}}
    assert (shown["host"], shown["port"], shown["authentication_enabled"]) == ("127.0.0.1", 8001, True)


def test_tools_are_those_that_mcp_clients_see(run: Run, worker: TaskContext) -> None:
    """They have descriptions, schemas and hints; no schema has references, which some clients don't read."""
    tools = run("get_tools")
    assert list(tools) == list(worker.catalogue.tools)
    get_tools = tools["service_fastmcp__task_get_tools"]
    assert get_tools["description"] == worker.registry.get("get_tools").description
    assert get_tools["inputSchema"]["properties"].keys() == {"brief", "service", "name"}
    assert get_tools["annotations"]["readOnlyHint"] is True
    for tool in tools.values():
        schema = tool["outputSchema"]
        assert (schema["type"], list(schema["properties"])) == ("object", ["w1"])
        assert "required" not in schema
        assert list(schema["properties"]["w1"]["properties"]) == ["result", "failed", "errors", "messages"]
        assert "$" not in json.dumps(tool)


@pytest.mark.parametrize(
    ("kwargs", "pattern"),
    [
        ({}, "*"),
        ({"service": "fastmcp"}, "*"),
        ({"service": "nornir"}, ""),
        ({"name": "*version"}, "*version"),
        ({"name": "get_version"}, ""),
    ],
)
def test_tools_can_be_filtered_and_listed_by_name_only(
    run: Run, worker: TaskContext, kwargs: dict[str, str], pattern: str
) -> None:
    """The arguments are NorFab's."""
    expected = fnmatch.filter(list(worker.catalogue.tools), pattern)
    assert run("get_tools", brief=True, **kwargs) == expected
    assert [tool["name"] for tool in run("get_tools", **kwargs).values()] == expected


def test_too_long_glob_is_refused(run: Run, worker: TaskContext) -> None:
    """Python would take minutes for a glob of some hundred thousand brackets."""
    assert failure(worker, "get_tools", name="[" * 257) == ["name: must have at most 256 characters"]
    assert run("get_tools", name="[" * 256) == {}


def test_tasks_are_listed_in_the_format_of_nfp(run: Run, worker: TaskContext) -> None:
    """This is the list of all tasks of these families; each entry has seven keys."""
    entries = run("list_tasks")
    assert [entry["name"] for entry in entries] == TASKS
    assert entries == [spec.entry() for spec in worker.registry]
    assert [set(entry) for entry in entries] == [
        {"name", "description", "inputSchema", "outputSchema", "fastapi", "mcp", "agent"}
    ] * len(TASKS)
    assert all(entry["description"] for entry in entries)


def test_tasks_can_be_listed_by_name_only_or_one_alone(run: Run, worker: TaskContext) -> None:
    """The error for an unknown name is one line."""
    assert run("list_tasks", brief=True) == [entry["name"] for entry in run("list_tasks")]
    assert run("list_tasks", name="echo", brief=True) == ["echo"]
    assert run("list_tasks", name="echo") == [worker.registry.get("echo").entry()]
    (error,) = failure(worker, "list_tasks", name="x")
    assert error.startswith("unknown task 'x'")


def test_echo_returns_its_arguments(run: Run) -> None:
    """The two special arguments are not among them."""
    assert run("echo", a=1, b={"c": [None]}, sleep=0, raise_error=None) == {
        "juuid": None,
        "client_address": None,
        "timeout": None,
        "task": "echo",
        "args": [],
        "kwargs": {"a": 1, "b": {"c": [None]}},
    }


@pytest.mark.parametrize(
    ("value", "error"),
    [("no disk", "no disk"), (True, "echo was asked to fail: True"), (7, "echo was asked to fail: 7")],
)
def test_echo_fails_on_request(worker: TaskContext, value: object, error: str) -> None:
    """A text becomes the error."""
    assert failure(worker, "echo", raise_error=value) == [error]


@pytest.mark.parametrize("value", [-1, 61, "x", float("nan"), float("inf")])
def test_echo_refuses_long_waits(worker: TaskContext, value: object) -> None:
    """One client must not occupy all threads."""
    errors = failure(worker, "echo", sleep=value)
    assert [error.partition(":")[0] for error in errors] == ["sleep"]


def test_waiting_echo_ends_with_the_worker(worker: TaskContext) -> None:
    """It doesn't delay the shutdown."""
    results: list[Result] = []
    waiting = threading.Thread(target=lambda: results.append(worker.registry.run(worker, "echo", {"sleep": 60})))
    waiting.start()
    worker.stopping.set()
    waiting.join(10)
    assert [result.failed for result in results] == [False]


def test_worker_status_has_folders_and_keys(run: Run, tmp_path: Path) -> None:
    """The format is NorFab's."""
    keys, clients = tmp_path / ".nfcli" / "keys", tmp_path / ".nfcli" / "clients"
    assert run("get_worker_status") == {
        "name": "w1",
        "role": "worker",
        "service": "fastmcp",
        "status": "active",
        "broker": "ipc:///run/w1.ipc",
        "directories": {
            "base_dir": str(tmp_path),
            "public_keys_dir": str(clients),
            "private_keys_dir": str(keys),
        },
        "security": {
            "worker_private_key_file": str(keys / "w1.key_secret"),
            "broker_public_key_file": None,
            "zmq_auth": True,
        },
    }


@pytest.mark.parametrize(
    ("key", "security"),
    [
        (BrokerKey(b"k" * 40, "/keys/broker.key"), {"broker_public_key_file": "/keys/broker.key", "zmq_auth": True}),
        (None, {"broker_public_key_file": None, "zmq_auth": False}),
    ],
)
def test_worker_status_has_the_broker(
    run: Run, worker: TaskContext, tmp_path: Path, key: BrokerKey | None, security: dict[str, Any]
) -> None:
    """It has the endpoint, and whether the connection uses CURVE."""
    worker.broker = BrokerAddress("tcp://broker:5555", key)
    worker.endpoint = worker.broker.endpoint
    status = run("get_worker_status")
    own = str(tmp_path / ".nfcli" / "keys" / "w1.key_secret")
    assert (status["broker"], status["security"]) == (
        "tcp://broker:5555",
        {"worker_private_key_file": own, **security},
    )


def test_stats_count_reconnects_and_keepalives(run: Run, worker: TaskContext) -> None:
    """The fields are NorFab's."""
    worker.counters = {"messaging": lambda: {"reconnects": 1, "keepalives_sent": 2, "keepalives_received": 3}}
    stats = run("get_stats")
    assert [stats[key] for key in ("reconnects", "keepalives_sent", "keepalives_received")] == [1, 2, 3]


def test_stats_count_messages_and_jobs(run: Run, worker: TaskContext, clock: SimpleNamespace) -> None:
    """The format is NorFab's; a worker without sockets counts nothing."""
    idle = run("get_stats")
    assert (idle["running_jobs"], idle["jobs"]["total_jobs"]) == (0, 0)
    messaging = {"received": 9, "sent": 5, "invalid": 1, "denied": 2, "dropped": 4}
    messaging |= {"connections": 8, "connections_closed": 4, "messages_too_long": 5}
    http = {"connections": 7, "connections_closed": 1, "requests_too_long": 2, "clients_too_slow": 3}
    worker.counters = {
        "messaging": lambda: messaging,
        "http": lambda: http | {"waits_for_descriptors": 9, "handshakes_failed": 6},
        "jobs": lambda: {"running_jobs": 1, "total_jobs": 6, "refused_jobs": 7, "late_jobs": 8},
    }
    limits = (stats := run("get_stats")).pop("limits")
    assert stats.pop("process").keys() == {
        *("cpu_percent", "memory_rss_mbyte", "uptime_seconds", "open_file_descriptors", "tcp_sockets", "threads")
    }
    assert stats == {
        "schema_version": "1.0",
        "collected_at": datetime.fromtimestamp(clock.now, UTC).isoformat(timespec="microseconds")[:-6] + "Z",
        "name": "w1",
        "role": "worker",
        "status": "active",
        "messaging": {"sent": 5, "received": 9, "events_received": 0, "send_failures": 4, "receive_failures": 3},
        "service": "fastmcp",
        "broker": "ipc:///run/w1.ipc",
        "reconnects": 0,
        "outbound_queue_depth": 0,
        "running_jobs": 1,
        "jobs": {"total_jobs": 6, "jobs_by_status": {"PENDING": 1, "COMPLETED": 5}},
        "max_concurrent_jobs": 5,
        "watchdog_runs": 0,
        "keepalives_sent": 0,
        "keepalives_received": 0,
        "sid_inventory_status": "completed",
    }
    assert limits == {
        "http_connections": 7,
        "http_connections_closed": 1,
        "http_requests_too_long": 2,
        "http_clients_too_slow": 3,
        "http_waits_for_descriptors": 9,
        "http_handshakes_failed": 6,
        "zmq_connections": 8,
        "zmq_connections_closed": 4,
        "zmq_messages_too_long": 5,
        "mcp_result_bytes": 0,
        "mcp_results_dropped": 0,
        "jobs_refused": 7,
        "jobs_late": 8,
    }


def test_stats_and_status_count_what_mcp_clients_occupy(run: Run, worker: TaskContext) -> None:
    """The status has the connections alone."""
    worker.counters = {
        "http": lambda: {"connections": 7, "connections_closed": 1},
        "mcp": lambda: {"result_bytes": 10, "results_dropped": 11},
    }
    limits, status = run("get_stats")["limits"], run("get_status")
    assert (limits["mcp_result_bytes"], limits["mcp_results_dropped"]) == (10, 11)
    assert (status["http_connections"], status["http_connections_closed"]) == (7, 1)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs a proc file system")
def test_process_stats_are_those_of_this_process() -> None:
    """They are read from `/proc`."""
    before = process_stats(10.0)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        during = process_stats(10.0)
    assert during.open_file_descriptors == (before.open_file_descriptors or 0) + 2
    assert during.tcp_sockets == (before.tcp_sockets or 0) + 2
    assert during.uptime_seconds == 10.0
    assert during.threads >= threading.active_count()
    assert 10 < during.memory_rss_mbyte < 4_000
    assert during.cpu_percent > 0


def test_process_stats_without_proc_come_from_posix(tmp_path: Path) -> None:
    """As on macOS: no sockets, peak memory, Python's threads."""
    stats = process_stats(0.0, proc=tmp_path)
    assert stats.tcp_sockets is None
    assert stats.threads == threading.active_count()
    assert 10 < stats.memory_rss_mbyte < 4_000
    assert stats.open_file_descriptors is not None


def test_tasks_without_arguments_refuse_unknown_ones(worker: TaskContext) -> None:
    """A misspelt argument is an error."""
    for name in ("get_status", "get_version", "get_inventory", "get_worker_status", "get_stats", "get_tools"):
        assert failure(worker, name, nmae="x") == ["nmae: no such field"]
