"""Every way from a client to a worker, ours and the reference's, CURVE on: the same jobs come out alike."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

OURS, THEIRS = "fastmcp-worker-1", "norfab-worker-1"
CELLS = {
    "reference client, reference broker, reference worker": ("their_peer", "fabric", THEIRS),
    "reference client, reference broker, our worker": ("their_peer", "our_worker", OURS),
    "our client, reference broker, reference worker": ("our_peer", "fabric", THEIRS),
    "our client, reference broker, our worker": ("our_peer", "our_worker", OURS),
    "reference client, our worker": ("direct_peer", "direct_site", OURS),
}
AUTH_TASKS = ["bearer_token_check", "bearer_token_delete", "bearer_token_list", "bearer_token_store"]


@dataclass(frozen=True)
class Cell:
    """A client and the worker that its jobs are for; `mark` is in the cell's tokens, since cells share workers.

    `is_ours`: client and worker are both ours.
    """

    peer: Any
    worker: str
    mark: str
    is_ours: bool = False

    def result(self, task: str, **kwargs: Any) -> dict[str, Any]:
        """Run a job on the worker alone; return its result, all fields."""
        results = self.peer.run(task, [self.worker], **kwargs)
        assert list(results) == [self.worker]
        result: dict[str, Any] = results[self.worker]
        return result

    def value(self, task: str, **kwargs: Any) -> Any:
        """Run a task that has to succeed; return its value."""
        result = self.result(task, **kwargs)
        assert (result["failed"], result["errors"]) == (False, [])
        assert result["task"] == f"{self.worker}:{task}"
        return result["result"]


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> Cell:
    """Take each cell of the matrix, whose processes run as long as the session."""
    peer, worker, name = CELLS[request.param]
    request.getfixturevalue(worker)
    is_ours = peer == "our_peer" and name == OURS
    return Cell(request.getfixturevalue(peer), name, str(list(CELLS).index(request.param)), is_ours)


def test_a_token_is_stored(cell: Cell) -> None:
    """Whoever carries it is known from then on."""
    token = f"stored-token-{cell.mark}"
    assert cell.value("bearer_token_check", token=token) is False
    assert cell.value("bearer_token_store", username="storing", token=token, expire=3_600) is True
    assert cell.value("bearer_token_check", token=token) is True


def test_tokens_are_listed(cell: Cell) -> None:
    """A user's tokens have the same five fields on both workers; null is only between clients and workers of ours."""
    user, lasting, passing, other = (f"{name}-{cell.mark}" for name in ("user", "lasting", "passing", "other"))
    assert cell.value("bearer_token_store", username=user, token=lasting) is True
    assert cell.value("bearer_token_store", username=user, token=passing, expire=3_600) is True
    assert cell.value("bearer_token_store", username="somebody else", token=other) is True
    records = sorted(cell.value("bearer_token_list", username=user), key=lambda record: record["creation"])
    assert [record.keys() for record in records] == [{"username", "token", "age", "creation", "expires"}] * 2
    assert [(record["username"], record["token"]) for record in records] == [(user, lasting), (user, passing)]
    assert records[0]["expires"] == (None if cell.is_ours else "None")
    assert records[1]["expires"] > records[1]["creation"]
    assert {lasting, passing, other} <= {record["token"] for record in cell.value("bearer_token_list")}


def test_a_token_is_checked(cell: Cell) -> None:
    """One character decides."""
    token = f"checked-token-{cell.mark}"
    assert cell.value("bearer_token_store", username="checking", token=token) is True
    assert cell.value("bearer_token_check", token=token) is True
    assert cell.value("bearer_token_check", token=f"{token}x") is False


@pytest.mark.parametrize("by", ["username", "token"])
def test_a_token_is_deleted(cell: Cell, by: str) -> None:
    """By itself, or with its user's others."""
    record = {"username": f"deleting by {by}", "token": f"deleted-by-{by}-{cell.mark}"}
    assert cell.value("bearer_token_store", **record) is True
    assert cell.value("bearer_token_delete", **{by: record[by]}) is True
    assert cell.value("bearer_token_check", token=record["token"]) is False


def test_a_task_that_fails_does_so_inside_a_completed_job(cell: Cell) -> None:
    """The reason names the argument that is missing; nothing is stored."""
    token = f"nobodys-token-{cell.mark}"
    result = cell.result("bearer_token_store", token=token)
    assert (result["failed"], result["result"]) == (True, None)
    assert "username" in result["errors"][0]
    assert cell.value("bearer_token_check", token=token) is False


def test_an_unknown_task_fails_inside_a_completed_job(cell: Cell) -> None:
    """The reason names the task."""
    result = cell.result("no_such_task")
    assert (result["failed"], result["result"]) == (True, None)
    assert "no_such_task" in result["errors"][0]


@pytest.mark.parametrize("workers", ["nobody", ["nobody", "nowhere"]], ids=str)
def test_an_unknown_worker_fails_the_job(cell: Cell, workers: str | list[str]) -> None:
    """The client gets an error, well before its time is up."""
    cell.peer.fail_to_reach("bearer_token_list", workers)


@pytest.mark.parametrize("workers", ["all", "any"])
def test_an_unknown_service_fails_the_job(cell: Cell, workers: str) -> None:
    """As an unknown worker does."""
    cell.peer.fail_to_reach("list_tasks", workers, service="no-such-service")


def test_tasks_are_listed(cell: Cell) -> None:
    """Every entry has the keys that the reference's services read, and tokens are no business of MCP clients."""
    entries = {entry["name"]: entry for entry in cell.value("list_tasks")}
    keys = {"name", "description", "inputSchema", "outputSchema", "fastapi", "mcp", "agent"}
    assert [entry for entry in entries.values() if entry.keys() != keys] == []
    assert [(entries[name]["mcp"], entries[name]["fastapi"]) for name in AUTH_TASKS] == [(False, False)] * 4
    assert sorted(cell.value("list_tasks", brief=True)) == sorted(entries)
    assert cell.value("list_tasks", name="bearer_token_check") == [entries["bearer_token_check"]]


@pytest.mark.parametrize(("peer", "worker"), [("their_peer", "our_worker"), ("direct_peer", "direct_site")])
def test_a_token_from_the_references_client_opens_our_mcp_server(
    request: pytest.FixtureRequest, peer: str, worker: str
) -> None:
    """From the moment that the job is done, and until it is deleted."""
    ours = request.getfixturevalue(worker)
    url = getattr(ours, "worker", ours).url
    cell = Cell(request.getfixturevalue(peer), OURS, "")
    assert _status(url, "opening-token") == 401
    assert cell.value("bearer_token_store", username="opening", token="opening-token") is True
    assert _status(url, "opening-token") == 200
    assert cell.value("bearer_token_delete", token="opening-token") is True
    assert _status(url, "opening-token") == 401


def _status(url: str, token: str) -> int:
    """Ping the MCP server; return the HTTP status."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    try:
        connection.request("POST", parts.path, '{"jsonrpc": "2.0", "id": 1, "method": "ping"}', headers)
        return connection.getresponse().status
    finally:
        connection.close()
