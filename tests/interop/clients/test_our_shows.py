"""Our shell shows workers of both makes on one fabric: each command of `show …` and `norfab workers …`."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from support.programs import PROGRAM

OURS, THEIRS, DEMO = "fastmcp-worker-1", "norfab-worker-1", "demo-worker-1"
ALL = {OURS, THEIRS, DEMO}

COMMANDS = {
    "show norfab workers": ALL,
    "show norfab broker": {"NFPBroker"},
    "show norfab statistics": ALL,
    "show norfab version": {*ALL, "norfab"},
    "show norfab jobs last 100": ALL,
    "show norfab logging last 500": {OURS},
    "show norfab logging last 500 level info since 1d": {OURS},
    "show norfab client": {"fabric"},
    "show norfab inventory": {"topology"},
    "show fastmcp inventory": {OURS, THEIRS},
    "show fastmcp version": {OURS, THEIRS},
    "show fastmcp status": {OURS, THEIRS},
    "show fastmcp tools": {OURS, THEIRS, "service_fastmcp__task_get_status"},
    "show fastmcp tools brief": {OURS, THEIRS},
    "show fastmcp prompts": {"service_demo__task_advise__prompt_ask_advice"},
    "show fastmcp guardrails": {"guardrail"},
    "show fastmcp guardrails workers norfab-worker-1": {"kind"},
    "norfab workers ping": ALL,
    "norfab workers ping service demo": {DEMO},
}
"""Each command, and something of what it has to show."""


@pytest.fixture(scope="module")
def discovered(our_worker: Any, fabric: Any) -> None:  # noqa: ARG001
    """Have the workers of service fastmcp find service demo."""
    fabric.client.call("run_job", service="fastmcp", task="discover")


def run(environment: Environment, *words: str) -> tuple[int, str, str]:
    """Run the installed program; return its status and what it printed."""
    ran = subprocess.run(
        [PROGRAM, "-i", str(environment.inventory_file), *words], capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("discovered")
def test_our_shell_shows_workers_of_both_makes(client_environment: Environment, command: str) -> None:
    """It exits with 0, and has something of each."""
    status, out, err = run(client_environment, *command.split())
    assert (status, [word for word in sorted(COMMANDS[command]) if word not in out]) == (0, []), (out, err)
    assert "Traceback" not in err
    assert len(out.splitlines()) > 0


@pytest.mark.usefixtures("discovered")
def test_rows_of_both_makes_have_the_same_values(client_environment: Environment) -> None:
    """Uptime, memory, CPU usage and jobs; the newest job is the last one."""
    rows = json.loads(run(client_environment, "show", "norfab", "workers", "|", "json")[1])
    for row in rows:
        assert (row["status"], row["memory (MB)"] > 0, row["jobs"] > 0) == ("alive", True, True)
        assert row["uptime"].count(":") == 2
    jobs = json.loads(run(client_environment, "show", "norfab", "jobs", "|", "json")[1])
    assert [row["received"] for row in jobs] == sorted(row["received"] for row in jobs)
    uuid = next(row["uuid"] for row in jobs if row["worker"] == THEIRS)
    status, out, _ = run(client_environment, "show", "norfab", "jobs", "uuid", uuid)
    assert (status, json.loads(out)[THEIRS]["uuid"]) == (0, uuid)


def test_workers_that_do_not_answer_a_ping_are_failures(client_environment: Environment, our_worker: Any) -> None:  # noqa: ARG001
    """Each says why."""
    status, out, err = run(client_environment, "norfab", "workers", "ping", "raise-error", "boom")
    assert (status, out) == (1, "")
    assert err.splitlines() == [f"{DEMO}: RuntimeError: boom", f"{OURS}: boom", f"{THEIRS}: RuntimeError: boom"]
