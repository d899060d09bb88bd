"""Lists of tools and prompts by the page, and prompts rendered, as MCP clients of both eras see them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from mcp import Client, MCPError

from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.mcp import handlers as mcp_handlers
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy
from support.mcp.called_tools import ERAS, MODES, PING, in_both_eras, with_client
from support.mcp.tool_entries import PROMPT, entry

Serve = Callable[..., Any]


@pytest.mark.parametrize("mode", MODES)
def test_prompts_are_listed_and_rendered_without_a_job(tool_site: Any, fabric: Any, mode: str) -> None:
    """Arguments are checked; a mistake is told in one line."""
    tool_site.worker.catalogue.replace("net", [entry(mcp={"prompts": [PROMPT]})])
    name = f"{PING}__prompt_look"

    async def use(client: Client) -> Any:
        listed = (await client.list_prompts()).prompts
        got = await client.get_prompt(name, {"device": "r1"})
        problems = []
        for wrong, arguments in ((name, {}), (name, {"device": "r1", "x": "y"}), ("no", {})):
            with pytest.raises(MCPError) as caught:
                await client.get_prompt(wrong, arguments)
            problems.append((caught.value.error.code, caught.value.error.message))
        return listed, got, problems

    listed, got, problems = with_client(tool_site, use, mode)
    assert [prompt.name for prompt in listed] == [name]
    assert [(each.role, each.content.text) for each in got.messages] == [("user", "Look at r1")]
    assert problems == [
        (-32602, "prompt look: argument device: must be given"),
        (-32602, "prompt look: argument x: no such argument: prompts/list names them"),
        (-32602, "unknown prompt 'no': prompts/list names those there are"),
    ]
    assert fabric.calls == []


def test_there_are_no_prompts_in_direct_mode_unless_own_tasks_have_some(served_worker: Serve) -> None:
    """A client needn't ask for what can't be there."""
    params = {"protocolVersion": ERAS[0], "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    capabilities = served_worker().post("initialize", params)[2]["result"]["capabilities"]
    assert capabilities == {"tools": {"listChanged": False}}


def test_prompts_of_own_tasks_are_offered_in_direct_mode_too() -> None:
    """They never change there."""
    own = ToolCatalogue("w1", "fastmcp", [entry(mcp={"prompts": [PROMPT]})], ToolPolicy())
    inventory = WorkerInventory(service="fastmcp")
    worker = SimpleNamespace(name="w1", catalogue=own, inventory=inventory)
    server = mcp_handlers.make_server(worker, None)  # type: ignore[arg-type]
    capabilities = server.create_initialization_options().capabilities
    assert capabilities.prompts is not None
    assert capabilities.prompts.list_changed is False


def pages(worker: Any, era: str, between: Callable[[int], None] = lambda _page: None) -> list[list[str]]:
    """Return the names of the tools on each page; `between` is called after each of them."""
    found: list[list[str]] = []
    cursor: dict[str, str] = {}
    while True:
        listed = worker.post("tools/list", cursor, era=era)[2]["result"]
        found.append([tool["name"] for tool in listed["tools"]])
        if "nextCursor" not in listed:
            return found
        between(len(found))
        cursor = {"cursor": listed["nextCursor"]}


@in_both_eras
def test_long_lists_come_in_pages(tool_site: Any, era: str) -> None:
    """A hundred on each, in the names' order, each tool once."""
    tool_site.worker.catalogue.replace("net", [entry(f"t{number:03}") for number in range(296)])
    found = pages(tool_site, era)
    assert [len(page) for page in found] == [100, 100, 100]
    assert list(itertools.chain(*found)) == [tool.name for tool in tool_site.worker.catalogue.tools()]


@in_both_eras
def test_a_list_that_changes_between_pages_skips_and_repeats_nothing_that_stayed(tool_site: Any, era: str) -> None:
    """What the cursor names may itself have gone."""
    stays = [entry(f"t{number:03}") for number in range(0, 300, 2)]
    goes = [entry(f"t{number:03}") for number in range(1, 300, 2)]
    tool_site.worker.catalogue.replace("net", stays + goes)

    def change(page: int) -> None:
        tool_site.worker.catalogue.replace("net", [*stays, *(goes if page % 2 == 0 else [])])
        tool_site.worker.catalogue.replace("a", [entry(f"{page}{number}") for number in range(50)])

    found = [name for name in itertools.chain(*pages(tool_site, era, change)) if name.startswith("service_net")]
    assert len(found) == len(set(found))
    assert {f"service_net__task_{each['name']}" for each in stays} <= set(found)


@in_both_eras
@pytest.mark.parametrize("method", ["tools/list", "prompts/list"])
def test_a_cursor_that_is_none_is_refused(tool_site: Any, era: str, method: str) -> None:
    """As an error of the protocol, in one line."""
    told = "the cursor is none that this server gave: begin again without one"
    for cursor in ("", "x", "5", "YWZ0ZXI", "c2VydmljZQ==", "YWZ0ZXI6/w==", "YWZ0ZXI6_w==", "é"):
        error = tool_site.post(method, {"cursor": cursor}, era=era)[2]["error"]
        assert error == {"code": -32602, "message": told}, cursor


@in_both_eras
def test_a_cursor_behind_the_last_name_gives_an_empty_page(tool_site: Any, era: str) -> None:
    """All that stood behind it has gone meanwhile."""
    listed = tool_site.post("tools/list", {"cursor": mcp_handlers._cursor("zzz")}, era=era)[2]["result"]
    assert (listed["tools"], "nextCursor" in listed) == ([], False)
