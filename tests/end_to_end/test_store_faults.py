"""The token database fails under a running worker: every command and MCP requests meet each fault, and its end.

A change is refused in time with a reason and leaves everything as it was; tokens that are known go on being verified,
and no others are.
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment import DEFAULT_WORKER, Environment

if TYPE_CHECKING:
    from conftest import EnvironmentFactory, InTime, NfcliRunner, RunningWorker, WorkerRunner

STORE, DELETE = "bearer_token_store", "bearer_token_delete"
# Each change as a command and as a job; each would be seen.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "create-token username carol token new": (STORE, {"username": "carol", "token": "new"}),
    "create-token username alice token good expire 60": (STORE, {"username": "alice", "token": "good", "expire": 60}),
    "delete-token token good": (DELETE, {"token": "good"}),
    "delete-token username bob": (DELETE, {"username": "bob"}),
}
STORED = {"good": "alice", "b1": "bob", "b2": "bob"}
NOT_STORED = ["gone", "new"]
STATE = {
    "listed": [("alice", "good", "None"), ("bob", "b1", "None"), ("bob", "b2", "None")],
    "checked": dict.fromkeys(STORED, True) | dict.fromkeys(NOT_STORED, False),
    "answered": dict.fromkeys(STORED, 200) | dict.fromkeys(NOT_STORED, 401),
}
CHANGE_SECONDS = 6.0

# Takes the database's lock and keeps it until its stdin ends.
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def status_of_request(url: str, token: str) -> int:
    """Send an MCP request with a token; return the answer's status."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    request = urllib.request.Request(url, body, headers)  # noqa: S310  the worker's own http address
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


class Site:
    """A worker, one process after the other, and clients at it; `folder` holds its database."""

    worker: RunningWorker

    def __init__(self, environment: Environment, run_worker: WorkerRunner, stack: ExitStack) -> None:
        self.environment = environment
        self.folder = environment.tokens_folder(DEFAULT_WORKER)
        self._run_worker = run_worker
        self._running = stack.enter_context(ExitStack())
        self.start()
        norfab = NorFab(environment.inventory_file)
        stack.callback(norfab.destroy)
        self._client, *self._others = [norfab.make_client() for _ in range(1 + len(CHANGES))]

    def start(self) -> None:
        """Start the worker."""
        self.worker = self._running.enter_context(self._run_worker(self.environment))

    def kill(self) -> None:
        """Kill the worker, for a next one to start."""
        self.worker.process.kill()
        self._running.close()

    def run(self, task: str, client: Client | None = None, **kwargs: Any) -> Any:
        """Run a job; return its value, or its errors."""
        (result,) = (client or self._client).run_job("fastmcp", task, kwargs=kwargs).values()
        return result["errors"] if result["failed"] else result["result"]

    def reset(self) -> None:
        """Store and delete tokens until the worker is in the state that everything begins with."""
        for username in ("alice", "bob", "carol"):
            self.run(DELETE, username=username)
        for token, username in {**STORED, "gone": "carol"}.items():
            assert self.run(STORE, username=username, token=token) is True
        assert self.run(DELETE, token="gone") is True
        assert self.state() == STATE

    def change(self) -> list[Any]:
        """Ask for all changes at once; return what each was answered."""
        with ThreadPoolExecutor(len(CHANGES)) as pool:
            jobs = [
                pool.submit(self.run, task, client, **kwargs)
                for (task, kwargs), client in zip(CHANGES.values(), self._others, strict=True)
            ]
        return [job.result() for job in jobs]

    def state(self) -> dict[str, Any]:
        """Return what the worker says of its tokens: its list, its checks, its answers to requests with them."""
        tokens = [*STORED, *NOT_STORED]
        return {
            "listed": [(row["username"], row["token"], row["expires"]) for row in self.run("bearer_token_list")],
            "checked": {token: self.run("bearer_token_check", token=token) for token in tokens},
            "answered": {token: status_of_request(self.worker.url, token) for token in tokens},
        }

    def logged(self) -> list[str]:
        """Return the errors in the worker's log."""
        lines = map(json.loads, self.environment.log_file(DEFAULT_WORKER).read_text().splitlines())
        return [line["message"] for line in lines if line["level"] == "ERROR"]


@pytest.fixture(scope="module")
def site(environment_factory: EnvironmentFactory, running_worker: WorkerRunner) -> Iterator[Site]:
    """Run the worker that meets one fault after the other."""
    with ExitStack() as stack:
        yield Site(environment_factory(auth_bearer={"max_wrong_tokens_per_minute": 0}), running_worker, stack)


