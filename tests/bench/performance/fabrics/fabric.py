"""A fabric of many: our workers behind one broker of the reference's, and many services whose tasks become tools."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load.posts import Connection
from performance.fabrics import task_commands
from performance.figures import Figure, percentile
from subjects.processes import BenchError, child, resident_megabytes
from subjects.sites import HERE, Reference, Sites

from nfcli import Client, NorFab

WORKERS = 50
SERVICES, TASKS = 20, 30
STARTED_AT_ONCE = 10
JOBS, WARM_UP_JOBS = 200, 20
LISTINGS = 20
FOUND_SECONDS = 60.0
_TOKEN = "bench-token"
_MILLISECONDS = 1e3
_SETTINGS = {"service": "fastmcp", "port": 0, "authentication_enabled": True}


@dataclass(frozen=True)
class Fabric:
    """A running broker: where it is, its public key, and a client of the reference's."""

    endpoint: str
    key: str
    reference: Reference


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure jobs on many workers, from both clients in turn; then discovery and the listing of tools."""
    with broker(sites) as fabric:
        if fabric is None:
            return
        yield from _many_workers(sites, fabric)
    with broker(sites) as fabric:
        if fabric is not None:
            yield from _many_services(sites, fabric)


@contextmanager
def broker(sites: Sites) -> Iterator[Fabric | None]:
    """Run a broker of the reference's, and a client; None without a reference."""
    with sites.reference(start=False) as reference:
        if reference is None:
            yield None
            return
        endpoint = f"ipc://{reference.folder}/b"
        inventory = {"broker": {"endpoint": endpoint}, "topology": {"broker": True, "workers": []}}
        (reference.folder / "inventory.yaml").write_text(json.dumps(inventory))
        reference.call("start")
        file = reference.folder / "__norfab__" / "files" / "broker" / "public_keys" / "broker.key"
        key = next(line.split('"')[1] for line in file.read_text().splitlines() if "public-key" in line)
        yield Fabric(endpoint, key, reference)


def _environment(sites: Sites, fabric: Fabric, names: list[str]) -> Path:
    folder = sites.new_folder()
    inventory = {
        "broker": {"endpoint": fabric.endpoint, "shared_key": fabric.key},
        "workers": {name: [_SETTINGS] for name in names},
        "topology": {"workers": names},
    }
    (folder / "inventory.yaml").write_text(json.dumps(inventory))
    return folder


@contextmanager
def _running(folder: Path, names: list[str]) -> Iterator[dict[str, dict[str, Any]]]:
    """Run workers, some at a time until they are ready; yield what each said, its process number too."""
    said: dict[str, dict[str, Any]] = {}
    with ExitStack() as opened:
        for first in range(0, len(names), STARTED_AT_ONCE):
            started = {}
            for name in names[first : first + STARTED_AT_ONCE]:
                own = folder / f"run-{name}"
                own.mkdir()
                command = [sys.executable, "-m", "nfcli.worker", "--environment", str(folder), "--name", name]
                started[name] = opened.enter_context(child([*command, "--until-stdin-ends"], own))
            for name, process in started.items():
                said[name] = json.loads((process.stdout and process.stdout.readline()) or "{}")
                if said[name].get("event") != "ready":
                    raise BenchError(f"our worker doesn't start: {said[name]}")
        yield said


