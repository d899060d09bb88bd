"""The sites that are measured: workers of ours and, where there is one, the reference's fabric."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import diskcache
from subjects.processes import BenchError, Driver, child

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.worker.tokens.database import NoPickleDisk, TokenDatabase
from nfcli.worker.tokens.rows import KEY_PREFIX

HERE = Path(__file__).parents[1]
TOKEN = "bench-0"
"""A token that is always stored; the others are named alike."""

USERS = 1_000
NO_LIMIT = 0
_ADDRESS = "127.0.0.1"

Rows = Iterable[tuple[str, str]]


def token_rows(count: int, users: int = USERS) -> Iterator[tuple[str, str]]:
    """Yield user name and token of as many tokens, dealt out to as many users."""
    for number in range(count):
        yield f"user-{number % users}", f"bench-{number}"


def fill(folder: Path, rows: Rows) -> None:
    """Store tokens in a new database of ours in one transaction; one by one they would take a minute."""
    TokenDatabase(folder).close()
    with contextlib.closing(diskcache.Cache(str(folder), disk=NoPickleDisk)) as cache, cache.transact():
        for username, token in rows:
            value = {"token": token, "username": username, "created": "2026-05-31T10:08:51.914919+00:00"}
            cache.set(KEY_PREFIX + token, json.dumps(value), tag=username)


@dataclass(frozen=True)
class Worker:
    """A running worker of ours."""

    environment: Environment
    url: str
    pid: int


class Reference(Driver):
    """The reference's broker, worker and a client in processes of their own: `reference_driver.Driver`."""

    folder: Path
    url: str


class Sites:
    """Starts what a measurement needs; everything is stored below one temporary folder.

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

    def environment(
        self, rows: Rows, *, authentication: bool = True, wrong_tokens_per_minute: int = NO_LIMIT
    ) -> Environment:
        """Return a new environment whose worker has these tokens; a free port is taken at each start."""
        folder = self.new_folder()
        settings = {
            "service": "fastmcp",
            "port": 0,
            "authentication_enabled": authentication,
            "auth_bearer": {"max_wrong_tokens_per_minute": wrong_tokens_per_minute},
        }
        inventory = {"workers": {DEFAULT_WORKER: [settings]}, "topology": {"workers": [DEFAULT_WORKER]}}
        environment = Environment(folder, folder / "inventory.yaml")
        (folder / "inventory.yaml").write_text(json.dumps(inventory))
        environment.prepare()
        fill(environment.tokens_folder(DEFAULT_WORKER), rows)
        return environment

    @contextlib.contextmanager
    def worker(
        self,
        *,
        tokens: int = 100,
        rows: Rows | None = None,
        authentication: bool = True,
        wrong_tokens_per_minute: int = NO_LIMIT,
    ) -> Iterator[Worker]:
        """Run a worker of ours with so many tokens of many users stored, or with these rows."""
        environment = self.environment(
            token_rows(tokens) if rows is None else rows,
            authentication=authentication,
            wrong_tokens_per_minute=wrong_tokens_per_minute,
        )
        with running(environment) as worker:
            yield worker

    @contextlib.contextmanager
    def store(self, rows: Rows) -> Iterator[Driver]:
        """Open a token store of ours with these rows in a process of its own: `store_driver.Driver`."""
        folder = self.new_folder()
        fill(folder / "tokens", rows)
        with Driver.running(
            [sys.executable, str(HERE / "subjects" / "store_driver.py"), str(folder / "tokens")], folder
        ) as driver:
            yield driver

    @contextlib.contextmanager
    def reference(
        self, *, tokens: int = 100, authentication: bool = True, start: bool = True
    ) -> Iterator[Reference | None]:
        """Run the reference's fabric with so many tokens stored, or only its driver; None without a reference."""
        if self._python is None:
            yield None
            return
        folder = self.new_folder()
        with socket.create_server((_ADDRESS, 0)) as free:
            port = free.getsockname()[1]
        settings = {
            "service": "fastmcp",
            "host": _ADDRESS,
            "port": port,
            "authentication_enabled": authentication,
        }
        inventory = {
            "broker": {"endpoint": f"ipc://{folder}/b"},
            "workers": {DEFAULT_WORKER: [settings]},
            "topology": {"broker": True, "workers": [DEFAULT_WORKER]},
        }
        (folder / "inventory.yaml").write_text(json.dumps(inventory))
        with child([self._python, str(HERE / "subjects" / "reference_driver.py"), str(folder)], folder) as process:
            reference = Reference(process, folder)
            reference.folder, reference.url = folder, f"http://{_ADDRESS}:{port}/mcp"
            if start:
                reference.call("fill", worker=DEFAULT_WORKER, tokens=list(token_rows(tokens)))
                reference.call("start")
            yield reference


@contextlib.contextmanager
def running(environment: Environment) -> Iterator[Worker]:
    """Run the worker of an environment."""
    folder = environment.folder
    command = [sys.executable, "-m", "nfcli.worker", "--environment", str(folder), "--name", DEFAULT_WORKER]
    with child([*command, "--until-stdin-ends"], folder) as process:
        said = json.loads((process.stdout and process.stdout.readline()) or "{}")
        if said.get("event") != "ready":
            raise BenchError(f"our worker doesn't start: {said}")
        yield Worker(environment, said["url"], process.pid)
