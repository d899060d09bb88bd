"""The tools policy: which tasks may become tools, and who may use them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nfcli.models.inventory.tool_policy import PolicyRule, ToolsInventory
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolAccess, ToolPolicy, ToolUser


def make_policy(**tools: Any) -> ToolPolicy:
    """Return the policy of an inventory's `tools`."""
    return ToolPolicy(ToolsInventory.model_validate(tools))


def may_be_tool(policy: ToolPolicy, service: str, task: str) -> bool:
    """Return whether a policy lets anybody use a task as a tool."""
    return not policy.access(service, task).is_for_nobody


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
    assert may_be_tool(make_policy(policy=policy), service, task) is is_allowed


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
    assert not may_be_tool(make_policy(policy=policy), "nornir", task)
    assert not may_be_tool(make_policy(), "nornir", task)


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
    assert may_be_tool(make_policy(policy=policy), "nornir", "run_shell_cmd") is is_allowed


@pytest.mark.parametrize("task", ["Run_Shell_Cmd", "RUN_SHELL_CMD", "run-shell-cmd", "run.Shell_cmd"])
def test_no_spelling_of_the_shell_s_task_is_published_by_default(task: str) -> None:
    """A rule must name that very spelling."""
    allowed = [{"service": "nornir", "tasks": ["run_shell_cmd", "run*", "R*"]}]
    assert not may_be_tool(make_policy(), "nornir", task)
    assert not may_be_tool(make_policy(policy=allowed), "nornir", task)
    assert may_be_tool(make_policy(policy=[{"service": "nornir", "tasks": [task]}]), "nornir", task)


def test_service_named_like_a_glob_gets_no_shell() -> None:
    """A rule for all services would otherwise name it."""
    policy = [{"service": "*", "tasks": ["run_shell_cmd"]}]
    assert not may_be_tool(make_policy(policy=policy), "*", "run_shell_cmd")


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


RULES = [
    {"users": ["ops-*", "ann"], "tasks": ["cfg"]},
    {"scopes": ["write", "admin"], "tasks": ["cfg"]},
    {"users": ["guest"], "action": "reject"},
    {"tasks": ["cfg"], "action": "reject"},
]


def access(rules: list[dict[str, Any]], task: str, service: str = "nornir") -> ToolAccess:
    """Return who may use a task by these rules."""
    return ToolPolicy(ToolsInventory.model_validate({"policy": rules})).access(service, task)


@pytest.mark.parametrize(
    ("user", "scopes", "tasks"),
    [
        ("ann", [], ["cfg", "cli"]),
        ("ops-1", [], ["cfg", "cli"]),
        ("Ann", [], ["cli"]),
        ("annabel", [], ["cli"]),
        ("bob", ["admin"], ["cfg", "cli"]),
        ("bob", ["Admin", "read"], ["cli"]),
        ("guest", [], []),
        ("guest", ["write"], ["cfg"]),
        (None, [], ["cli"]),
    ],
)
def test_first_rule_that_applies_to_the_user_decides(user: str | None, scopes: list[str], tasks: list[str]) -> None:
    """Names are globs, scopes are not; a rule for users applies to nobody without authentication."""
    caller = None if user is None else ToolUser(user, frozenset(scopes))
    assert [task for task in ("cfg", "cli") if access(RULES, task).allows(caller)] == tasks


def test_rule_with_users_and_scopes_applies_where_both_do() -> None:
    """A rule may be for a user with a certain token."""
    found = access([{"users": ["ann"], "scopes": ["write"]}, {"action": "reject"}], "cfg")
    assert found.allows(ToolUser("ann", frozenset({"write"})))
    assert not found.allows(ToolUser("ann"))
    assert not found.allows(ToolUser("bob", frozenset({"write"})))


def test_task_that_no_rule_allows_to_anybody_is_no_tool() -> None:
    """Rules behind one for everybody have no effect."""
    assert access([{"action": "reject"}, {"users": ["ann"]}], "cfg").is_for_nobody
    assert not access([{"users": ["ann"]}, {"action": "reject"}], "cfg").is_for_nobody


@pytest.mark.parametrize(
    ("rule", "is_for_ann"),
    [
        ({"service": "nornir", "tasks": ["run_shell_cmd"], "users": ["ann"]}, True),
        ({"service": "nornir", "tasks": ["run_*"], "users": ["ann"]}, False),
        ({"users": ["ann"]}, False),
    ],
)
def test_rule_for_a_user_has_to_name_a_dangerous_task_too(rule: dict[str, Any], is_for_ann: bool) -> None:
    """Others may not use it."""
    found = access([rule], "run_shell_cmd")
    assert found.allows(ToolUser("ann")) is is_for_ann
    assert not found.allows(ToolUser("bob"))


def test_tasks_that_manage_tokens_are_for_nobody() -> None:
    """Whoever a rule names."""
    assert access([{"service": "nornir", "tasks": ["bearer_token_x"], "users": ["*"]}], "bearer_token_x").is_for_nobody


@pytest.mark.parametrize("key", ["users", "scopes"])
@pytest.mark.parametrize("value", [None, [], "ann", [""], [1]])
def test_rule_that_names_nobody_is_refused(key: str, value: Any) -> None:
    """An empty key would make it a rule for everybody."""
    with pytest.raises(ValidationError):
        PolicyRule.model_validate({key: value})
