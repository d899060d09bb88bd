"""What results may take in memory: of one token's calls, and of all, until their clients have read them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import task
from nfcli.worker.mcp.result_budget import ResultBudget
from support.fabric.hub import Hub, pushes
from support.mcp.called_tools import PING, Serve
from support.mcp.change_streams import NO_METADATA
from support.mcp.served_worker import read_response
from support.mcp.tool_entries import entry
from support.strangers import wait_until
from support.tokens.token_store import delete_tokens, store_token

MIB = 1024 * 1024
OWN = "service_fastmcp__task_fill"
DROPPED = (
    "the result was dropped: this token's results may take 10 MiB at a time; "
    "make fewer calls at once, and check what it has done before you repeat it"
)


class FillInput(TaskInput):
    """Arguments of `fill`."""

    count: int


@task(arguments=FillInput, result=str)
def fill(_worker: WorkerContext, arguments: FillInput) -> str:
    """Return so many characters."""
    return "x" * arguments.count


@pytest.fixture
def budget() -> ResultBudget:
    """Return the budget of the site."""
    return ResultBudget(max_bytes=15 * MIB, max_bytes_per_token=10 * MIB)


@pytest.fixture
def site(served_worker: Serve, hub: Hub, connect_fabric: Callable[..., Any], budget: ResultBudget) -> Any:
    """Serve `ping` of another service, which returns as many bytes as it is asked for, and `fill`, to two tokens."""
    hub.workers = {"n1": ("net", pushes(lambda data: "x" * int(data["kwargs"]["target"])))}
    tasks = ModuleType("tasks")
    tasks.fill = fill  # type: ignore[attr-defined]
    worker = served_worker(tasks, fabric=connect_fabric(), results=budget, auth_bearer=NO_METADATA)
    worker.worker.catalogue.replace("net", [entry()])
    store_token(worker.store, "other", "t", None)
    return worker


def ping(size: int) -> dict[str, Any]:
    """Return the parameters of a call that brings so many bytes."""
    return {"name": PING, "arguments": {"target": str(size)}}


@contextmanager
def connect_lazily(site: Any) -> Iterator[socket.socket]:
    """Connect with a receive buffer that the system doesn't enlarge: it might take a result that nobody reads."""
    with site.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        yield connection


def wait_for_response(connection: socket.socket) -> None:
    """Wait until a response has begun, without reading any of it."""
    assert connection.recv(1, socket.MSG_PEEK) == b"H"


def outcome(site: Any, params: dict[str, Any], **request: Any) -> Any:
    """Call a tool; return the length of what it returns, or why there is nothing."""
    result = site.post("tools/call", params, **request)[2]["result"]
    if not result["isError"]:
        (found,) = result["structuredContent"].values()
        return len(found["result"])
    return result["content"][0]["text"].removeprefix("n1: ")


def test_unread_results_of_one_token_are_bounded_together(
    site: Any, budget: ResultBudget, caplog: pytest.LogCaptureFixture
) -> None:
    """What a client hasn't read stays counted; other tokens have their own share; a line and a counter tell it."""
    with connect_lazily(site) as lazy, caplog.at_level(logging.WARNING):
        lazy.sendall(site.request("tools/call", ping(8 * MIB)))
        wait_for_response(lazy)
        assert 8 * MIB < budget.counters()["result_bytes"] < 9 * MIB
        assert [outcome(site, ping(3 * MIB)) for _ in range(2)] == [DROPPED] * 2
        assert outcome(site, ping(1 * MIB)) == 1 * MIB
        assert outcome(site, ping(3 * MIB), token="t") == 3 * MIB
        wait_until(lambda: budget.counters()["result_bytes"] < 9 * MIB)
        assert outcome(site, ping(8 * MIB), token="t").startswith(
            "the result was dropped: the results for all tokens may take 15 MiB at a time;"
        )
        assert budget.counters()["results_dropped"] == 3
        assert read_response(lazy)[0] == 200
    wait_until(lambda: budget.counters()["result_bytes"] == 0)
    assert outcome(site, ping(9 * MIB)) == 9 * MIB
    lines = [message for message in caplog.messages if "dropped" in message]
    assert lines == ["result for MCP client 'automation' dropped: this token's results may take 10 MiB at a time"]


def test_result_of_a_client_that_has_gone_is_not_counted(site: Any, budget: ResultBudget) -> None:
    """Whether it has read some of it or nothing."""
    with connect_lazily(site) as lazy:
        lazy.sendall(site.request("tools/call", ping(8 * MIB)))
        wait_for_response(lazy)
        assert budget.counters()["result_bytes"] > 0
    wait_until(lambda: budget.counters() == {"result_bytes": 0, "results_dropped": 0})


def test_unread_result_does_not_outlive_its_token(site: Any, budget: ResultBudget) -> None:
    """A deletion doesn't wait for the client either."""
    with connect_lazily(site) as lazy:
        lazy.sendall(site.request("tools/call", ping(8 * MIB), token="t"))
        wait_for_response(lazy)
        assert delete_tokens(site.store, username="other") == 1
        wait_until(lambda: budget.counters()["result_bytes"] == 0)


def test_results_of_own_tools_count_as_well(site: Any, budget: ResultBudget) -> None:
    """A result that is dropped takes nothing."""
    with connect_lazily(site) as lazy:
        lazy.sendall(site.request("tools/call", {"name": OWN, "arguments": {"count": 8 * MIB}}))
        wait_for_response(lazy)
        assert outcome(site, {"name": OWN, "arguments": {"count": 3 * MIB}}) == DROPPED
        assert budget.counters()["results_dropped"] == 1
    wait_until(lambda: budget.counters()["result_bytes"] == 0)
    assert outcome(site, {"name": OWN, "arguments": {"count": 9 * MIB}}) == 9 * MIB


def test_result_that_comes_after_the_end_of_its_request_is_not_kept(budget: ResultBudget) -> None:
    """Its job was cancelled; nothing would give its bytes back."""
    with budget.reserve("token", "ann") as reservation:
        assert reservation.take(MIB) is None
    assert reservation.take(MIB) == "the result came too late: nobody waits for it any more"
    assert budget.counters() == {"result_bytes": 0, "results_dropped": 0}
