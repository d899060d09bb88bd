"""What the interoperability tests share: the reference, NorFab, in processes of its own, and ours beside it.

The variable NFCLI_REFERENCE_PYTHON names a Python with the package norfab 0.25.0; without it these tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.curve_keys import read_public_key
from nfcli.models.environment.paths import Environment
from support.mcp.served_worker import TOKEN
from support.norfab.fabric import Fabric
from support.norfab.mcp_site import SERVICES, TOOLS, McpWorker, ToolSite
from support.norfab.peers import OurPeer, ReferencePeer
from support.norfab.processes import Reference, inventory_text
from support.norfab.sites import DirectSite, EnvironmentJoiner, FabricMaker, Gate, ToolSiteMaker
from support.workers import EnvironmentFactory, RunningWorker, WorkerRunner

OUR_WORKER = "fastmcp-worker-1"
THEIR_WORKER = "norfab-worker-1"
DEMO_WORKER = "demo-worker-1"
SETTINGS = {"service": "fastmcp", "host": "127.0.0.1", "port": 0, "authentication_enabled": True}


@pytest.fixture(scope="session")
def reference_python() -> str:
    """Return the Python that has the reference."""
    python = os.environ.get("NFCLI_REFERENCE_PYTHON")
    if not python:
        pytest.skip("NFCLI_REFERENCE_PYTHON names no Python with the reference")
    return python


@contextlib.contextmanager
def _drivers(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Mapping[str, Any]], Any]]:
    with contextlib.ExitStack() as started:

        def start(inventory: Mapping[str, Any]) -> Any:
            process = Reference(python, tmp_path_factory.mktemp("reference"), inventory)
            started.callback(process.stop)
            process.call("start")
            return process

        yield start


@pytest.fixture(scope="module")
def reference(
    reference_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Mapping[str, Any]], Any]]:
    """Start drivers of the reference, each with an inventory; they end with the module."""
    with _drivers(reference_python, tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="session")
def new_fabric(reference_python: str, tmp_path_factory: pytest.TempPathFactory) -> FabricMaker:
    """Make fabrics of the reference's, for tests that stop and start its processes."""

    @contextlib.contextmanager
    def make(
        workers: Mapping[str, Mapping[str, Any]], *, services: Mapping[str, str] | None = None, tcp: bool = False
    ) -> Iterator[Any]:
        # pytest's folders may be too long for a socket.
        socket_folder = Path(tempfile.mkdtemp(prefix="nf-"))
        folder = tmp_path_factory.mktemp("fabric")
        fabric = Fabric(reference_python, folder, None if tcp else socket_folder, workers, services or {})
        try:
            yield fabric
        finally:
            fabric.stop()
            shutil.rmtree(socket_folder)

    return make


@pytest.fixture(scope="session")
def fabric(new_fabric: FabricMaker) -> Iterator[Any]:
    """Run the fabric that most tests share: a broker, a worker of service fastmcp and one of service demo."""
    with new_fabric({THEIR_WORKER: SETTINGS, DEMO_WORKER: {"service": "demo"}}) as made:
        made.start(THEIR_WORKER, DEMO_WORKER)
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Make a gate; it goes with the test."""
    made = Gate(tmp_path / "gate")
    yield made
    made.remove()


@pytest.fixture(scope="session")
def joined_environment(environment_factory: EnvironmentFactory) -> EnvironmentJoiner:
    """Make environments whose inventory has a broker."""

    def make(fabric: Any, *names: str, **settings: Any) -> Environment:
        environment = environment_factory(*names, **settings)
        assert environment.inventory_file is not None
        inventory = json.loads(environment.inventory_file.read_text(encoding="utf-8")) if names else {}
        inventory["broker"] = fabric.join_inventory
        environment.inventory_file.write_text(inventory_text(inventory), encoding="utf-8")
        return environment

    return make


@pytest.fixture(scope="session")
def our_worker(
    fabric: Any, joined_environment: EnvironmentJoiner, running_worker: WorkerRunner
) -> Iterator[RunningWorker]:
    """Run a worker of ours on the shared fabric; wait until it has joined."""
    with running_worker(joined_environment(fabric, OUR_WORKER), OUR_WORKER) as worker:
        assert (worker.name, worker.endpoint) == (OUR_WORKER, fabric.endpoint)
        fabric.await_workers(OUR_WORKER)
        yield worker


@pytest.fixture(scope="session")
def client_environment(fabric: Any, joined_environment: EnvironmentJoiner) -> Environment:
    """Make an environment of ours on a machine with no workers, for clients of the shared fabric."""
    return joined_environment(fabric)


@pytest.fixture(scope="session")
def our_client(client_environment: Environment) -> Iterator[Client]:
    """Connect a client of ours to the shared fabric."""
    norfab = NorFab(inventory=client_environment.inventory_file)
    yield norfab.make_client()
    norfab.destroy()


@pytest.fixture(scope="session")
def our_peer(our_client: Client) -> Any:
    """Our client on the shared fabric, as the matrix sees clients."""
    return OurPeer(our_client)


@pytest.fixture(scope="session")
def their_peer(fabric: Any) -> Any:
    """The reference's client on the shared fabric, as the matrix sees clients."""
    return ReferencePeer(fabric.client)


