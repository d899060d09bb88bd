"""Inventories as NorFab's users have them: read as they are, completed by the broker, or the worker doesn't start."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from nfcli import NorFab
from nfcli.models.environment.paths import Environment
from support.norfab.observers import mcp_client, ping, store_token
from support.norfab.processes import ReferenceProcess, inventory_text
from support.norfab.sites import FabricMaker
from support.programs import assert_one_line
from support.workers import NfcliRunner, WorkerRunner

WAIT_SECONDS = 30.0
LOCAL, REMOTE, FOREIGN, WRONG = "fastmcp-worker-1", "fastmcp-remote-1", "demo-remote-1", "fastmcp-wrong-1"
CHECK = ("fastmcp", "auth", "check-token", "token", "x")
PORT_VARIABLE = "NFCLI_TEST_PORT"

WORKERS_SECTION = """\
workers:
  "fastmcp-worker-?":
    - fastmcp/common.yaml
  nornir-*:
    - nornir/common.yaml
  fastmcp-worker-1:
    - fastmcp/fastmcp-worker-1.yaml
    - auth_bearer:
        required_scopes: [tools]
  nornir-worker-1:
    - nornir/nornir-worker-1.yaml
"""
OTHER_SECTIONS = """\
topology:
  broker: false
  workers_start_interval: 0.1
  workers:
    - nornir-worker-1
    - fastmcp-worker-1:
        depends_on: [nornir-worker-1]
    - filesharing-worker-1
logging:
  handlers:
    terminal: {level: CRITICAL}
client:
  agent_profiles:
    default: {llm: {provider: openai, model: gpt-4o}}
hooks:
  startup: [{function: "hooks:welcome", description: "Say hello"}]
plugins:
  greetings: {worker: "greetings:GreetingsWorker", nfcli: {mount_path: greetings, shell_model: "greetings:Shell"}}
"""
FILES = {
    "fastmcp/common.yaml": """\
service: fastmcp
host: 127.0.0.1
authentication_enabled: false
max_concurrent_jobs: 5
watchdog_interval: 30
memory_threshold_mbyte: 1000
auth_bearer:
  token_ttl: 3600
  required_scopes: [read]
""",
    "fastmcp/fastmcp-worker-1.yaml": """\
port: {{ env.get("NFCLI_TEST_PORT") }}
authentication_enabled: true
auth_bearer:
  token_ttl: 600
""",
    "nornir/common.yaml": "service: nornir\nwatchdog_interval: 30\nrunner: {plugin: RetryRunner}\n",
    "nornir/nornir-worker-1.yaml": "hosts:\n  {% for n in [1, 2] %}\n  r{{ n }}: {}\n  {% endfor %}\n",
}


def write_files(folder: Path, sections: str) -> Path:
    """Write an inventory of several files into a folder; return the main one."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    file = folder / "inventory.yaml"
    file.write_text(sections, encoding="utf-8")
    return file


def broker_section(fabric: Any, *, has_key: bool = True) -> str:
    """Return the section `broker`, with the public key or without."""
    return inventory_text({"endpoint": fabric.endpoint} | ({"shared_key": fabric.shared_key} if has_key else {}))


@pytest.fixture(scope="module")
def remote_settings() -> dict[str, Any]:
    """What only the broker knows of a worker."""
    return {
        "service": "fastmcp",
        "host": "127.0.0.1",
        "port": free_port(),
        "authentication_enabled": True,
        "auth_bearer": {"token_ttl": 86_400},
        "max_concurrent_jobs": 5,
    }


