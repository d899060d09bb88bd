"""Changes of NorFab's own workers, approved by MCP clients of ours: neither of the two has to know of the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mcp import Client
from mcp_types import ElicitResult

from support.mcp.asking_worker import LEGACY, MODERN, accept, answering, with_asked_client
from support.norfab.sites import FabricMaker, ToolSiteMaker

OURS, THEIRS = "fastmcp-worker-1", ["asking-worker-1", "asking-worker-2"]
CHANGE = "service_asking__task_change"
MODES = pytest.mark.parametrize("mode", [LEGACY, MODERN])


@pytest.fixture(scope="module")
def worker(new_fabric: FabricMaker, new_tool_site: ToolSiteMaker) -> Iterator[Any]:
    """Run two workers of NorFab's that ask, and one of ours."""
    with new_fabric({name: {"service": "asking"} for name in THEIRS}) as fabric:
        fabric.start(*THEIRS)
        with new_tool_site(fabric, {OURS: {}}) as site:
            site.workers[OURS].await_services({"asking", "fastmcp"})
            yield site.workers[OURS]


def _call(worker: Any, mode: str, answer: Any, **arguments: Any) -> dict[str, Any]:
    result = with_asked_client(worker, mode, answer, lambda client: client.call_tool(CHANGE, arguments))
    return dict(result.structured_content)


@MODES
@pytest.mark.parametrize(
    ("default", "given", "results"),
    [(False, (True, False), {True, False}), (5, (7, 8), {7, 8}), ("a", ("b", "c"), {"b", "c"})],
)
def test_each_worker_has_its_answer(worker: Any, mode: str, default: Any, given: Any, results: Any) -> None:
    """Its question names it, below the preview."""
    answer, asked = answering(*map(accept, given))
    found = _call(worker, mode, answer, default=default)
    assert {result["result"] for result in found.values()} == results
    assert sorted(params.message for params in asked) == [f"+ vlan 5\n\n{name}: Commit?" for name in THEIRS]


@MODES
def test_a_user_who_declines_says_no(worker: Any, mode: str) -> None:
    """To each of them."""
    answer, _ = answering(ElicitResult(action="decline"), ElicitResult(action="cancel"))
    found = _call(worker, mode, answer, default=True)
    assert {name: result["result"] for name, result in found.items()} == dict.fromkeys(THEIRS, False)


@MODES
def test_a_client_without_elicitation_is_refused_at_once(worker: Any, mode: str) -> None:
    """The workers' tasks end, and the reason stands in the result."""
    found = _call(worker, mode, None)
    assert sorted(found) == THEIRS
    for result in found.values():
        assert (result["failed"], result["result"]) == (True, None)
        assert "this MCP client can't be asked" in result["errors"][-1]


@MODES
def test_events_are_progress_notifications(worker: Any, mode: str) -> None:
    """With the worker's name and the severity."""
    told: list[str | None] = []

    async def note(_progress: float, _total: float | None, message: str | None) -> None:
        told.append(message)

    async def use(client: Client) -> Any:
        return await client.call_tool(CHANGE, {}, progress_callback=note)

    answer, _ = answering(accept(True), accept(True))
    with_asked_client(worker, mode, answer, use)
    wanted = {f"WARNING: {name}: r1 is compared" for name in THEIRS}
    assert wanted <= {message for message in told if message}
