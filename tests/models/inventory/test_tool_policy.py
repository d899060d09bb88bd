"""The tools policy of an inventory: accepted rules, and mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from nfcli.models.errors import InventoryError
from nfcli.models.inventory.schema import Inventory
from nfcli.models.inventory.tool_policy import (
    DeclaredGuardrails,
    Guardrail,
    PolicyRule,
    ResultGuardrail,
    TaskGuardrail,
    TaskResultGuardrail,
    ToolsInventory,
)

Load = Callable[..., Inventory]

GUARDRAIL = {"service": "nornir", "task": "cli", "field": "commands", "type": "regex", "match": "^reload"}
RESULT_GUARDRAIL = {"service": "nornir", "task": "*", "type": "replace", "match": "(key )\\S+", "replace": "\\1-"}
NORFAB_TOOLS = """\
tools:
  disable_builtin_guardrails: false
  policy:
    - service: nornir
      tasks: ["get_*", cli]
    - service: nornir
      action: REJECT
  guardrails:
    - description: no reloads
      service: nornir
      task: cli
      field: commands
      type: regex
      match: ['(?im)^\\s*reload\\b', '^conf\\s+t']
      message: not by this way
    - {service: nornir, task: cli, field: plugin, type: equals, match: napalm}
  result_guardrails:
    - {service: "*", task: "*", type: limit, limit: 20000, message: too large}
    - {service: nornir, task: "*", type: replace, match: '(password )\\S+', replace: '\\1***'}
    - {service: nornir, task: cli, type: regex, match: [BEGIN PRIVATE], description: keys}
"""
TOOLS = ToolsInventory(
    policy=(
        PolicyRule(service="nornir", tasks=("get_*", "cli")),
        PolicyRule(service="nornir", action="reject"),
    ),
    guardrails=(
        Guardrail(
            description="no reloads",
            service="nornir",
            task="cli",
            field="commands",
            type="regex",
            match=(r"(?im)^\s*reload\b", r"^conf\s+t"),
            message="not by this way",
        ),
        Guardrail(service="nornir", task="cli", field="plugin", type="equals", match=("napalm",)),
    ),
    result_guardrails=(
        ResultGuardrail(service="*", task="*", type="limit", limit=20_000, message="too large"),
        ResultGuardrail(service="nornir", task="*", type="replace", match=(r"(password )\S+",), replace=r"\1***"),
        ResultGuardrail(service="nornir", task="cli", type="regex", match=("BEGIN PRIVATE",), description="keys"),
    ),
)


def write(tools: Any) -> str:
    """Return a worker's file with these tools."""
    return "service: fastmcp\n" + yaml.safe_dump({"tools": tools})


def test_norfab_tools_policy_is_loaded(inventory: Load) -> None:
    """A text stands for a list of one, actions are case-insensitive, and keys have defaults."""
    loaded = inventory(inventory__yaml="workers: {w1: [w1.yaml]}", w1__yaml=f"service: fastmcp\n{NORFAB_TOOLS}")
    assert loaded.workers["w1"].tools == TOOLS


@pytest.mark.parametrize(
    "tools", [None, {}, {"policy": None, "guardrails": None, "result_guardrails": None}, {"timeout": "600"}]
)
def test_missing_rules_are_empty(inventory: Load, tools: Any) -> None:
    """This includes keys without a value."""
    loaded = inventory(inventory__yaml="workers: {w1: [w1.yaml]}", w1__yaml=write(tools))
    assert loaded.workers["w1"].tools == ToolsInventory()
    assert ToolsInventory().timeout == 600