@pytest.fixture(scope="module")
def site(new_fabric: FabricMaker, remote_settings: dict[str, Any]) -> Iterator[Any]:
    """Run a broker whose inventory has workers that run elsewhere, and all that `WORKERS_SECTION` says."""
    wrong = {**remote_settings, "port": free_port(), "allow_everybody": True}
    with new_fabric({REMOTE: remote_settings, FOREIGN: {"service": "demo"}, WRONG: wrong}, tcp=True) as fabric:
        inventory = json.loads((fabric.folder / "inventory.yaml").read_text(encoding="utf-8"))
        inventory["workers"] |= yaml.safe_load(WORKERS_SECTION)["workers"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(PORT_VARIABLE, str(free_port()))
            write_files(fabric.folder, inventory_text(inventory))
            fabric.start()
            yield fabric


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def is_served(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


Elsewhere = Callable[..., Environment]


@pytest.fixture(scope="module")
def elsewhere(site: Any, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """Make environments on other machines, as it were: they know the broker and which workers run there."""

    def make(*workers: str, **broker: Any) -> Environment:
        folder = tmp_path_factory.mktemp("elsewhere")
        inventory = {"broker": {**site.join_inventory, **broker}, "topology": {"broker": False, "workers": workers}}
        (folder / "inventory.yaml").write_text(inventory_text(inventory), encoding="utf-8")
        return Environment(folder, folder / "inventory.yaml")

    return make


def configuration(environment: Environment, name: str) -> dict[str, Any]:
    """Ask a worker how it is configured."""
    norfab = NorFab(environment.inventory_file)
    try:
        (result,) = norfab.make_client().run_job("fastmcp", "get_inventory", workers=name).values()
    finally:
        norfab.destroy()
    assert result["errors"] == []
    value: dict[str, Any] = result["result"]
    return value


def assert_configured_as_the_broker_says(site: Any, name: str, ours: dict[str, Any]) -> None:
    """Fail unless each key that the reference has of a worker is ours, but for those of its own job engine."""
    theirs = site.client.call("mmi", service="sid", task="get_inventory", name=name)["results"]
    engine = {"max_concurrent_jobs", "watchdog_interval", "memory_threshold_mbyte"}
    assert theirs.keys() & engine
    auth = theirs.pop("auth_bearer")
    assert {key: ours[key] for key in theirs.keys() - engine} == {key: theirs[key] for key in theirs.keys() - engine}
    assert {key: ours["auth_bearer"][key] for key in auth} == auth


# Local inventories


def test_an_inventory_of_norfabs_is_merged_as_norfab_merges_it(
    site: Any, tmp_path: Path, running_worker: WorkerRunner, nfcli: NfcliRunner
) -> None:
    """Globs, files and inline mappings, variables, and keys that concern NorFab alone; other services are named."""
    file = write_files(tmp_path, f"broker: {broker_section(site)}\n{WORKERS_SECTION}{OTHER_SECTIONS}")
    environment = Environment(tmp_path, file)
    store_token(environment, LOCAL)
    with running_worker(environment, LOCAL) as worker, mcp_client(worker.url) as mcp:
        ours = configuration(environment, LOCAL)
        assert_configured_as_the_broker_says(site, LOCAL, ours)
        assert ours["auth_bearer"]["required_scopes"] == ["read", "tools"]
        assert ping(worker.url, None) == 401
        mcp.assert_served()
        done = nfcli(*CHECK, "workers", LOCAL, environment=environment)
    assert (done.returncode, json.loads(done.stdout)) == (0, {LOCAL: False})
    first, second = done.stderr.splitlines(keepends=True)
    assert_one_line(first, "worker nornir-worker-1", "service nornir")
    assert_one_line(second, "worker filesharing-worker-1", "service filesharing")


@pytest.mark.parametrize("broker", ["site", "fabric"], ids=["tcp", "ipc"])
@pytest.mark.parametrize("place", ["shared_key", "broker", "worker/w1", "client/somebody"])
def test_the_brokers_key_is_found_where_norfab_has_it(
    request: pytest.FixtureRequest, broker: str, place: str, tmp_path: Path
) -> None:
    """In the inventory, in the broker's own folder, or where NorFab's workers and clients keep their copies."""
    fabric = request.getfixturevalue(broker)
    file = tmp_path / "inventory.yaml"
    file.write_text(f"broker: {broker_section(fabric, has_key=place == 'shared_key')}\n", encoding="utf-8")
    files = Path("__norfab__") / "files"
    if place != "shared_key":
        copy = tmp_path / files / place / "public_keys" / "broker.key"
        copy.parent.mkdir(parents=True)
        shutil.copyfile(fabric.folder / files / "broker" / "public_keys" / "broker.key", copy)
    norfab = NorFab(file)
    try:
        assert norfab.make_client().show_broker()["endpoint"] == fabric.endpoint
    finally:
        norfab.destroy()


def test_a_worker_of_ours_takes_the_place_of_norfabs_own(
    site: Any, tmp_path: Path, reference_python: str, running_worker: WorkerRunner
) -> None:
    """In the folder that NorFab's worker ran in, with its inventory, and with the broker's key that it left there."""
    worker = {"service": "fastmcp", "host": "127.0.0.1", "port": 0, "authentication_enabled": True}
    name = "fastmcp-moved-1"
    sections = {"workers": {name: [worker]}, "topology": {"broker": False, "workers": [name]}}
    file = tmp_path / "inventory.yaml"
    file.write_text(inventory_text({"broker": site.join_inventory, **sections}), encoding="utf-8")
    theirs = ReferenceProcess(reference_python, tmp_path, name)
    try:
        theirs.await_ready()
        site.await_workers(name)
    finally:
        theirs.stop()
    file.write_text(inventory_text({"broker": {"endpoint": site.endpoint}, **sections}), encoding="utf-8")
    environment = Environment(tmp_path, file)
    with running_worker(environment, name) as ours:
        assert configuration(environment, name)["authentication_enabled"] is True
        assert ping(ours.url, None) == 401
    left = tmp_path / "__norfab__" / "files" / "worker" / name / "public_keys" / "broker.key"
    assert site.shared_key in left.read_text(encoding="utf-8")


# Inventories that only the broker has


def test_a_worker_is_what_the_broker_says(
    site: Any, elsewhere: Elsewhere, remote_settings: dict[str, Any], running_worker: WorkerRunner
) -> None:
    """The local inventory has its name alone; host, port and authentication come from the broker."""
    environment = elsewhere(REMOTE)
    store_token(environment, REMOTE)
    with running_worker(environment, REMOTE) as worker, mcp_client(worker.url) as mcp:
        assert worker.url == f"http://127.0.0.1:{remote_settings['port']}/mcp"
        assert_configured_as_the_broker_says(site, REMOTE, configuration(environment, REMOTE))
        assert ping(worker.url, None) == 401
        mcp.assert_served()


def test_the_shell_starts_what_the_broker_knows(
    elsewhere: Elsewhere, remote_settings: dict[str, Any], nfcli: NfcliRunner
) -> None:
    """A worker of another service is left out and named."""
    done = nfcli("show", "fastmcp", "inventory", environment=elsewhere(FOREIGN, REMOTE))
    assert (done.returncode, list(json.loads(done.stdout))) == (0, [REMOTE])
    assert json.loads(done.stdout)[REMOTE]["port"] == remote_settings["port"]
    assert_one_line(done.stderr, f"worker {FOREIGN}", "service demo")
    assert not is_served(remote_settings["port"])


REFUSALS = {
    "unknown": "the broker at {endpoint} has no inventory of worker unknown: ",
    WRONG: f"the broker at {{endpoint}}: workers.{WRONG}.allow_everybody: ",
    "absent": "worker absent: its inventory is at the broker, and could not be fetched within 10 s: no broker ",
    "other-key": "worker other-key: its inventory is at the broker, and could not be fetched within 10 s: the hand",
}
NO_BROKER = {"absent": "no broker answered at ", "other-key": "the handshake with "}
"""What a shell says by itself, before it has workers started."""


@pytest.fixture(scope="module", autouse=True)
def refused(
    elsewhere: Elsewhere, nfcli: NfcliRunner
) -> Iterator[Mapping[tuple[str, str], Future[subprocess.CompletedProcess[str]]]]:
    """Start workers that can't have an inventory, each by itself and by the shell, ahead of time: some wait long."""
    brokers = {"absent": {"endpoint": f"tcp://127.0.0.1:{free_port()}"}, "other-key": {"shared_key": "0" * 40}}

    def start(environment: Environment, name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nfcli.worker", "--environment", str(environment.folder), "--name", name]
        return subprocess.run(command, capture_output=True, text=True, timeout=4 * WAIT_SECONDS, check=False)

    with ThreadPoolExecutor(2 * len(REFUSALS)) as pool:
        begun = {}
        for name in REFUSALS:
            environment = elsewhere(name, **brokers.get(name, {}))
            begun[name, "worker"] = pool.submit(start, environment, name)
            begun[name, "shell"] = pool.submit(nfcli, *CHECK, environment=environment)
        yield begun


@pytest.mark.parametrize("name", REFUSALS)
def test_a_worker_without_an_inventory_does_not_start(site: Any, refused: Any, name: str) -> None:
    """Where the reference serves anybody on all interfaces there is one line that says why, and nothing listens."""
    reason = REFUSALS[name].format(endpoint=site.endpoint)
    done = refused[name, "worker"].result()
    said = json.loads(done.stdout)
    assert (said["event"], said["exit_status"], done.returncode, done.stderr.count("\n")) == ("failed", 1, 1, 1)
    assert said["error"].startswith(reason)
    assert reason in done.stderr
    done = refused[name, "shell"].result()
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3 if name in NO_BROKER else 1, "", 1)
    assert done.stderr.startswith(NO_BROKER.get(name, f"worker {name} can't start: {reason}"))


def test_nothing_listens_where_a_wrong_inventory_says(site: Any, refused: Any) -> None:
    """Not even for a moment before it is refused: nothing of it is believed."""
    assert refused[WRONG, "worker"].result().returncode == 1
    port = site.client.call("mmi", service="sid", task="get_inventory", name=WRONG)["results"]["port"]
    assert not is_served(port)
