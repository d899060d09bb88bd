"""The reference's own shell shows our worker: each command of `show norfab`, `show fastmcp` and `norfab workers`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.norfab.sites import DirectSite, EnvironmentJoiner
from support.programs import Terminal
from support.workers import WorkerRunner

PROGRAM = Path(__file__).parents[2] / "support" / "norfab" / "reference" / "command_tree.py"
OURS = {"direct": "fastmcp-worker-1", "fabric": "fastmcp-shown-1"}
RULE = {"service": "*", "task": "*", "field": "text", "type": "contains", "match": ["curse"]}
BRANCHES = ("show norfab ", "show fastmcp ", "norfab workers ")

SHOWN = {
    "show norfab broker": "broker",
    "show norfab broker status": "security",
    "show norfab broker statistics": "worker_count",
    "show norfab broker version": "pyzmq",
    "show norfab broker inventory": "workers",
    "show norfab broker workers": "alive",
    "show norfab workers": "alive",
    "show norfab workers status": "public_keys_dir",
    "show norfab workers jobs summary": "get_worker_status",
    "show norfab workers jobs details": "starting",
    "show norfab workers statistics": "memory_rss_mbyte",
    "show norfab workers version": "pydantic",
    "show norfab client": "PICLE Shell",
    "show norfab client status": "PICLE Shell",
    "show norfab client statistics": "messaging",
    "show norfab client version": "picle",
    "show norfab client jobs": "get_worker_status",
    "show norfab client jobs statistics": "jobs_by_service",
    "show norfab client jobs database-statistics": "db_size_bytes",
    "show norfab logging": "ready at http://127.0.0.1:",
    "show norfab inventory": "topology",
    "show fastmcp inventory": "authentication_enabled",
    "show fastmcp version": "uvicorn",
    "show fastmcp status": "tools_count",
    "show fastmcp tools": "readOnlyHint",
    "show fastmcp guardrails": "curse",
    "show fastmcp prompts": "service_demo__task_advise__prompt_ask_advice",
    "norfab workers ping": "pong",
    "norfab workers run-shell-command": "unknown task 'run_shell_cmd'",
}
"""Each command, and something of what it has to show of our worker."""
ARGUMENTS = {
    "norfab workers run-shell-command": " command id",
    "show fastmcp tools": " name *get_status",
}
"""What else is typed behind some of them, besides the name of our worker where they take one."""
FABRIC_ONLY = {"show fastmcp guardrails", "show fastmcp prompts"}
"""The worker of direct mode has neither."""

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LEAD = re.compile(r"(?s).* Job Results ─+\n")
_UUID = re.compile(r"[0-9a-f]{32}")


@pytest.fixture(scope="module", params=["direct", "fabric"])
def terminal(request: pytest.FixtureRequest, reference_python: str) -> Iterator[Any]:
    """Start the reference's shell on each of the two ways to our worker; it has run one job there."""
    folder: Path = request.getfixturevalue(f"_{request.param}_folder")
    command = [str(Path(reference_python).with_name("nfcli")), "-i", str(folder / "inventory.yaml"), "-c"]
    # Wide enough for a row; without an answer to its questions about the cursor the prompt warns.
    terminal = Terminal(command, {"COLUMNS": "300", "PROMPT_TOOLKIT_NO_CPR": "1"}, None)
    try:
        terminal.wait_for_prompt()
        terminal.run(f"show norfab workers status workers {OURS[request.param]}")
        yield request.param, terminal
    finally:
        terminal.child.close(force=True)


@pytest.fixture(scope="module")
def _direct_folder(direct_site: DirectSite) -> Path:
    """Let the reference's shell in at our worker; return its base folder."""
    name = f"nfcli_{hashlib.sha256(os.fsencode(Path.cwd())).hexdigest()[:6]}_NFPClient"
    if not (direct_site.environment.clients_folder / f"{name}.key").exists():
        direct_site.authorize(name, Path(direct_site.client.call("make_key", name=name)))
    folder: Path = direct_site.client.folder
    return folder


@pytest.fixture(scope="module")
def _fabric_folder(fabric: Any, joined_environment: EnvironmentJoiner, running_worker: WorkerRunner) -> Iterator[Path]:
    """Run a worker with a guardrail that has found service demo; return the base folder of a client of its fabric."""
    name = OURS["fabric"]
    with running_worker(joined_environment(fabric, name, tools={"guardrails": [RULE]}), name):
        fabric.await_workers(name)
        found = fabric.client.call("run_job", service="fastmcp", task="discover", workers=[name])
        assert "demo" in found["result"][name]["result"], found
        yield fabric.client.folder


def test_every_command_of_these_branches_is_tried(reference_python: str, tmp_path: Path) -> None:
    """The list is that of the reference's own tree."""
    ran = subprocess.run([reference_python, PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    commands = {row["command"] for row in json.loads(ran.stdout)}
    assert {command for command in commands if command.startswith(BRANCHES)} == SHOWN.keys()


def _printed(shell: Any, line: str) -> str:
    text = _STYLE.sub("", shell.run(line))
    return _LEAD.sub("", text).strip()


@pytest.mark.parametrize("command", SHOWN)
def test_the_references_shell_shows_our_worker(terminal: Any, command: str) -> None:
    """It finds what it looks for in each answer; nothing is missing, and nothing fails."""
    way, shell = terminal
    line = command + ARGUMENTS.get(command, "")
    if command == "show norfab workers jobs details":
        line += f" uuid {_UUID.findall(_printed(shell, 'show norfab workers jobs summary workers ' + OURS[way]))[-1]}"
    if command.startswith(("show norfab workers ", "show fastmcp ", "norfab workers ")) and "version" not in command:
        line += f" workers {OURS[way]}"
    printed = _printed(shell, line)
    expected = "" if way == "direct" and command in FABRIC_ONLY else SHOWN[command]
    assert expected in printed, printed
    assert "Traceback" not in printed
    assert bool(printed) is bool(expected)
