"""Plugins in real workers: their tasks as jobs, in the manual, as MCP tools; those that stop the start."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from nfcli import Client, NorFab
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.own_tools import OWN_TASKS
from support.programs import ProgramStarter, assert_one_line
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner

pytestmark = pytest.mark.slow

TOKEN, SECONDS = "nfcli-token", 20.0
PREFIX = "service_fastmcp__task_"
PLUGIN = """\
import sys
from typing import Annotated

from pydantic import Field

from nfcli import TaskInput, ToolHints, WorkerContext, task

print("loaded")

class Whom(TaskInput):
    name: Annotated[str, Field(description="Whom to greet")]

@task(arguments=Whom, result=str, mcp=ToolHints(read_only=True, destructive=False))
def greet(worker: WorkerContext, arguments: Whom) -> str:
    '''Greet somebody by name.'''
    return f"hello {arguments.name}, from {worker.name}"

@task(result=int)
def count(worker: WorkerContext, arguments: TaskInput) -> int:
    for number in range(50_000):
        worker.progress(f"{number} counted")
    return number

@task(mcp=False)
def chat(worker: WorkerContext, arguments: TaskInput) -> None:
    print("x" * 1_000_000, flush=True)

@task
def run_shell_cmd(worker: WorkerContext, arguments: TaskInput) -> None:
    sys.exit("not here")
"""


@pytest.fixture(scope="module")
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make an environment with a plugin, and with files that only a search in the wrong order would import."""
    environment = environment_factory(plugins=["lab_tasks"])
    for name in ("mcp", "yaml", "uuid", "pydantic"):
        (environment.folder / f"{name}.py").write_text("raise SystemExit('imported from the wrong place')\n")
    (environment.folder / "lab_tasks.py").write_text(PLUGIN, encoding="utf-8")
    return environment


@pytest.fixture(scope="module")
def worker(environment: Environment, running_worker: WorkerRunner) -> Iterator[RunningWorker]:
    """Run its worker."""
    with running_worker(environment) as worker:
        yield worker


@pytest.fixture(scope="module")
def client(environment: Environment, worker: RunningWorker) -> Iterator[Client]:
    """Make a client of it, which has stored the token that MCP clients need."""
    assert worker.process.poll() is None
    with NorFab(environment.inventory_file) as norfab:
        client = norfab.make_client()
        client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "ann", "token": TOKEN})
        yield client


def run(client: Client, task: str, **kwargs: Any) -> Any:
    """Run a job; return its result or its errors."""
    result = client.run_job("fastmcp", task, kwargs=kwargs, timeout=SECONDS)[DEFAULT_WORKER]
    return result["errors"] if result["failed"] else result["result"]


def test_a_plugins_task_is_run_as_a_job(client: Client) -> None:
    """Its arguments are checked, and an exception is reported in one line."""
    assert run(client, "greet", name="ann") == f"hello ann, from {DEFAULT_WORKER}"
    assert run(client, "greet") == ["name: field required"]
    assert run(client, "run_shell_cmd") == ["internal error in task run_shell_cmd: SystemExit"]


def test_what_a_task_reports_on_the_way_does_no_harm(client: Client) -> None:
    """Clients that don't listen get the result; the worker has its other jobs done meanwhile."""
    assert [run(client, "count") for _ in range(3)] == [49_999] * 3


def test_what_a_plugin_prints_goes_nowhere_near_the_protocol(client: Client) -> None:
    """Nobody reads the worker's stdout any more: a task that prints a lot must not wait for ever."""
    assert [run(client, "chat") for _ in range(3)] == [None] * 3


def test_what_plugins_print_goes_to_the_foreground_s_stderr(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter
) -> None:
    """Of one worker and of several, which are forks of one process."""
    for names in ((), ("one", "two")):
        environment = environment_factory(*names, plugins=["lab_tasks"])
        (environment.folder / "lab_tasks.py").write_text(PLUGIN, encoding="utf-8")
        foreground = start_program("-w", environment=environment)
        foreground.wait_for(r"loaded\n(?s:.)* is ready ")
        foreground.process.terminate()
        assert foreground.end() == 0
        assert foreground.out == ""


