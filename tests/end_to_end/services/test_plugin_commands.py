"""A plugin's tasks as commands: on one command line, in scripts, and at the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.programs import TerminalStarter
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner

PLUGIN = '''
from typing import Annotated, Literal

from pydantic import Field

from nfcli import TaskInput, ToolHints, WorkerContext, task


class Greeting(TaskInput):
    name: Annotated[str, Field(description="Whom to greet")]
    mood: Literal["glad", "grave"] = "glad"
    password: str = ""


@task(arguments=Greeting, result=dict, mcp=ToolHints(read_only=True))
def greet(worker: WorkerContext, arguments: Greeting) -> dict:
    """Greet somebody."""
    return arguments.model_dump(exclude_unset=True)


@task(result=bool, mcp=ToolHints(destructive=True))
def wipe(worker: WorkerContext, arguments: TaskInput) -> bool:
    """Destroy something."""
    return True


class CountDown(TaskInput):
    """Count down to zero."""

    start: Annotated[int, Field(description="Where to begin", ge=0)] = 3

    def run(self, worker: WorkerContext) -> dict:
        return {"count": [*range(self.start, -1, -1)], "uuid": bool(worker.uuid)}


commands = [CountDown]
'''


def shown(value: object) -> str:
    """Return what is printed of a worker's value."""
    return json.dumps({DEFAULT_WORKER: value}, indent=4) + "\n"


@pytest.fixture(scope="module")
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make an environment with a plugin."""
    environment = environment_factory(plugins=["lab_tasks"])
    (environment.folder / "lab_tasks.py").write_text(PLUGIN, encoding="utf-8")
    return environment


@pytest.fixture(scope="module", autouse=True)
def _worker(environment: Environment, running_worker: WorkerRunner) -> Iterator[RunningWorker]:
    """Run its worker."""
    with running_worker(environment) as worker:
        yield worker


def test_one_command_line(environment: Environment, nfcli: NfcliRunner, tmp_path: Path) -> None:
    """With its values, a file's text, the manual's tree, and what is wrong."""
    (tmp_path / "name").write_text("Ann\n")
    run = ("run", "fastmcp", "greet")
    done = nfcli(*run, "name", f"@{tmp_path}/name", "mood", "grave", environment=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, shown({"name": "Ann\n", "mood": "grave"}), "")
    done = nfcli(*run, "mood", "gra", environment=environment)
    problem = "greet: name: field required; mood: must be 'glad' or 'grave', got 'gra'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", problem)
    done = nfcli("man", "tree", "run.fastmcp.greet", environment=environment)
    assert done.stdout.splitlines()[-3:] == [
        "            ├── *name:    Whom to greet",
        "            ├── mood:    Mood, default 'glad'",
        "            └── password:    Password",
    ]


def test_commands_that_a_plugin_brings(environment: Environment, nfcli: NfcliRunner) -> None:
    """Below the plugin's name, checked as all others; the worker knows the defaults."""
    run = ("run", "fastmcp", "lab_tasks", "count-down")
    done = nfcli(*run, environment=environment)
    assert (done.returncode, done.stdout) == (0, shown({"count": [3, 2, 1, 0], "uuid": True}))
    done = nfcli(*run, "start", "-1", environment=environment)
    assert (done.returncode, done.stderr) == (2, "count_down: start: must be 0 or more, got '-1'\n")
    done = nfcli("man", "tree", "run.fastmcp.lab-tasks", environment=environment)
    assert done.stdout.splitlines()[2:] == [
        "    └── fastmcp:    1 worker",
        "        └── lab_tasks:    Commands of the plugin lab_tasks",
        "            └── count_down:    Count down to zero.",
        "                ├── timeout:    Job timeout",
        "                ├── workers:    Filter worker to target, default 'all'",
        "                └── start:    Where to begin, default '3'",
    ]
    script = "service fastmcp\nlab-tasks\ncount_down start 0\n"
    done = nfcli(environment=environment, stdin=script)
    assert (done.stdout, done.returncode) == (shown({"count": [0], "uuid": True}), 0)


def test_a_script(environment: Environment, nfcli: NfcliRunner) -> None:
    """A secret from the next line, a subshell, and a yes for what may destroy something."""
    script = "run fastmcp greet name a password -\nhunter2\nservice fastmcp\nwipe\nwipe yes\n"
    done = nfcli(environment=environment, stdin=script)
    assert done.stdout == shown({"name": "a", "password": "hunter2"}) + shown(True)
    assert done.stderr == "line 4: wipe: this task may destroy something: add yes to run it where nobody can be asked\n"
    assert done.returncode == 2


@pytest.mark.slow
def test_at_the_terminal(environment: Environment, open_terminal: TerminalStarter) -> None:
    """Tab, a question, a text of several lines, a subshell; the history keeps no secret."""
    terminal = open_terminal(environment=environment)
    terminal.wait_for_prompt()
    assert terminal.run("run fastmcp greet name a") == shown({"name": "a"})
    terminal.child.send("run fastmcp gre\tname b mood gra\t\r")
    assert terminal.printed() == shown({"name": "b", "mood": "grave"})
    for answer, status in (("y", shown(True)), ("n", "not confirmed, nothing was sent\n")):
        terminal.child.sendline("run fastmcp wipe")
        terminal.child.expect_exact("run it on all workers of fastmcp? [y/N]")
        terminal.child.sendline(answer)
        terminal.child.expect_exact(status.replace("\n", "\r\n"))
        terminal.child.expect_exact("nf#")
    terminal.child.sendline("run fastmcp greet name load-terminal")
    terminal.child.expect_exact("end with Ctrl-D on an empty line")
    terminal.child.sendline("one")
    terminal.child.sendline("two")
    terminal.child.sendeof()
    terminal.child.expect_exact('"name": "one\\ntwo\\n"')
    terminal.child.expect_exact("nf#")
    terminal.child.sendline("service fastmcp")
    terminal.child.expect_exact("nf[fastmcp]#")
    terminal.child.sendline("greet name c password hunter2")
    terminal.child.expect_exact('"password": "hunter2"')
    terminal.child.expect_exact("nf[fastmcp]#")
    terminal.child.sendline("exit")
    terminal.child.expect_exact("nf#")
    assert terminal.leave() == 0
    history = environment.history_file.read_text()
    assert "greet name c password ***" in history
    assert "hunter2" not in history
