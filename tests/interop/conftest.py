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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.curve_keys import read_public_key
from nfcli.models.environment.paths import Environment
from support.norfab.fabric import Fabric
from support.norfab.mcp_site import SERVICES, TOOLS, McpWorker, ToolSite
from support.norfab.peers import OurPeer, ReferencePeer
from support.norfab.processes import Reference, inventory_text
from support.served_worker import TOKEN

if TYPE_CHECKING:
    from conftest import EnvironmentFactory, RunningWorker, WorkerRunner


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


class FabricMaker(Protocol):
    """The type of the fixture `new_fabric`."""

    def __call__(
        self, workers: Mapping[str, Mapping[str, Any]], *, services: Mapping[str, str] | None = None, tcp: bool = False
    ) -> contextlib.AbstractContextManager[Any]:
        """Make a `fabric.Fabric`, of which nothing runs yet; the `with` block's end ends all that was started.

        `workers` and `services` are the class's; `tcp` has the broker listen on a free port instead of a socket file.
        """


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


class Gate:
    """What the task `walk` of service demo waits at after each step; `path` is its argument `gate`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        # Open for both, so that neither end waits for the other to come.
        self._pipe = os.open(path, os.O_RDWR)

    def let_one_through(self) -> None:
        """Let one step pass, the one that waits or the next to come."""
        os.write(self._pipe, b".")

    def remove(self) -> None:
        """Let pass who waits, and fail who comes later."""
        self.path.unlink()
        os.close(self._pipe)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Make a gate; it goes with the test."""
    made = Gate(tmp_path / "gate")
    yield made
    made.remove()


class EnvironmentJoiner(Protocol):
    """The type of the fixture `joined_environment`."""

    def __call__(self, fabric: Any, *names: str, **settings: Any) -> Environment:
        """Make an environment of ours that joins a fabric, with these workers, or for clients only without any.

        `settings` are further worker keys, or replace those of the fixture `environment_factory`.
        """


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


class ToolSiteMaker(Protocol):
    """The type of the fixture `new_tool_site`."""

    def __call__(self, fabric: Any, workers: Mapping[str, Mapping[str, Any]]) -> contextlib.AbstractContextManager[Any]:
        """Run workers of ours on a fabric for a `with` block, by their names and keys; yield a `mcp_site.ToolSite`."""


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


@dataclass(frozen=True)
class DirectSite:
    """A running worker of ours without a broker, and a client of the reference's that is let in.

    `inventory` is what the reference's inventory says to take the worker for its broker.
    """

    environment: Environment
    worker: RunningWorker
    inventory: dict[str, Any]
    client: Any
    key_file: Path

    def let_in(self, name: str, file: Path) -> Path:
        """Let the client in that has this public key; return where the file lies now."""
        key_file = self.environment.clients_folder / f"{name}.key"
        shutil.copyfile(file, key_file)
        key_file.chmod(0o600)
        return key_file


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
        site.let_in("script", Path(client.call("make_key", name="script")))
        client.call("open_client", name="script")
        yield site
        client.call("close_client")


@pytest.fixture(scope="session")
def direct_peer(direct_site: DirectSite) -> Any:
    """The reference's client at our worker in its broker's place, as the matrix sees clients."""
    return ReferencePeer(direct_site.client)
