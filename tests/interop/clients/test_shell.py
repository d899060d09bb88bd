"""Our shell on a fabric of the reference's: what it shows of tools, prompts, rules, workers and broker; long jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nfcli import NorFab
from nfcli.models.environment.paths import Environment
from support.norfab.mcp_site import BRISK, OPEN, RULED
from support.norfab.sites import Gate
from support.workers import NfcliRunner

THEIRS = "norfab-worker-1"
DEMO = ["demo-worker-1", "demo-worker-2"]
ADVISE = "service_demo__task_advise"


@pytest.fixture
def show(tool_site: Any, nfcli: NfcliRunner) -> Any:
    """Return what runs a command of `show`, which must succeed, and returns its output."""

    def run(words: str) -> str:
        ran = nfcli("show", *words.split(), environment=tool_site.environment)
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    return run


def _table(text: str) -> list[list[str]]:
    """Return the cells of a table, as far as two blanks part them."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_tools_are_a_table_of_names_and_summaries(show: Any) -> None:
    """A line each, however long the description is; of one service, of names that a glob fits."""
    heading, *rows = _table(show(f"fastmcp tools service demo workers {OPEN}"))
    assert heading == ["worker", "name", "description"]
    assert [OPEN, "service_demo__task_say", "Say something, as often as wanted."] in rows
    stats = [row for row in rows if row[1].endswith("_get_stats")]
    assert stats == [[OPEN, "service_demo__task_get_stats", "Return process monitoring and retained job counts."]]
    assert len(rows) == len({row[1] for row in rows}) == 15
    assert _table(show(f"fastmcp tools name *__task_say workers {OPEN},{RULED},{BRISK}"))[1:] == [
        [name, "service_demo__task_say", "Say something, as often as wanted."] for name in sorted((OPEN, RULED, BRISK))
    ]


def test_tools_are_names_alone_or_with_all_that_clients_see(show: Any, tool_site: Any) -> None:
    """`brief`, and `| json`."""
    listed = json.loads(show(f"fastmcp tools brief service demo workers {RULED}"))[RULED]
    assert listed == [f"service_demo__task_{name}" for name in ("advise", "get_logs", "get_worker_status", "say")]
    [tool_row] = json.loads(show(f"fastmcp tools name *_say workers {OPEN} | json"))
    tool = tool_site.workers[OPEN].tools("demo")["say"]
    assert {key: tool_row[key] for key in ("inputSchema", "outputSchema", "annotations", "description")} == {
        key: tool[key] for key in ("inputSchema", "outputSchema", "annotations", "description")
    }


def test_prompts_are_shown(show: Any) -> None:
    """As the tools are."""
    row = [OPEN, f"{ADVISE}__prompt_ask_advice", "Ask for advice on a topic"]
    assert _table(show(f"fastmcp prompts workers {OPEN}")) == [["worker", "name", "description"], row]
    assert json.loads(show(f"fastmcp prompts brief service demo workers {OPEN}")) == {OPEN: row[1:2]}
    assert _table(show(f"fastmcp prompts service filesharing workers {OPEN}")) == [["worker", "name", "description"]]


def test_guardrails_are_shown_whoever_made_them(show: Any) -> None:
    """Those of the task, and those of the inventory, in the order in which they act."""
    heading, *rows = _table(show(f"fastmcp guardrails workers {OPEN},{RULED}"))
    assert heading == ["worker", "tool", "kind", "field", "type", "match", "message"]
    say = "service_demo__task_say"
    assert rows == [
        [OPEN, ADVISE, "guardrail", "topic", "contains", "gossip", "no gossip"],
        [OPEN, ADVISE, "guardrail", "lines", "regex", "^rm", "nothing is removed"],
        [OPEN, ADVISE, "result_guardrail", "replace", "pass-[0-9]+"],
        [OPEN, ADVISE, "result_guardrail", "regex", "forbidden", "withheld"],
        [OPEN, ADVISE, "result_guardrail", "limit", "too long"],
        [RULED, say, "guardrail", "text", "contains", "Curse", "be kind"],
        [RULED, say, "guardrail", "times", "regex", "^[0-9]{3,}$"],
        [RULED, say, "result_guardrail", "replace", r"key-(\d)\d+"],
        [RULED, say, "result_guardrail", "regex", "classified"],
        [RULED, say, "result_guardrail", "limit"],
    ]
    assert json.loads(show(f"fastmcp guardrails brief workers {RULED}")) == {RULED: [say]}


def test_workers_broker_and_client_of_the_fabric_are_shown(show: Any, tool_site: Any) -> None:
    """What the broker reports about all workers and itself, and how this client reaches it."""
    heading, *rows = _table(show("norfab workers"))
    assert heading == ["name", "service", "status", "uptime", "memory (MB)", "cpu (%)", "jobs", "holdtime"]
    assert [row[:3] for row in rows] == [
        ["brisk-worker", "fastmcp", "alive"],
        ["demo-worker-1", "demo", "alive"],
        ["demo-worker-2", "demo", "alive"],
        ["files-worker-1", "filesharing", "alive"],
        ["open-worker", "fastmcp", "alive"],
        ["ruled-worker", "fastmcp", "alive"],
    ]
    broker = json.loads(show("norfab broker"))
    assert (broker["status"], broker["endpoint"], broker["workers"], broker["services"]) == (
        "active",
        tool_site.fabric.endpoint,
        6,
        3,
    )
    assert broker["versions"]["norfab"] == "0.25.0"
    client = json.loads(show("norfab client"))
    assert (client["mode"], client["broker"], client["workers"]) == ("fabric", tool_site.fabric.endpoint, [])


def test_a_worker_of_norfabs_own_answers_the_same_commands(nfcli: NfcliRunner, client_environment: Environment) -> None:
    """Its tools and prompts, which it gives in another shape, are tables too."""
    for words in ("tools", "prompts"):
        ran = nfcli("show", "fastmcp", words, "workers", THEIRS, environment=client_environment)
        assert (ran.returncode, ran.stderr, _table(ran.stdout)[0]) == (0, "", ["worker", "name", "description"])


def test_a_long_job_reports_its_progress(tool_site: Any, gate: Gate) -> None:
    """Each worker's steps as it takes them, while the job runs."""
    said: list[tuple[str, str]] = []

    def report(worker: str, message: str) -> None:
        said.append((worker, message))
        gate.release_step()

    with NorFab(tool_site.environment.inventory_file) as norfab:
        client = norfab.make_client(on_progress=report)
        results = client.run_job("demo", "walk", kwargs={"steps": 2, "gate": str(gate.path)}, timeout=20)
    assert {name: result["result"] for name, result in results.items()} == dict.fromkeys(DEMO, 2)
    assert sorted(said) == [(name, f"step {step} of 2") for name in DEMO for step in (1, 2)]
