"""What plugins of our workers reach in a fabric of NorFab's: other services, other workers of ours, shared files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nfcli import Client, NorFab
from nfcli.models.commands.filesharing import DeleteFetchedFiles
from nfcli.models.environment.paths import Environment
from support.mcp.served_worker import TOKEN
from support.norfab.mcp_site import McpWorker
from support.norfab.sites import EnvironmentJoiner, FabricMaker
from support.workers import WorkerRunner

OURS = ("reach-1", "reach-2")
DEMO, FILES = "demo-worker-1", "files-worker-1"
PLUGIN = '''
from nfcli import TaskInput, WorkerContext, task


class Call(TaskInput):
    of: str
    name: str
    arguments: dict = {}
    workers: str = "all"


@task(arguments=Call)
def call(worker: WorkerContext, arguments: Call) -> dict:
    """Run a task."""
    return worker.run_job(arguments.of, arguments.name, arguments.arguments, arguments.workers, timeout=20)


class File(TaskInput):
    url: str


@task(arguments=File)
def length(worker: WorkerContext, arguments: File) -> list:
    """Return where a shared file is, and its length."""
    path = worker.fetch_file(arguments.url)
    return [str(path), len(path.read_bytes())]


class Other(TaskInput):
    others: list[str]


@task(arguments=Other)
def around(worker: WorkerContext, arguments: Other) -> str:
    """Have the next worker do the same."""
    first, *others = arguments.others
    result = worker.run_job("fastmcp", "around", {"others": [*others, first]}, first)[first]
    return "; ".join(result["errors"]) or result["result"]
'''


@pytest.fixture(scope="module")
def fabric(new_fabric: FabricMaker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Run a broker, a worker of service demo and one of the file service."""
    shared = tmp_path_factory.mktemp("shared")
    (shared / "large").write_bytes(bytes(3_000_000))
    workers = {DEMO: {"service": "demo"}, FILES: {"service": "filesharing", "base_dir": str(shared)}}
    with new_fabric(workers) as fabric:
        fabric.start(*workers)
        yield fabric


@dataclass(frozen=True)
class Site:
    """Two workers of ours, by their names."""

    environments: dict[str, Environment]
    served: dict[str, McpWorker]


@pytest.fixture(scope="module")
def site(fabric: Any, joined_environment: EnvironmentJoiner, running_worker: WorkerRunner) -> Iterator[Site]:
    """Run two workers of ours with the plugin; the second one publishes its own tools alone."""
    policy = [{"service": "fastmcp"}, {"action": "reject"}]
    site = Site({}, {})
    with contextlib.ExitStack() as started:
        for name, tools in zip(OURS, ({}, {"policy": policy}), strict=True):
            environment = joined_environment(fabric, name, plugins=["reaching"], tools=tools)
            (environment.folder / "reaching.py").write_text(PLUGIN, encoding="utf-8")
            site.environments[name] = environment
            site.served[name] = McpWorker(started.enter_context(running_worker(environment, name)))
        fabric.await_workers(*OURS)
        yield site


@pytest.fixture(scope="module")
def client(fabric: Any, joined_environment: EnvironmentJoiner, site: Site) -> Iterator[Client]:
    """Connect a client, once the workers know the token of the MCP clients and the other services."""
    norfab = NorFab(inventory=joined_environment(fabric).inventory_file)
    client = norfab.make_client()
    record = {"username": "automation", "token": TOKEN}
    client.run_job("fastmcp", "bearer_token_store", kwargs=record, workers=[*OURS])
    site.served[OURS[0]].await_services({"fastmcp", "demo", "filesharing"})
    yield client
    norfab.destroy()


def run(client: Client, task: str, **kwargs: Any) -> Any:
    """Run a task of the plugin on the first worker; return its result."""
    return client.run_job("fastmcp", task, kwargs=kwargs, workers=OURS[0])[OURS[0]]


def test_other_services_are_reached(client: Client) -> None:
    """NorFab's workers do what the plugin sends them."""
    result = run(client, "call", of="demo", name="say", arguments={"text": "hi", "times": 2})
    assert result["errors"] == []
    assert result["result"][DEMO]["failed"] is False
    assert "hi" in str(result["result"][DEMO]["result"])


def test_the_own_service_has_all_its_workers(client: Client) -> None:
    """This one and the other one."""
    result = run(client, "call", of="fastmcp", name="get_version")
    assert [*result["result"]] == [*OURS]
    assert not any(each["failed"] for each in result["result"].values())


def test_files_are_fetched_to_a_private_folder(client: Client, site: Site) -> None:
    """Of more parts than are requested at a time."""
    result = run(client, "length", url="nf://large")
    assert result["errors"] == []
    path = site.environments[OURS[0]].fetched_folder(OURS[0]) / "large"
    assert result["result"] == [str(path), 3_000_000]
    assert Path(path).stat().st_mode & 0o777 == 0o600
    failed = run(client, "length", url="nf://nowhere")
    assert failed["errors"] == ["'nf://nowhere' file not found"]


def test_tokens_are_not_reached(client: Client) -> None:
    """Neither here nor at the other worker, which refuses this one as well."""
    for workers in ("all", OURS[1]):
        result = run(client, "call", of="fastmcp", name="bearer_token_list", workers=workers)
        assert result["errors"] == [
            "task bearer_token_list is restricted: tasks of plugins can't run it, send the job from a client"
        ]


def test_a_circle_of_workers_comes_to_an_end(client: Client) -> None:
    """Each is another worker to the next, which reaches tools alone; the depth goes on with the job."""
    result = run(client, "around", others=[OURS[1], OURS[0]])
    assert result["result"] == "jobs of tasks are nested more than 5 deep: around probably leads to itself"


def test_a_command_deletes_what_workers_have_fetched(client: Client, site: Site) -> None:
    """Workers of both makes."""
    run(client, "length", url="nf://large")
    folder = site.environments[OURS[0]].fetched_folder(OURS[0])
    assert [path.name for path in folder.iterdir()] == ["large"]
    results = client.run_job(**DeleteFetchedFiles.parse({}).job())
    assert {name: result["errors"] for name, result in results.items()} == {name: [] for name in (*OURS, DEMO, FILES)}
    assert [*folder.iterdir()] == []


def test_mcp_clients_reach_the_tools_of_their_worker(client: Client, site: Site) -> None:
    """The second worker publishes none of demo, and its files; other clients reach them there too."""
    say = {"of": "demo", "name": "say", "arguments": {"text": "hi"}}
    assert DEMO in site.served[OURS[0]].values("fastmcp", "call", **say)[OURS[0]]
    refusal = site.served[OURS[1]].failure("fastmcp", "call", **say)
    assert f"task say of service demo is no tool that worker {OURS[1]} publishes" in refusal
    assert client.run_job("fastmcp", "call", kwargs=say, workers=OURS[1])[OURS[1]]["failed"] is False
    hide = {"of": "demo", "name": "hide"}
    assert "task hide of service demo is no tool" in site.served[OURS[0]].failure("fastmcp", "call", **hide)
    assert site.served[OURS[0]].values("fastmcp", "length", url="nf://large")[OURS[0]][1] == 3_000_000
    assert "task fetch_file of service filesharing is no tool" in site.served[OURS[1]].failure(
        "fastmcp", "length", url="nf://large"
    )
