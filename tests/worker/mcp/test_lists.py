"""Paginated lists of tools and prompts, and rendered prompts, with clients of both protocol eras."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from mcp import Client, MCPError

from nfcli.models.protocol.jobs import Result
from nfcli.worker.mcp import handlers
from nfcli.worker.mcp.handlers import make_server
from nfcli.worker.mcp.questions.asking_calls import AskingCalls
from nfcli.worker.mcp.tool_calls import ToolCalls
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy
from support.mcp.called_tools import ERAS, MODES, PING, in_both_eras, with_client
from support.mcp.tool_entries import PROMPT, entry

Serve = Callable[..., Any]


@pytest.mark.parametrize("mode", MODES)
def test_prompts_are_listed_and_rendered_without_a_job(tool_site: Any, fabric: Any, mode: str) -> None:
    """Arguments are checked; an error has one line."""
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
    assert [code for code, _ in problems] == [-32602] * 3
    assert [message.split(": ")[:2] for _, message in problems[:2]] == [
        ["prompt look", "argument device"],
        ["prompt look", "argument x"],
    ]
    assert problems[2][1] == "unknown prompt 'no'; call prompts/list for the available names"
    assert fabric.calls == []


def test_prompts_are_not_offered_in_direct_mode_by_default(served_worker: Serve) -> None:
    """None of the worker's own tasks has prompts."""
    params = {"protocolVersion": ERAS[0], "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    capabilities = served_worker().post("initialize", params)[2]["result"]["capabilities"]
    assert capabilities == {"tools": {"listChanged": False}}


def test_prompts_of_own_tasks_are_offered_in_direct_mode_too() -> None:
    """Their list never changes there."""
    own = ToolCatalogue("w1", "fastmcp", [entry(mcp={"prompts": [PROMPT]})], ToolPolicy())
    calls = ToolCalls(
        "w1",
        own,
        run_task=lambda *_: Result(),
        asking=AskingCalls(lambda _token: nullcontext()),
        read_arguments=lambda _task, arguments: arguments,
        run_job=None,
        timeout=600,
    )
    server = make_server("w1", own, calls, None)
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
def test_all_tools_are_on_one_page(tool_site: Any, era: str) -> None:
    """Many clients ask for no more."""
    for service in ("net", "zzz"):
        tool_site.worker.catalogue.replace(service, [entry(f"t{number:03}") for number in range(300)])
    assert pages(tool_site, era) == [list(tool_site.worker.catalogue.tools)]


@in_both_eras
def test_very_long_lists_are_paginated(tool_site: Any, era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their length, in the order of the names, each tool once; a longer one has a page of its own."""
    monkeypatch.setattr(handlers, "MAX_PAGE_BYTES", 3_000)
    long = entry("t004", description="x" * 3_500)
    tool_site.worker.catalogue.replace("zzz", [long, *(entry(f"t{number:03}") for number in range(20))])
    found = pages(tool_site, era)
    assert len(found) > 5
    assert ["service_zzz__task_t004"] in found
    assert list(itertools.chain(*found)) == list(tool_site.worker.catalogue.tools)


@in_both_eras
def test_list_that_changes_between_pages_skips_and_repeats_nothing(
    tool_site: Any, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the tool that the cursor names has been removed."""
    monkeypatch.setattr(handlers, "MAX_PAGE_BYTES", 30_000)
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
def test_invalid_cursor_is_rejected(tool_site: Any, era: str, method: str) -> None:
    """As a protocol error."""
    for cursor in ("", "x", "5", "YWZ0ZXI", "c2VydmljZQ==", "YWZ0ZXI6/w==", "YWZ0ZXI6_w==", "é"):
        error = tool_site.post(method, {"cursor": cursor}, era=era)[2]["error"]
        assert error == {"code": -32602, "message": "invalid cursor; restart without one"}, cursor


@in_both_eras
def test_cursor_after_the_last_name_gives_an_empty_page(
    tool_site: Any, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tools after it have been removed meanwhile."""
    monkeypatch.setattr(handlers, "MAX_PAGE_BYTES", 30_000)
    tool_site.worker.catalogue.replace("zzz", [entry(f"t{number:03}") for number in range(110)])
    cursor = tool_site.post("tools/list", era=era)[2]["result"]["nextCursor"]
    tool_site.worker.catalogue.replace("zzz", [])
    listed = tool_site.post("tools/list", {"cursor": cursor}, era=era)[2]["result"]
    assert (listed["tools"], "nextCursor" in listed) == ([], False)
