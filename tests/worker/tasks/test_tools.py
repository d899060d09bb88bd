"""The tasks that list tools of all services, prompts and guardrails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.tool_policy import ToolsInventory
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.tasks import auth as auth_tasks
from nfcli.worker.tasks import introspection as service_tasks
from nfcli.worker.tasks import tools as tool_tasks
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy
from support.mcp.tool_entries import PROMPT, entry
from support.task_context import task_context

LAB, NET = "service_lab__task_ping", "service_net__task_ping"
RULES = {
    "guardrails": [{"field": "target", "type": "equals", "match": ["r2"], "message": "not r2", "description": ""}],
    "result_guardrails": [{"type": "limit", "limit": 1000, "message": "", "description": ""}],
}

Run = Callable[..., Any]


POLICY = ToolPolicy(
    ToolsInventory.model_validate(
        {key: [{"service": "net", "task": "ping", **rule} for rule in rules] for key, rules in RULES.items()}
    )
)


@pytest.fixture
def run(open_store: Callable[[], TokenStore], trail: AuditTrail, tmp_path: Path) -> Run:
    """Run a task of a worker that knows two other services; return its result."""
    registry = TaskRegistry(auth_tasks, service_tasks, tool_tasks)
    catalogue = ToolCatalogue("w1", "fastmcp", [spec.entry() for spec in registry], POLICY)
    catalogue.replace("net", [entry(mcp={"prompts": [PROMPT]}), entry("bearer_token_list")])
    catalogue.replace("lab", [entry()])
    worker = task_context(Environment(tmp_path, None), registry, open_store(), trail, catalogue=catalogue)

    def run_task(name: str, /, **kwargs: object) -> Any:
        result = registry.run(worker, name, kwargs)
        assert (result.failed, result.errors) == (False, [])
        return result.result

    return run_task


def test_tools_of_all_services_are_listed(run: Run) -> None:
    """They are those that MCP clients see, without tasks that manage tokens."""
    own = run("get_tools", brief=True, service="fastmcp")
    assert run("get_tools", brief=True) == [*own, LAB, NET]
    assert not [name for name in own if "bearer_token" in name]
    assert run("get_tools", brief=True, service="net") == [NET]
    assert run("get_tools", brief=True, name="*ping") == [LAB, NET]
    (tool,) = run("get_tools", service="lab")
    assert tool.keys() == {"name", "description", "inputSchema", "outputSchema", "annotations"}
    assert (tool["name"], tool["annotations"]) == (LAB, {"title": "Ping", "readOnlyHint": True})
    assert run("get_tools", service="net")[0]["annotations"] == {}


def test_prompts_are_listed_with_their_arguments(run: Run) -> None:
    """They are filtered like tools."""
    name = f"{NET}__prompt_look"
    arguments = [{"name": "device", "description": "Which", "required": True}]
    assert run("get_prompts") == [{"name": name, "description": "Look at it", "arguments": arguments}]
    assert run("get_prompts", brief=True, service="net", name="*look") == [name]
    assert run("get_prompts", service="lab") == run("get_prompts", name="look") == []


def test_guardrails_are_listed_by_tool(run: Run) -> None:
    """Each is one row with the rule's own keys."""
    assert run("get_guardrails") == [
        {"tool": NET, "kind": "guardrail", "service": "net", "task": "ping", **RULES["guardrails"][0]},
        {"tool": NET, "kind": "result_guardrail", "service": "net", "task": "ping", **RULES["result_guardrails"][0]},
    ]
    assert run("get_guardrails", brief=True) == [NET]
    assert run("get_guardrails", service="lab") == run("get_guardrails", brief=True, name="x") == []


def test_status_counts_published_tools_and_prompts(run: Run) -> None:
    """Those of all services count."""
    status = run("get_status")
    assert (status["tools_count"], status["prompts_count"]) == (len(run("get_tools")), 1)
