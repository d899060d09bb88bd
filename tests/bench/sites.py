"""The processes that are measured: workers of ours and, where there is one, the reference's fabric."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diskcache

from nfcli.models.environment import DEFAULT_WORKER, Environment
from nfcli.worker.token_disk import KEY_PREFIX, NoPickleDisk, TokenDatabase

DRIVER = Path(__file__).with_name("reference_driver.py")
STOP_SECONDS = 15.0
TOKEN = "bench-0"
"""A token that is always stored; the others are named alike."""

USERS = 1_000


class BenchError(Exception):
    """A process doesn't do what it is there for."""


def token_rows(count: int) -> Iterator[tuple[str, str]]:
    """Yield user name and token of as many tokens."""
    for number in range(count):
        yield f"user-{number % USERS}", f"bench-{number}"


def fill(folder: Path, count: int) -> None:
    """Store tokens in a new database of ours in one transaction; one by one they would take a minute."""
    TokenDatabase.open(folder).close()
    with contextlib.closing(diskcache.Cache(str(folder), disk=NoPickleDisk)) as cache, cache.transact():
        for username, token in token_rows(count):
            value = {"token": token, "username": username, "created": "2026-05-31T10:08:51.914919+00:00"}
            cache.set(KEY_PREFIX + token, json.dumps(value), tag=username)


@dataclass(frozen=True)
class Worker:
    """A running worker of ours."""

    environment: Environment
    url: str
    pid: int


class Reference:
    """The reference's broker, worker and a client in processes of their own; calls go to `reference_driver.Driver`."""

    def __init__(self, folder: Path, url: str, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.url = url
        self._process = process

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the driver and return what it returned."""
        if self._process.stdin is None or self._process.stdout is None:
            raise BenchError("the reference has no pipes")
        self._process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the driver has ended"}
        if "error" in answer:
            raise BenchError(f"reference: {method}: {answer['error']}")
        return answer["value"]


class Sites:
    """Starts what a measurement needs; everything lies below one temporary folder.

    Args:
        folder: the temporary folder.
        reference_python: a Python with the reference, None to measure without it.
    """

    def __init__(self, folder: Path, reference_python: str | None) -> None:
        self._folder = folder
        self._python = reference_python
        self.nfcli = Path(sys.executable).with_name("nfcli")
        self.reference_nfcli = Path(reference_python).with_name("nfcli") if reference_python else None

    def new_folder(self) -> Path:
        """Return an empty folder."""
        return Path(tempfile.mkdtemp(dir=self._folder))

    @contextlib.contextmanager
    def worker(self, *, tokens: int = 100, authentication: bool = True) -> Iterator[Worker]:
        """Run a worker of ours with so many tokens stored."""
        folder = self.new_folder()
        settings = {"service": "fastmcp", "port": 0, "authentication_enabled": authentication}
        inventory = {"workers": {DEFAULT_WORKER: [settings]}, "topology": {"workers": [DEFAULT_WORKER]}}
        environment = Environment(folder, folder / "inventory.yaml")
        (folder / "inventory.yaml").write_text(json.dumps(inventory))
        environment.prepare()
        fill(environment.tokens_folder(DEFAULT_WORKER), tokens)
        command = [sys.executable, "-m", "nfcli.worker", "--environment", str(folder), "--name", DEFAULT_WORKER]
        with _process([*command, "--until-stdin-ends"], folder) as process:
            said = json.loads((process.stdout and process.stdout.readline()) or "{}")
            if said.get("event") != "ready":
                raise BenchError(f"our worker doesn't start: {said}")
            yield Worker(environment, said["url"], process.pid)

    @contextlib.contextmanager
    def reference(
        self, *, tokens: int = 100, authentication: bool = True, start: bool = True
    ) -> Iterator[Reference | None]:
        """Run the reference's fabric with so many tokens stored, or only its driver; None without a reference."""
        if self._python is None:
            yield None
            return
        folder = self.new_folder()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = {
            "service": "fastmcp",
            "host": "127.0.0.1",
            "port": port,
            "authentication_enabled": authentication,
        }
        inventory = {
            "broker": {"endpoint": f"ipc://{folder}/b"},
            "workers": {DEFAULT_WORKER: [settings]},
            "topology": {"broker": True, "workers": [DEFAULT_WORKER]},
        }
        (folder / "inventory.yaml").write_text(json.dumps(inventory))
        with _process([self._python, str(DRIVER), str(folder)], folder) as process:
            reference = Reference(folder, f"http://127.0.0.1:{port}/mcp", process)
            if start:
                reference.call("fill", worker=DEFAULT_WORKER, tokens=list(token_rows(tokens)))
                reference.call("start")
            yield reference


@contextlib.contextmanager
def _process(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that ends with its stdin; whatever it started is killed with it."""
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=folder, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process in MB (10^6 bytes)."""
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(shown.stdout) * 1_024 / 1e6