@pytest.mark.usefixtures("worker")
def test_the_manual_has_a_plugins_task(environment: Environment, nfcli: NfcliRunner) -> None:
    """As it has every other."""
    done = nfcli("man", "tasks", "greet", environment=environment)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            *("greet", "    Greet somebody by name.", ""),
            *("arguments (* required)", "    *name  string  Whom to greet", ""),
            *("result", "    string or null  Value the task returned, null when it failed", ""),
            *("effect", "    only reads", ""),
            *("MCP tool", "    yes"),
        ],
    )


def test_a_plugins_task_is_an_mcp_tool_unless_it_says_no(worker: RunningWorker, client: Client) -> None:
    """Listed with its description and hints, called with its arguments; a task with `mcp=False` is no tool."""
    assert run(client, "greet", name="bob")

    async def use() -> tuple[list[Any], Any]:
        http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
        async with http, SdkClient(streamable_http_client(worker.url, http_client=http)) as sdk:
            return (await sdk.list_tools()).tools, await sdk.call_tool(f"{PREFIX}greet", {"name": "ann"})

    tools, called = asyncio.run(asyncio.wait_for(use(), SECONDS))
    found = {tool.name.removeprefix(PREFIX): tool for tool in tools}
    assert sorted(found) == sorted(["count", "greet", *OWN_TASKS])
    greet, count = found["greet"], found["count"]
    assert (greet.description, greet.annotations.title, greet.annotations.read_only_hint) == (
        *("Greet somebody by name.", "Greet"),
        True,
    )
    assert (count.annotations.read_only_hint, count.annotations.destructive_hint) == (False, True)
    assert (called.is_error, called.structured_content[DEFAULT_WORKER]["result"]) == (
        False,
        f"hello ann, from {DEFAULT_WORKER}",
    )


BROKEN = {
    "lab_raises": ("raise ValueError('no\\nlab')", "ValueError: no (line 1 of FILE)"),
    "lab_leaves": ("import sys\nsys.exit(0)", "SystemExit: 0 (line 2 of FILE)"),
    "lab_empty": ("print('hello')", "@task"),
}


@pytest.mark.parametrize("plugin", BROKEN)
@pytest.mark.parametrize("program", [pytest.param("one command", marks=pytest.mark.slow), "nfcli -w"])
def test_a_plugin_that_fails_stops_the_start_with_its_name_and_reason(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, plugin: str, program: str
) -> None:
    """One line, a status, and nothing left running."""
    environment = environment_factory(plugins=[plugin])
    source, reason = BROKEN[plugin]
    file = environment.folder / f"{plugin}.py"
    file.write_text(source, encoding="utf-8")
    words = ["-w"] if program == "nfcli -w" else ["show", "fastmcp", "status"]
    started = start_program(*words, environment=environment)
    assert started.end() == 1
    said = started.err.removeprefix("hello\n")  # what a plugin prints itself
    assert_one_line(said, f"worker {DEFAULT_WORKER}", f"plugin {plugin}", reason.replace("FILE", str(file)))
    assert list(environment.state_folder.glob("run/*.json")) == []


def test_a_check_reports_where_plugins_come_from_and_which_are_missing(
    environment_factory: EnvironmentFactory, nfcli: NfcliRunner
) -> None:
    """Without running any of them."""
    environment = environment_factory(plugins=["lab_there", "lab_missing.tasks"])
    file = environment.folder / "lab_there.py"
    file.write_text("import pathlib\npathlib.Path(__file__).with_name('was_run').touch()\n", encoding="utf-8")
    environment.prepare()
    done = nfcli("--check", environment=environment)
    lines = [line.partition(f"{DEFAULT_WORKER} plugins: ") for line in done.stdout.splitlines() if "plugins: " in line]
    assert done.returncode == 1
    assert [(head.strip(), str(file) in text, "lab_missing.tasks" in text) for head, _, text in lines] == [
        ("ok", True, False),
        ("FAULT", False, True),
    ]
    assert not file.with_name("was_run").exists()


def test_the_inventory_lists_its_plugins(client: Client) -> None:
    """`show fastmcp inventory` has them like every key."""
    assert run(client, "get_inventory")["plugins"] == ["lab_tasks"]
