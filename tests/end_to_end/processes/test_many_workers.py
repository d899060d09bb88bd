"""Many workers of one environment: forked from one process that has loaded their modules."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli import NorFab
from nfcli.models.environment.paths import Environment
from nfcli.models.environment.worker_lock import read_owner
from support.programs import ProgramStarter, Watch
from support.workers import EnvironmentFactory

pytestmark = pytest.mark.slow

NAMES = tuple(f"w{number}" for number in range(8))
MOST_MEGABYTES_OF_EACH = 35  # the shared modules in equal parts included: with 30 workers it is below 25


@pytest.fixture
def norfab(environment_factory: EnvironmentFactory) -> Iterator[NorFab]:
    """Start the workers."""
    with NorFab(environment_factory(*NAMES).inventory_file) as norfab:
        yield norfab


def megabytes(pid: int) -> float:
    """Return the memory of a process, what it shares with others in equal parts (PSS)."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def parent(pid: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def change(environment: Environment, **settings: dict[str, Any]) -> None:
    """Add settings to workers of the inventory, by their names."""
    file = environment.folder / "inventory.yaml"
    inventory = json.loads(file.read_text())
    for name, added in settings.items():
        inventory["workers"][name].append(added)
    file.write_text(json.dumps(inventory))


def test_further_workers_cost_little_and_work_alone(norfab: NorFab) -> None:
    """Each has keys, tokens, sockets and a log of its own, and random numbers that the others don't have."""
    pids = {name: handle.process.pid for name, handle in norfab.launcher.handles.items()}
    assert len({parent(pid) for pid in pids.values()}) == 1
    assert sum(map(megabytes, pids.values())) / len(pids) < MOST_MEGABYTES_OF_EACH
    client = norfab.make_client()
    results = client.run_job("fastmcp", "get_status")
    assert {name: result["failed"] for name, result in results.items()} == dict.fromkeys(NAMES, False)
    keys = {(norfab.environment.keys_folder / f"{name}.key").read_text() for name in NAMES}
    assert len(keys) == len({handle.url for handle in norfab.launcher.handles.values()}) == len(NAMES)
    kwargs = {"username": "ann", "token": "t1"}
    assert client.run_job("fastmcp", "bearer_token_store", kwargs=kwargs, workers="w1")["w1"]["result"] is True
    assert (
        client.run_job("fastmcp", "bearer_token_check", kwargs={"token": "t1"}, workers="w2")["w2"]["result"] is False
    )


def test_workers_outlive_the_process_that_forked_them(norfab: NorFab, watch: Watch) -> None:
    """Those that end are started again without it, and all of them end with the program that started them."""
    watched = [watch(norfab.environment, name) for name in NAMES]
    os.kill(parent(watched[0].pid), signal.SIGKILL)
    watched[0].kill()
    assert watched[0].is_gone_within(10)
    client = norfab.make_client(start_workers=True)
    client.run_job("fastmcp", "get_version", workers="w0")
    results = client.run_job("fastmcp", "get_version", workers=["w0", "w1"])
    assert {name: result["failed"] for name, result in results.items()} == {"w0": False, "w1": False}
    norfab.destroy()
    assert all(worker.is_gone_within(10) for worker in watched)
    assert read_owner(norfab.environment.lock_file("w0")) is None


def test_the_foreground_restarts_a_forked_worker(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """It knows its exit status, and the others go on."""
    environment = environment_factory("w1", "w2", "w3")
    supervisor = start_program("-w", environment=environment)
    for _ in range(3):
        supervisor.wait_for(r"nfcli: worker \S+ is ready [^\n]*\n")
    other, worker = watch(environment, "w1"), watch(environment, "w2")
    worker.kill()
    supervisor.wait_for(r"nfcli: worker w2 was killed by SIGKILL: restart in 1 s\n")
    supervisor.wait_for(r"nfcli: worker w2 is ready [^\n]*\n")
    assert not other.is_gone_within(0)
    forks = parent(other.pid)
    supervisor.process.terminate()
    supervisor.wait_for("stopped\n")
    assert (supervisor.end(), other.is_gone_within(0), Path(f"/proc/{forks}").exists()) == (0, True, False)


def test_workers_that_cannot_start_stop_no_others(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, watch: Watch
) -> None:
    """Not in the foreground, which a service manager may start with the machine: they are tried again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = environment_factory("w1", "w2", "w3", "w4")
        change(environment, w2={"port": port}, w3={"plugins": ["ends"]})
        (environment.folder / "ends.py").write_text("import os\nos._exit(3)\n")
        supervisor = start_program("-w", environment=environment)
        for name in ("w1", "w4"):
            supervisor.wait_for(rf"nfcli: worker {name} is ready [^\n]*\n")
        for name, reason in (("w2", f"port {port} on 127.0.0.1 is already in use"), ("w3", "it ended with status 3")):
            supervisor.wait_for(rf"worker {name} could not be started \([^\n]*{reason}[^\n]*\): restart in 1 s\n")
    supervisor.wait_for(r"nfcli: worker w2 is ready [^\n]*\n")
    assert not watch(environment, "w1").is_gone_within(0)
    supervisor.process.terminate()
    supervisor.wait_for("stopped\n")
    assert supervisor.end() == 0


def test_where_no_worker_can_start_the_foreground_ends(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter
) -> None:
    """With the reason of the first one, so that a mistake that all have is seen at once."""
    environment = environment_factory("w1", "w2")
    change(environment, w1={"plugins": ["none1"]}, w2={"plugins": ["none2"]})
    supervisor = start_program("-w", environment=environment)
    supervisor.wait_for(r"worker w1 can't start: [^\n]*none1[^\n]*\n")
    assert supervisor.end() == 1