# "…" stands for the rule of a type, which the type's own test has in full
MISTAKES = [
    ([], "tools: …"),
    ({"polcy": []}, "tools.polcy: no such key, did you mean policy?"),
    ({"policy": "nornir"}, "tools.policy: must be a list of rules, got text"),
    ({"policy": [{}, "nornir"]}, "tools.policy[1]: …"),
    ({"policy": [{}] * 1001}, "tools.policy: must have at most 1000 rules, got 1001"),
    ({"policy": [{"action": "deny"}]}, "tools.policy[0].action: must be 'allow' or 'reject', got 'deny'"),
    ({"policy": [{"action": 1}]}, "tools.policy[0].action: must be 'allow' or 'reject', got 1"),
    ({"policy": [{"task": "cli"}]}, "tools.policy[0].task: no such key, did you mean tasks?"),
    ({"policy": [{"tasks": "cli"}]}, "tools.policy[0].tasks: must be a list of names or globs, got 'cli'"),
    ({"policy": [{"tasks": ["x"] * 1001}]}, "tools.policy[0].tasks: must have at most 1000 names, got 1001"),
    (
        {"policy": [{"tasks": ["a", 5]}]},
        "tools.policy[0].tasks[1]: …, got 5",
    ),
    ({"policy": [{"service": ""}]}, "tools.policy[0].service: must have 1 to 256 characters, got 0"),
    (
        {"guardrails": [{**GUARDRAIL, "type": "like"}]},
        "tools.guardrails[0].type: must be 'contains', 'equals' or 'regex'",
    ),
    ({"guardrails": [{**GUARDRAIL, "fild": "x"}]}, "tools.guardrails[0].fild: no such key, did you mean field?"),
    ({"guardrails": [GUARDRAIL, {"task": "x"}]}, "tools.guardrails[1].service: required key is missing (and 3 more)"),
    ({"guardrails": [{**GUARDRAIL, "field": ""}]}, "tools.guardrails[0].field: must have 1 to 256 characters, got 0"),
    (
        {"guardrails": [{**GUARDRAIL, "match": ["^a", "s3cret("]}]},
        (
            "tools.guardrails[0].match: text 2 must be a regular expression: "
            "missing ), unterminated subpattern at position 6"
        ),
    ),
    (
        {"guardrails": [{**GUARDRAIL, "match": "((((a{999}){999}){999}){999})"}]},
        ("tools.guardrails[0].match: text 1 must be a regular expression: …10000 items"),
    ),
    (
        {"guardrails": [{**GUARDRAIL, "match": 5}]},
        (
            "tools.guardrails[0].match: must be a text or a list of texts (in quotes, where YAML would read them as "
            "something else)"
        ),
    ),
    ({"guardrails": [{**GUARDRAIL, "match": []}]}, "tools.guardrails[0].match: must have 1 to 200 texts, got 0"),
    (
        {"guardrails": [{**GUARDRAIL, "match": ["a"] * 201}]},
        "tools.guardrails[0].match: must have 1 to 200 texts, got 201",
    ),
    (
        {"guardrails": [{**GUARDRAIL, "match": "a" * 2001}]},
        "tools.guardrails[0].match: text 1 must have at most 2000 characters, got 2001: split it",
    ),
    (
        {"guardrails": [{**GUARDRAIL, "message": "a" * 2001}]},
        "tools.guardrails[0].message: must have at most 2000 characters, got 2001",
    ),
    (
        {"result_guardrails": [{**RESULT_GUARDRAIL, "limit": 5}]},
        "tools.result_guardrails[0].limit: this key must not be given where type is replace",
    ),
    (
        {"result_guardrails": [{**RESULT_GUARDRAIL, "type": "regex"}]},
        "tools.result_guardrails[0].replace: this key must not be given where type is regex",
    ),
    (
        {"result_guardrails": [{"service": "a", "task": "b", "type": "limit"}]},
        "tools.result_guardrails[0].limit: this key must be given where type is limit",
    ),
    (
        {"result_guardrails": [{"service": "a", "task": "b", "type": "limit", "limit": 0}]},
        "tools.result_guardrails[0].limit: must be a whole number of bytes, 1 to 1000000000000, got 0",
    ),
    (
        {"result_guardrails": [{"service": "a", "task": "b", "type": "regex"}]},
        "tools.result_guardrails[0].match: this key must be given where type is regex",
    ),
    (
        {"result_guardrails": [{**RESULT_GUARDRAIL, "replace": "\\2"}]},
        (
            "tools.result_guardrails[0].replace: must be a replacement for text 1 of match: "
            "invalid group reference 2 at position 1"
        ),
    ),
    ({"timeout": 0}, "tools.timeout: …, got 0"),
    ({"timeout": 86_401}, "tools.timeout: …, got 86401"),
    (
        {"disable_builtin_guardrails": "maybe"},
        "tools.disable_builtin_guardrails: …, got 'maybe'",
    ),
]


@pytest.mark.parametrize(("tools", "message"), MISTAKES)
def test_mistake_is_reported_with_file_key_and_rule(tmp_path: Path, inventory: Load, tools: Any, message: str) -> None:
    """The error is one line, and doesn't quote patterns."""
    with pytest.raises(InventoryError) as caught:
        inventory(inventory__yaml="workers: {w1: [w1.yaml]}", w1__yaml=write(tools))
    assert re.match(re.escape(f"{tmp_path}/w1.yaml: {message}").replace("…", ".+"), str(caught.value))
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistake_in_merged_rules_is_reported_with_its_own_file(tmp_path: Path, inventory: Load) -> None:
    """Rules of a later file are appended to those of an earlier one."""
    with pytest.raises(InventoryError) as caught:
        inventory(
            inventory__yaml="workers: {w1: [w1.yaml, w2.yaml]}",
            w1__yaml=write({"policy": [{"service": "a"}]}),
            w2__yaml=write({"policy": [{"service": "b", "action": "x"}]}),
        )
    assert str(caught.value).startswith(f"{tmp_path}/w2.yaml: tools.policy[")


def test_guardrails_of_a_task_are_read_from_its_metadata() -> None:
    """They have no service and task; other keys are ignored."""
    own = {
        "annotations": {"title": "x"},
        "guardrails": [{"field": "commands", "type": "contains", "match": ["a", "b"]}],
        "result_guardrails": [{"type": "limit", "limit": 10}],
    }
    assert DeclaredGuardrails.model_validate(own) == DeclaredGuardrails(
        guardrails=(TaskGuardrail(field="commands", type="contains", match=("a", "b")),),
        result_guardrails=(TaskResultGuardrail(type="limit", limit=10),),
    )
    assert DeclaredGuardrails.model_validate({"guardrails": None}) == DeclaredGuardrails()


def test_size_of_declared_guardrails_is_checked_before_compilation() -> None:
    """Untrusted rules must not take long."""
    rules = [{"field": "a", "type": "regex", "match": ["(" * 1_000] * 21}]
    with pytest.raises(ValidationError, match="must have at most 20000 characters of match and replace, got 21000"):
        DeclaredGuardrails.model_validate({"guardrails": rules})
