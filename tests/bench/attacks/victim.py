"""The worker that is attacked: a process of its own, and what can be observed from outside."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nfcli import Client, NorFab
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment

READY_SECONDS = 30.0
JOB_SECONDS = 30.0
CALM_SECONDS = 30.0
MARK = "mArk"
"""Part of every token that an attack uses, so that one which got somewhere can be found."""

GOOD_TOKEN = f"{MARK}-good"
USER = "keeper"
_TOOL = "service_fastmcp__task_get_status"
_NAMED_LIBRARIES = re.compile(rb"Traceback|site-packages|uvicorn|starlette|pydantic|httptools|\.py\b", re.IGNORECASE)


class FellError(Exception):
    """The worker under attack has ended, or answers no more."""


@dataclass(frozen=True)
class State:
    """What a process uses: ids of its threads, number of open descriptors, resident bytes."""

    threads: frozenset[int]
    descriptors: int
    resident_bytes: int


class Victim:
    """A running worker with one token, `GOOD_TOKEN`; `client` is a proper client of it."""

    def __init__(self, environment: Environment, process: subprocess.Popen[bytes], said: dict[str, str]) -> None:
        self.environment = environment
        self.process = process
        self.url, self.endpoint = said["url"], said["endpoint"]
        self.norfab = NorFab(environment.inventory_file)
        self.client: Client = self.norfab.make_client()
        self.jobs_sent = 0

    def run(self, task: str, **kwargs: Any) -> Any:
        """Run a proper job; return its value.

        Raises:
            FellError: it isn't answered as it should be.
        """
        self.jobs_sent += 1
        (result,) = self.client.run_job("fastmcp", task, kwargs=kwargs, timeout=JOB_SECONDS).values()
        if result["failed"]:
            raise FellError(f"{task} fails: {result['errors']}")
        return result["result"]

    def state(self) -> State:
        """Return what its process uses now.

        Raises:
            FellError: it has ended.
        """
        folder = Path(f"/proc/{self.process.pid}")
        if self.process.poll() is not None:
            raise FellError(f"the worker has ended with status {self.process.returncode}")
        pages = int((folder / "statm").read_text().split()[1])
        threads = frozenset(int(entry.name) for entry in (folder / "task").iterdir())
        return State(threads, len(list((folder / "fd").iterdir())), pages * os.sysconf("SC_PAGE_SIZE"))

    def serves(self, address: str = "127.0.0.1") -> list[str]:
        """Return what is wrong with the answers to proper jobs and to MCP requests with a good token and without one.

        The requests come from `address`.
        """
        wrong = []
        for token, expected in ((GOOD_TOKEN, True), (f"{MARK}-unknown", False)):
            if self.run("bearer_token_check", token=token) is not expected:
                wrong.append(f"bearer_token_check of {token} is not {expected}")
        for token, status in ((GOOD_TOKEN, 200), (None, 401)):
            answered, body = self.call(token, address)
            if answered != status:
                wrong.append(f"an MCP call is answered {answered} instead of {status}: {body[:200]!r}")
        return wrong

    def call(self, token: str | None, source: str = "127.0.0.1") -> tuple[int, bytes]:
        """Call a tool over MCP, from an address; return status and body."""
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        params = {"name": _TOOL, "arguments": {}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=JOB_SECONDS, source_address=(source, 0)
        )
        try:
            connection.request("POST", address.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def calmed(self, is_calm: Callable[[State], bool]) -> bool:
        """Run jobs until `is_calm` finds its state so, which is what this returns, for a bounded time."""
        deadline = time.monotonic() + CALM_SECONDS
        while not is_calm(self.state()):
            if time.monotonic() > deadline:
                return False
            self.run("bearer_token_check", token=GOOD_TOKEN)
        return True

    def tokens(self) -> set[tuple[str, str]]:
        """Return user and token of all that are stored."""
        return {(row["username"], row["token"]) for row in self.run("bearer_token_list")}

    def log_faults(self) -> list[str]:
        """Return the lines of log and stderr that report a fault or hold a token; more than five are only counted."""
        logs = sorted(self.environment.logs_folder.iterdir())
        found = []
        for path in [*logs, self.environment.folder / "stderr"]:
            for line in path.read_text(errors="replace").splitlines():
                is_fault = '"errors": [{' in line or '"level": "ERROR"' in line or "Traceback" in line
                if is_fault or MARK in line:
                    found.append(f"{path.name}: {line[:300]}")
        return found if len(found) <= 5 else [*found[:5], f"and {len(found) - 5} more such lines"]

    def log_bytes(self) -> int:
        """Return how long its logs are together."""
        return sum(path.stat().st_size for path in self.environment.logs_folder.iterdir())


@contextmanager
def attacked(folder: Path, *, log_level: str = "INFO", **settings: Any) -> Iterator[Victim]:
    """Run a worker in an empty folder; `settings` are further keys of its inventory."""
    configured = {"service": "fastmcp", "port": 0, "authentication_enabled": True, **settings}
    inventory = {"workers": {DEFAULT_WORKER: [configured]}, "topology": {"workers": [DEFAULT_WORKER]}}
    environment = Environment(folder, folder / "inventory.yaml")
    (folder / "inventory.yaml").write_text(json.dumps(inventory))  # JSON is YAML
    command = [sys.executable, "-m", "nfcli.worker", "--environment", str(folder), "--name", DEFAULT_WORKER]
    command += ["--log-level", log_level, "--until-stdin-ends"]
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    try:
        victim = Victim(environment, process, _ready_line(process))
        try:
            victim.run("bearer_token_store", username=USER, token=GOOD_TOKEN)
            yield victim
        finally:
            victim.norfab.destroy()
    finally:
        _end(process)


def _ready_line(process: subprocess.Popen[bytes]) -> dict[str, str]:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
    said: dict[str, str] = json.loads((process.stdout.readline() if ready else b"") or b"{}")
    if said.get("event") != "ready":
        raise FellError(f"the worker doesn't start: {said}")
    return said


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    try:
        process.wait(READY_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
