"""The tools policy: which tasks may become tools."""

from __future__ import annotations

from typing import Any

import pytest

from nfcli.models.inventory.tool_policy import ToolsInventory
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy


def make_policy(**tools: Any) -> ToolPolicy:
    """Return the policy of an inventory's `tools`."""
    return ToolPolicy(ToolsInventory.model_validate(tools))


ALLOW_GETS = [{"service": "nornir", "tasks": ["get_*", "cli"]}, {"service": "n*", "action": "reject"}]


@pytest.mark.parametrize(
    ("policy", "service", "task", "is_allowed"),
    [
        ([], "nornir", "cli", True),
        (ALLOW_GETS, "nornir", "get_facts", True),
        (ALLOW_GETS, "nornir", "cfg", False),
        (ALLOW_GETS, "netbox", "get_facts", False),
        (ALLOW_GETS, "Nornir", "cfg", True),
        (ALLOW_GETS, "nornir", "GET_FACTS", False),
        ([{"action": "Reject"}], "fastmcp", "get_status", False),
        ([{"service": "a[1]", "action": "reject"}], "a[1]", "x", False),
        ([{"service": "a[1]", "action": "reject"}], "a1", "x", False),
        ([{"tasks": [], "action": "reject"}], "a", "x", True),
    ],
)
def test_first_matching_rule_decides(policy: list[dict[str, Any]], service: str, task: str, is_allowed: bool) -> None:
    """Without one, a task is allowed; names are case-sensitive, actions are not."""
    assert make_policy(policy=policy).is_allowed(service, task) is is_allowed


@pytest.mark.parametrize(
    "task",
    [
        *("bearer_token_store", "bearer_token_list", "bearer_token_check", "bearer_token_", "Bearer_Token_delete"),
        *("bearer-token-list", "BEARER.TOKEN_x"),
    ],
)
def test_tasks_that_manage_tokens_are_never_published(task: str) -> None:
    """No rule allows them."""
    policy = [{"service": "nornir", "tasks": [task], "action": "allow"}]
    assert not make_policy(policy=policy).is_allowed("nornir", task)
    assert not make_policy().is_allowed("nornir", task)


@pytest.mark.parametrize(
    ("policy", "is_allowed"),
    [
        ([], False),
        ([{"service": "nornir", "tasks": ["run_shell_cmd"]}], True),
        ([{"service": "nornir", "tasks": ["cli", "run_shell_cmd", "*"]}], True),
        ([{"service": "*", "tasks": ["run_shell_cmd"]}], False),
        ([{"service": "nornir", "tasks": ["run_*"]}], False),
        ([{"service": "nornir"}], False),
        ([{"service": "nornir"}, {"service": "nornir", "tasks": ["run_shell_cmd"]}], False),
        ([{"service": "x"}, {"service": "nornir", "tasks": ["run_shell_cmd"]}], True),
        ([{"service": "nornir", "tasks": ["run_shell_cmd"], "action": "reject"}], False),
    ],
)
def test_shell_commands_are_published_only_by_exact_name(policy: list[dict[str, Any]], is_allowed: bool) -> None:
    """The first matching rule has the exact service and task, not a glob."""
    assert make_policy(policy=policy).is_allowed("nornir", "run_shell_cmd") is is_allowed


@pytest.mark.parametrize("task", ["Run_Shell_Cmd", "RUN_SHELL_CMD", "run-shell-cmd", "run.Shell_cmd"])
def test_no_spelling_of_the_shell_s_task_is_published_by_default(task: str) -> None:
    """A rule must name that very spelling."""
    allowed = [{"service": "nornir", "tasks": ["run_shell_cmd", "run*", "R*"]}]
    assert not make_policy().is_allowed("nornir", task)
    assert not make_policy(policy=allowed).is_allowed("nornir", task)
    assert make_policy(policy=[{"service": "nornir", "tasks": [task]}]).is_allowed("nornir", task)


def test_service_named_like_a_glob_gets_no_shell() -> None:
    """A rule for all services would otherwise name it."""
    policy = [{"service": "*", "tasks": ["run_shell_cmd"]}]
    assert not make_policy(policy=policy).is_allowed("*", "run_shell_cmd")


@pytest.mark.parametrize(
    ("policy", "is_published"),
    [
        ([], False),
        ([{"service": "n*", "tasks": ["job_details"]}], False),
        ([{"service": "net", "tasks": ["job_details"]}], True),
    ],
)
def test_job_details_of_a_service_with_tokens_are_published_only_by_exact_name(
    policy: list[Any], is_published: bool
) -> None:
    """NorFab's workers keep the arguments of all jobs, tokens among them."""
    catalogue = ToolCatalogue("w1", "fastmcp", [], make_policy(policy=policy))
    details, tokens = (
        {"name": name, "inputSchema": {"type": "object"}, "mcp": {}} for name in ("job_details", "bearer_token_store")
    )
    tool = "service_net__task_job_details"
    assert catalogue.replace("net", [details, tokens]) == ([tool] if is_published else [])
    assert catalogue.replace("other", [details]) == ["service_other__task_job_details"]
    assert catalogue.replace("net", [{**details, "name": "Job-Details"}, tokens]) == []
