"""Each MCP client sees and calls only what the rules let its user use."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import Client, MCPError

from nfcli.models.inventory.tool_policy import ToolsInventory
from nfcli.worker.tools.policy import ToolPolicy
from support.mcp.called_tools import MODES, PING, Fabric, with_client
from support.mcp.served_worker import Serve
from support.mcp.tool_entries import PROMPT, entry
from support.tokens.token_store import store_token

POLICY = [{"service": "net", "users": ["ann"]}, {"service": "net", "action": "reject"}]
PROMPT_NAME = f"{PING}__prompt_look"
GET_TOOLS = "service_fastmcp__task_get_tools"


@pytest.fixture
def site(served_worker: Serve, fabric: Fabric) -> Any:
    """Serve a worker whose tools of the service `net` are ann's alone; bob has a token too, `bob-1`."""
    worker = served_worker(fabric=fabric, auth_bearer={"issuer_url": None}, tools={"policy": POLICY})
    store_token(worker.store, "ann", "ann-1", None)
    store_token(worker.store, "bob", "bob-1", None)
    worker.worker.catalogue.replace("net", [entry(mcp={"prompts": [PROMPT]})])
    fabric.answer = {"net-1": {"result": True, "failed": False, "errors": [], "messages": []}}
    return worker


async def _use(client: Client) -> dict[str, Any]:
    """Return what a client sees, and what happens when it uses what only ann may."""
    tools = [tool.name for tool in (await client.list_tools()).tools]
    prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
    listed = (await client.call_tool(GET_TOOLS, {"brief": True})).structured_content
    refusals = []
    for use in (
        lambda: client.call_tool(PING, {"target": "r1"}),
        lambda: client.get_prompt(PROMPT_NAME, {"device": "r1"}),
    ):
        try:
            await use()
        except MCPError as error:
            refusals.append((error.error.code, error.error.message))
    return {"tools": tools, "prompts": prompts, "listed": str(listed), "refusals": refusals}


@pytest.mark.parametrize("mode", MODES)
def test_user_sees_and_uses_what_the_rules_allow(site: Any, fabric: Fabric, mode: str) -> None:
    """In tools/list, in prompts/list, in the list that a tool returns, and in calls."""
    found = with_client(site, _use, mode, token="ann-1")
    assert PING in found["tools"]
    assert found["prompts"] == [PROMPT_NAME]
    assert PING in found["listed"]
    assert found["refusals"] == []
    assert len(fabric.calls) == 1


@pytest.mark.parametrize("mode", MODES)
def test_to_other_users_the_tool_does_not_exist(site: Any, fabric: Fabric, mode: str) -> None:
    """They get the answer that an unknown name gets, and no job is sent."""
    found = with_client(site, _use, mode, token="bob-1")
    assert GET_TOOLS in found["tools"]
    assert PING not in found["tools"]
    assert found["prompts"] == []
    assert PING not in found["listed"]
    assert [code for code, _ in found["refusals"]] == [-32602] * 2
    assert [message.split(" ")[0] for _, message in found["refusals"]] == ["unknown", "unknown"]
    assert fabric.calls == []


def test_lists_and_calls_follow_another_policy_at_once(site: Any) -> None:
    """And a list of whose tools only the users have changed is announced as changed."""
    changes: list[Any] = []
    catalogue = site.worker.catalogue
    catalogue.on_change.append(changes.append)
    rules = [{"service": "net", "users": ["bob"]}, {"service": "net", "action": "reject"}]
    catalogue.apply_policy(ToolPolicy(ToolsInventory.model_validate({"policy": rules})))
    assert [(change.tools, change.prompts) for change in changes] == [(True, True)]
    seen = {user: PING in with_client(site, _use, MODES[0], token=f"{user}-1")["tools"] for user in ("ann", "bob")}
    assert seen == {"ann": False, "bob": True}


def test_without_authentication_rules_for_users_apply_to_nobody(served_worker: Serve) -> None:
    """The rule for everybody behind them decides."""
    policy = [{"tasks": ["get_tools"], "users": ["*"]}, {"tasks": ["get_tools"], "action": "reject"}]
    worker = served_worker(authentication_enabled=False, tools={"policy": policy})
    names = [tool["name"] for tool in worker.post(token=None)[2]["result"]["tools"]]
    assert names
    assert GET_TOOLS not in names
