"""The tasks that list tools of all services with their guardrails, and prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.tool_policy import ToolsInventory
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.jobs.task_context import TaskContext
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
def worker(open_store: Callable[[], TokenStore], trail: AuditTrail, tmp_path: Path) -> TaskContext:
    """Return a worker that knows two other services."""
    registry = TaskRegistry(auth_tasks, service_tasks, tool_tasks)
    catalogue = ToolCatalogue("w1", "fastmcp", [spec.entry() for spec in registry], POLICY)
    catalogue.replace("net", [entry(mcp={"prompts": [PROMPT]}), entry("bearer_token_list")])
    catalogue.replace("lab", [entry()])
    return task_context(Environment(tmp_path, None), registry, open_store(), trail, catalogue=catalogue)


@pytest.fixture
def run(worker: TaskContext) -> Run:
    """Run a task of the worker; return its result."""

    def run_task(name: str, /, **kwargs: object) -> Any:
        result = worker.registry.run(worker, name, kwargs)
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
    found = run("get_tools", service="lab")
    assert list(found) == [LAB]
    assert list(found[LAB]) == ["name", "title", "description", "inputSchema", "outputSchema", "annotations"]
    assert (found[LAB]["name"], found[LAB]["annotations"]) == (LAB, {"title": "Ping", "readOnlyHint": True})
    assert run("get_tools", service="net")[NET]["annotations"] == {}


def test_prompts_are_listed_with_arguments_and_templates(run: Run) -> None:
    """They are filtered like tools."""
    name = f"{NET}__prompt_look"
    arguments = [{"name": "device", "description": "Which", "required": True}]
    about = {"name": name, "title": "Look", "description": "Look at it", "arguments": arguments}
    assert run("get_prompts") == {name: {**about, "messages": PROMPT["messages"]}}
    assert run("get_prompts", brief=True, service="net", name="*look") == [name]
    assert run("get_prompts", service="lab") == run("get_prompts", name="look") == {}


def test_tools_have_their_guardrails(run: Run) -> None:
    """Each with the rule's own keys; a tool without any has no such key."""
    tool, about = run("get_tools")[NET], {"service": "net", "task": "ping"}
    assert tool["guardrails"] == [{**about, **RULES["guardrails"][0]}]
    assert tool["result_guardrails"] == [{**about, **RULES["result_guardrails"][0]}]


def test_guardrails_are_not_shown_where_others_could_learn_what_to_evade(run: Run, worker: TaskContext) -> None:
    """To MCP clients, and to other workers, which run tasks for clients of their own."""
    worker.is_relayed = True
    assert list(run("get_tools")[NET]) == list(run("get_tools")[LAB])


def test_status_counts_published_tools_and_prompts(run: Run) -> None:
    """Those of all services count."""
    status = run("get_status")
    assert (status["tools_count"], status["prompts_count"]) == (len(run("get_tools")), 1)