@pytest.fixture(scope="session")
def new_tool_site(joined_environment: EnvironmentJoiner, running_worker: WorkerRunner) -> ToolSiteMaker:
    """Run workers whose MCP servers know a token, on fabrics that run."""

    @contextlib.contextmanager
    def make(fabric: Any, workers: Mapping[str, Mapping[str, Any]]) -> Iterator[Any]:
        with contextlib.ExitStack() as started:
            running = [
                started.enter_context(running_worker(joined_environment(fabric, name, **settings), name))
                for name, settings in workers.items()
            ]
            fabric.await_workers(*workers)
            environment = joined_environment(fabric)
            client = started.enter_context(NorFab(environment.inventory_file)).make_client()
            record = {"username": "automation", "token": TOKEN}
            stored = client.run_job("fastmcp", "bearer_token_store", kwargs=record, workers=list(workers))
            assert [result["result"] for result in stored.values()] == [True] * len(workers)
            served = {worker.name: McpWorker(worker) for worker in running}
            yield ToolSite(fabric, served, client, environment)

    return make


@pytest.fixture(scope="session")
def tool_site(
    new_fabric: FabricMaker, new_tool_site: ToolSiteMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Run two workers of service demo and one of NorFab's filesharing, and three of ours with rules of their own."""
    files = {"service": "filesharing", "base_dir": str(tmp_path_factory.mktemp("files"))}
    theirs = {"demo-worker-1": {"service": "demo"}, "demo-worker-2": {"service": "demo"}, "files-worker-1": files}
    with new_fabric(theirs) as fabric:
        fabric.start(*theirs)
        with new_tool_site(fabric, {name: {"tools": tools} for name, tools in TOOLS.items()}) as site:
            for name, services in SERVICES.items():
                site.workers[name].await_services(services)
            yield site


@pytest.fixture(scope="session")
def direct_site(
    reference_python: str,
    tmp_path_factory: pytest.TempPathFactory,
    environment_factory: EnvironmentFactory,
    running_worker: WorkerRunner,
) -> Iterator[DirectSite]:
    """Serve on a free TCP port and let one client of the reference's in."""
    environment = environment_factory(endpoint="tcp://127.0.0.1:0")
    with running_worker(environment) as worker, _drivers(reference_python, tmp_path_factory) as start:
        key = read_public_key(environment.keys_folder / f"{worker.name}.key").decode()
        inventory = {"broker": {"endpoint": worker.endpoint, "shared_key": key}, "topology": {"broker": False}}
        client = start(inventory)
        site = DirectSite(environment, worker, inventory, client, environment.clients_folder / "script.key")
        site.authorize("script", Path(client.call("make_key", name="script")))
        client.call("open_client", name="script")
        yield site
        client.call("close_client")


@pytest.fixture(scope="session")
def direct_peer(direct_site: DirectSite) -> Any:
    """The reference's client at our worker in its broker's place, as the matrix sees clients."""
    return ReferencePeer(direct_site.client)
