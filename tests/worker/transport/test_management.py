"""What a client of direct mode asks of a broker, answered by the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nfcli.models.protocol.frames import Command
from nfcli.worker.tasks import introspection

Connect = Callable[..., Any]
BROKER = "mmi.service.broker"


@pytest.fixture
def ask(server: Any, connect_peer: Connect) -> Callable[..., Any]:
    """Ask the worker for something of a broker's; return the answer."""
    for name in ("get_stats", "get_worker_status", "get_version", "get_inventory"):
        server.worker.registry.add(vars(introspection)[name].task_spec)
    peer = connect_peer()

    def request(task: object, **kwargs: Any) -> Any:
        peer.send(Command.MMI, f"{task}-{kwargs}", {"task": task, "kwargs": kwargs}, service=BROKER)
        status, answer = peer.read()
        assert (status, peer.events) == ("200", [])
        return answer

    return request


@pytest.mark.parametrize(
    ("filters", "is_shown"),
    [
        ({}, True),
        ({"service": "all", "status": "any"}, True),
        ({"service": "fastmcp", "status": "alive"}, True),
        ({"service": "nornir"}, False),
        ({"status": "dead"}, False),
    ],
)
def test_workers_can_be_filtered(ask: Callable[..., Any], filters: dict[str, str], is_shown: bool) -> None:
    """Where there are none, the answer is NorFab's: a row of empty texts."""
    (row,) = ask("show_workers", **filters)
    assert (row["name"], row["status"]) == (("w1", "alive") if is_shown else ("", ""))


def test_statistics_are_a_brokers_with_one_worker(ask: Callable[..., Any]) -> None:
    """In NorFab's format, of this process."""
    stats = ask("get_stats")
    assert (stats["role"], stats["worker_count"], stats["service_count"]) == ("broker", 1, 1)
    assert stats["process"]["memory_rss_mbyte"] > 0
    (worker,) = stats["workers"]
    assert (worker["name"], worker["service"], worker["status"]) == ("w1", "fastmcp", "alive")


def test_status_versions_and_inventory_are_the_workers(ask: Callable[..., Any]) -> None:
    """In NorFab's shapes; the inventory is masked as everywhere."""
    status = ask("get_status")
    assert (status["name"], status["role"], status["status"]) == ("w1", "broker", "active")
    assert status["security"]["broker_public_key_file"].endswith("w1.key")
    assert {"nfcli", "pyzmq", "python"} <= ask("show_broker_version").keys()
    inventory = ask("show_broker_inventory")
    assert inventory["topology"] == {"workers": ["w1"], "broker": False}
    assert inventory["workers"]["w1"][0]["service"] == "fastmcp"


def test_a_broker_has_no_log_here(ask: Callable[..., Any]) -> None:
    """The worker's own comes from its task: a client that asks both would get each record twice."""
    assert ask("get_logs", last=5) == []


@pytest.mark.parametrize(("task", "name"), [("drop", "'drop'"), ("x" * 100, repr("x" * 64)), (7, "'int'")])
def test_unknown_requests_are_answered(ask: Callable[..., Any], task: object, name: str) -> None:
    """As NorFab's broker does."""
    assert ask(task) == f"Unsupported task {name}"


def test_a_request_that_can_not_be_run_gets_the_reason(server: Any, ask: Callable[..., Any]) -> None:
    """For instance while the worker stops."""
    server.worker.stopping.set()
    assert ask("get_stats") == "worker w1 is stopping, nothing was done: send the job again later"
