"""Rules of an inventory about the tools of NorFab's services: what is listed, what can be called, what leaves."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from support.norfab.mcp_site import BRISK, OPEN, RULED, in_both_eras
from support.norfab.sites import EnvironmentJoiner
from support.own_tools import OWN_TASKS

DEMO = ["demo-worker-1", "demo-worker-2"]


@pytest.fixture
def ruled(tool_site: Any) -> Any:
    """Take the worker whose inventory has rules."""
    return tool_site.workers[RULED]


def _same(text: str) -> dict[str, Any]:
    return {name: {"text": text, "worker": name} for name in DEMO}


@in_both_eras
def test_the_first_rule_that_fits_says_what_is_listed(ruled: Any, era: str) -> None:
    """Neither what its task keeps to itself, nor what manages tokens, nor by a glob what runs commands."""
    assert ruled.tools("demo", era).keys() == {"say", "advise", "get_worker_status", "get_logs"}
    assert ruled.tools("filesharing", era).keys() == {"list_files"}
    assert ruled.tools("fastmcp", era).keys() == set(OWN_TASKS)


@in_both_eras
@pytest.mark.parametrize(
    ("service", "task"),
    [
        ("demo", "get_stats"),
        ("demo", "stumble"),
        ("demo", "hide"),
        ("demo", "bearer_token_show"),
        ("demo", "run_shell_cmd"),
        ("filesharing", "walk"),
        ("filesharing", "run_shell_cmd"),
        ("fastmcp", "bearer_token_store"),
        ("fastmcp", "bearer_token_list"),
    ],
)
def test_what_is_not_listed_is_not_called(ruled: Any, tool_site: Any, era: str, service: str, task: str) -> None:
    """Whoever knows its name gets no further, and no worker hears of it."""
    others = [other for other in ("demo", "filesharing") if other == service]
    before = [tool_site.jobs(other) for other in others]
    name = f"service_{service}__task_{task}"
    refusal = ruled.refusal("tools/call", {"name": name, "arguments": {}}, era)
    assert refusal["message"].startswith(f"unknown tool '{name}'")
    assert [tool_site.jobs(other) for other in others] == before


@in_both_eras
def test_what_runs_commands_is_a_tool_where_a_rule_names_it(tool_site: Any, era: str) -> None:
    """Service and task as they are; what keeps itself from MCP clients isn't, whatever the rules say."""
    brisk = tool_site.workers[BRISK]
    assert "run_shell_cmd" in brisk.tools("demo", era)
    assert "run_shell_cmd" not in brisk.tools("filesharing", era)
    assert "run_shell_cmd" not in tool_site.workers[OPEN].tools("demo", era)
    assert "not run: id" in str(brisk.call("demo", "run_shell_cmd", era, command="id")["structuredContent"])


@in_both_eras
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"text": "a cUrse on you"}, "refused by a guardrail on text: be kind"),
        ({"text": "x", "times": 100}, "refused by a guardrail on times: not allowed"),
        ({"text": "x", "times": 1000.0}, "refused by a guardrail on times: not allowed"),
    ],
)
def test_the_inventorys_guardrails_refuse_calls(ruled: Any, era: str, arguments: dict[str, Any], expected: str) -> None:
    """In one line, and without a job."""
    found = ruled.call("demo", "say", era, **arguments)
    assert (found["isError"], [part["text"] for part in found["content"]]) == (True, [expected])
    assert "structuredContent" not in found


@in_both_eras
def test_other_calls_and_other_workers_pass(ruled: Any, tool_site: Any, era: str) -> None:
    """A rule is for the inventory it stands in."""
    assert ruled.values("demo", "say", era, text="bless you", times=2) == _same("bless youbless you")
    assert tool_site.workers[OPEN].values("demo", "say", era, text="curse") == _same("curse")


@in_both_eras
def test_the_inventorys_guardrails_act_on_results(ruled: Any, tool_site: Any, era: str) -> None:
    """They replace, withhold and leave out; each worker keeps its place."""
    text = "it is key-1234"
    assert ruled.values("demo", "say", era, text=text) == _same("it is key-1***")
    assert tool_site.workers[OPEN].values("demo", "say", era, text=text) == _same(text)
    withheld = ruled.values("demo", "say", era, text="classified key-1234")
    assert withheld == dict.fromkeys(DEMO, "withheld by a guardrail: result.text")
    left_out = ruled.values("demo", "say", era, text="x" * 99, times=99)
    assert list(left_out) == list(DEMO)
    for text in left_out.values():
        size, limit = map(int, re.findall(r"\b\d{5,}\b", text))
        assert "service_demo__task_say" in text
        assert size > limit == 20_000


@in_both_eras
def test_guardrails_of_the_task_itself_apply(tool_site: Any, era: str) -> None:
    """Those that refuse calls and those that act on results."""
    worker = tool_site.workers[OPEN]
    assert worker.failure("demo", "advise", era, topic="Gossip!") == "refused by a guardrail on topic: no gossip"
    expected = "refused by a guardrail on lines: nothing is removed"
    assert worker.failure("demo", "advise", era, topic="x", lines=["ls", "rm -r ."]) == expected
    advice = worker.values("demo", "advise", era, topic="x", lines=["my pass-123"])
    assert advice == {name: {"topic": "x", "advice": ["my ***"]} for name in DEMO}
    assert worker.values("demo", "advise", era, topic="x", lines=["forbidden"]) == dict.fromkeys(DEMO, "withheld")
    assert worker.values("demo", "advise", era, topic="x" * 20_000) == dict.fromkeys(DEMO, "too long")


@in_both_eras
def test_guardrails_of_the_task_itself_can_be_left_out(ruled: Any, era: str) -> None:
    """`disable_builtin_guardrails` leaves those of the inventory in place."""
    lines = ["rm -r .", "my pass-123", "forbidden"]
    advice = ruled.values("demo", "advise", era, topic="gossip", lines=lines)
    assert advice == {name: {"topic": "gossip", "advice": lines} for name in DEMO}


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        (
            {"policy": [{"service": "demo", "action": "perhaps"}]},
            "tools.policy[0].action: must be 'allow' or 'reject', got 'perhaps'",
        ),
        (
            {"guardrails": [{"service": "demo", "task": "say", "field": "text", "type": "regex", "match": "("}]},
            "tools.guardrails[0].match: text 1 must be a regular expression",
        ),
    ],
)
def test_invalid_rules_stop_the_start(
    joined_environment: EnvironmentJoiner, tool_site: Any, tools: dict[str, Any], expected: str
) -> None:
    """One line names file and key, and nothing has joined."""
    environment = joined_environment(tool_site.fabric, "wrong-worker", tools=tools)
    command = [sys.executable, "-m", "nfcli.worker", "--environment", str(environment.folder), "--name", "wrong-worker"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert f"{environment.inventory_file}: workers.wrong-worker" in ran.stderr
    assert expected in ran.stderr
    assert "wrong-worker" not in {row["name"] for row in tool_site.fabric.show_workers()}