def _many_workers(sites: Sites, fabric: Fabric) -> Iterator[Figure]:
    names = [f"w{number}" for number in range(WORKERS)]
    folder = _environment(sites, fabric, names)
    begun = time.perf_counter()
    with _running(folder, names) as workers:
        started = time.perf_counter() - begun
        norfab = NorFab(inventory=folder / "inventory.yaml")
        client = norfab.make_client()
        try:
            _await_all(client, names)
            ours: list[float] = []
            theirs: list[float] = []
            for number in range(JOBS // WARM_UP_JOBS + 1):
                kwargs = [{"username": "bench", "token": f"t-{number}-{each}"} for each in range(WARM_UP_JOBS)]
                ours += [_create(client, each, len(names)) for each in kwargs]
                theirs += fabric.reference.call("round_trips", task="bearer_token_store", kwargs=kwargs)
                if number == 0:  # the first round warms up
                    ours, theirs = [], []
        finally:
            norfab.destroy()
        memory = [resident_megabytes(int(each["pid"])) for each in workers.values()]
    ours, theirs = ([each * _MILLISECONDS for each in samples] for samples in (ours, theirs))
    yield Figure(
        f"create-token on {WORKERS} workers",
        percentile(ours, 50),
        "ms",
        reference=percentile(theirs, 50),
        details={
            "p99 ms": percentile(ours, 99),
            "reference p99 ms": percentile(theirs, 99),
            "a worker ms": percentile(ours, 50) / WORKERS,
            "start of all s": started,
            "memory of a worker MB": percentile(memory, 50),
        },
    )


def _create(client: Client, kwargs: dict[str, Any], count: int) -> float:
    start = time.perf_counter()
    answer = client.run_job("fastmcp", "bearer_token_store", kwargs=kwargs)
    seconds = time.perf_counter() - start
    if len(answer) != count or any(result["failed"] for result in answer.values()):
        raise BenchError(f"{len(answer)} workers answered: {answer}")
    return seconds


def _await_all(client: Client, names: list[str]) -> None:
    deadline = time.monotonic() + FOUND_SECONDS
    while {row["name"] for row in client.show_workers() if row["status"] == "alive"} < set(names):
        if time.monotonic() > deadline:
            raise BenchError("not all workers have joined")
        time.sleep(0.1)


def _many_services(sites: Sites, fabric: Fabric) -> Iterator[Figure]:
    folder = _environment(sites, fabric, ["w1"])
    program = str(HERE / "subjects" / "many_services.py")
    command = [sys.executable, program, fabric.endpoint, fabric.key, str(SERVICES), str(TASKS)]
    with _running(folder, ["w1"]) as workers, ExitStack() as opened:
        norfab = NorFab(inventory=folder / "inventory.yaml")
        opened.callback(norfab.destroy)
        client = norfab.make_client()
        _await_all(client, ["w1"])
        pid, url = int(workers["w1"]["pid"]), str(workers["w1"]["url"])
        before = resident_megabytes(pid)
        process = opened.enter_context(child(command, sites.new_folder()))
        if process.stdout is None or process.stdout.readline() != b"joined\n":
            raise BenchError("the services don't join")
        by_itself = _await_tools(client)
        begun = time.perf_counter()
        client.run_job("fastmcp", "discover", timeout=FOUND_SECONDS)
        seconds = time.perf_counter() - begun
        client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "bench", "token": _TOKEN})
        yield Figure(
            f"discovery, {SERVICES} services of {TASKS} tasks",
            seconds,
            "s",
            details={"found by itself s": by_itself, "memory MB": resident_megabytes(pid) - before},
        )
        yield from task_commands.measure(client, SERVICES, seconds)
        yield from _listings(url)


def _await_tools(client: Client) -> float:
    """Return how long it takes until the tools of all services are there."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < FOUND_SECONDS:
        (answer,) = client.run_job("fastmcp", "get_status").values()
        if answer["result"]["tools_count"] >= SERVICES * TASKS:
            return time.perf_counter() - begun
        time.sleep(0.05)
    raise BenchError("the services' tools were not found")


def _listings(url: str) -> Iterator[Figure]:
    pages: list[float] = []
    whole = []
    with Connection(url) as connection:
        for _ in range(LISTINGS):
            taken = list(_pages(connection))
            pages += [seconds * _MILLISECONDS for seconds, _, _ in taken]
            whole.append(sum(seconds for seconds, _, _ in taken) * _MILLISECONDS)
            count = sum(tools for _, tools, _ in taken)
            if count < SERVICES * TASKS:
                raise BenchError(f"only {count} tools are listed")
    yield Figure(
        f"tools/list of {SERVICES * TASKS} tools, all pages",
        percentile(whole, 50),
        "ms",
        details={
            "pages": len(pages) / LISTINGS,
            "KiB": sum(length for _, _, length in taken) / 1024,
            "a page, p50 ms": percentile(pages, 50),
            "p99 ms": percentile(pages, 99),
        },
    )


def _pages(connection: Connection) -> Iterator[tuple[float, int, int]]:
    """List all tools; yield for each page how long it took, how many tools it has, and its bytes."""
    cursor = None
    while True:
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"cursor": cursor} if cursor else {}}
        request = connection.encoded(_TOKEN, message)
        start = time.perf_counter()
        answer = connection.answer(request)
        seconds = time.perf_counter() - start
        result = json.loads(answer.partition(b"\r\n\r\n")[2])["result"]
        yield seconds, len(result["tools"]), len(answer)
        cursor = result.get("nextCursor")
        if cursor is None:
            return