# The faults: each lasts for a `with` block


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """Hold the database's lock in another process."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLDER, str(site.folder / "cache.db")]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            holder.stdin.close()
            holder.wait(10)


@contextmanager
def read_only(path: Path, mode: int) -> Iterator[None]:
    """Take the right to write away from its owner, too."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def file_read_only(site: Site) -> Any:
    """Make the database's file read-only."""
    return read_only(site.folder / "cache.db", 0o400)


def folder_read_only(site: Site) -> Any:
    """Make the database's folder read-only."""
    return read_only(site.folder, 0o500)


@contextmanager
def immutable(site: Site) -> Iterator[None]:
    """Have the file system refuse writes to files that are open, which needs root and a file system that can."""
    files = [str(site.folder / name) for name in ("cache.db", "cache.db-wal")]
    chattr = shutil.which("chattr")
    if chattr is None or subprocess.run([chattr, "+i", *files], capture_output=True, check=False).returncode:
        pytest.skip("files can't be made immutable here")
    try:
        yield
    finally:
        subprocess.run([chattr, "-i", *files], check=True)


@contextmanager
def failing_writes(site: Site) -> Iterator[None]:
    """Have the system refuse to make the write-ahead log longer than it is."""
    limit = (site.folder / "cache.db-wal").stat().st_size
    pid, infinite = site.worker.process.pid, resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, infinite))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (infinite, infinite))


@contextmanager
def folder_gone(site: Site) -> Iterator[None]:
    """Move the database's folder away."""
    elsewhere = site.folder.with_name("moved")
    site.folder.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(site.folder)


FAULTS: list[tuple[Callable[[Site], Any], str]] = [
    (file_read_only, "{folder}/cache.db can't be written, nothing changed: run chmod 600 {folder}/cache.db"),
    (folder_read_only, "{folder} can't be written, nothing changed: run chmod 700 {folder}"),
    (immutable, "the token database in {folder} reports a disk I/O error, nothing changed: see to that disk"),
    (failing_writes, "the token database in {folder} reports a disk I/O error, nothing changed: see to that disk"),
    (folder_gone, "the token database in {folder} was moved or replaced, nothing changed: restart the worker"),
    (locked, "token store busy, nothing changed: another process holds its database"),
]


def commands_at_once(site: Site, nfcli: NfcliRunner) -> list[tuple[int, str, str]]:
    """Run each change as a program of its own; return their exit statuses and what they print."""
    with ThreadPoolExecutor(len(CHANGES)) as pool:
        run = partial(nfcli, "-c", "fastmcp", "auth", environment=site.environment)
        done = list(pool.map(lambda words: run(*words.split()), CHANGES))
    return [(each.returncode, each.stdout, each.stderr) for each in done]


def commands_in_a_row(site: Site, nfcli: NfcliRunner) -> list[tuple[int, str, str]]:
    """Do as `commands_at_once` with a single script, which is quicker where no lock holds each line up."""
    script = "".join(f"fastmcp auth {words}\n" for words in CHANGES)
    done = nfcli("-c", stdin=script, environment=site.environment)
    told = re.sub(r"^line \d+: ", "", done.stderr, flags=re.MULTILINE).splitlines(keepends=True)
    return [(done.returncode, done.stdout, line) for line in told]


@pytest.mark.parametrize(("fault", "reason"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_fault_refuses_every_change_in_time_and_nothing_else(
    site: Site, nfcli: NfcliRunner, in_time: InTime, fault: Callable[[Site], Any], reason: str
) -> None:
    """Nothing has changed meanwhile, when it is over, nor for the next worker; without a restart changes work again."""
    site.reset()
    reason = reason.format(folder=site.folder)
    with fault(site):
        with ThreadPoolExecutor(1 + len(CHANGES)) as pool:
            changes = pool.submit(in_time, CHANGE_SECONDS, site.change)
            run = commands_in_a_row if fault is not locked else commands_at_once
            commands = pool.submit(run, site, nfcli)
            assert site.state() == STATE
            assert changes.result() == [[reason]] * len(CHANGES)
            assert commands.result() == [(1, "", f"{DEFAULT_WORKER}: {reason}\n")] * len(CHANGES)
        assert site.state() == STATE
    assert site.state() == STATE
    assert any(message.endswith(reason) for message in site.logged())
    site.reset()
    site.kill()
    site.start()
    assert site.state() == STATE
    assert site.change() == [True] * len(CHANGES)
