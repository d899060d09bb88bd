"""`nfcli --backup` and `--restore` with real workers: nothing is lost, nothing comes half, nothing stays open."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.locations import find_environment
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.tasks.backup import CHUNK_BYTES, MAX_TRAILER_BYTES
from nfcli.models.tokens import BearerTokenRecord
from nfcli.shell.maintenance.backup_command import RESTORED_NOTE
from nfcli.worker.tokens.store import TokenStore
from support.programs import ProgramStarter, TerminalStarter, Watch, assert_one_line
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner

pytestmark = pytest.mark.slow

SECONDS = 20.0
MANY = 5_000
NOTE = f"{RESTORED_NOTE}\n"
UNVERIFIED = f"{DEFAULT_WORKER}: the seal of the backup was not verified\n"
BUSY = f"nfcli: {DEFAULT_WORKER}: another backup of this worker is in progress, "
Listed = dict[str, tuple[str, str, str]]


def listed(client: Client) -> Listed:
    """Return what a worker has of each token: user, creation, expiry."""
    (result,) = client.run_job("fastmcp", "bearer_token_list").values()
    assert result["failed"] is False
    return {row["token"]: (row["username"], row["creation"], row["expires"]) for row in result["result"]}


def ran(client: Client, task: str, **kwargs: object) -> Any:
    """Run a task that has to succeed; return its value."""
    (result,) = client.run_job("fastmcp", task, kwargs=kwargs).values()
    assert (result["failed"], result["errors"]) == (False, [])
    return result["result"]


def printed(**value: object) -> str:
    """Return how a result of the default worker is printed."""
    return json.dumps({DEFAULT_WORKER: value}, indent=4) + "\n"


@pytest.fixture(scope="module")
def big(environment_factory: EnvironmentFactory) -> Environment:
    """Make an environment whose worker has 5,000 tokens, every tenth with an expiry."""
    environment = environment_factory()
    environment.prepare()
    now = time.time()
    with TokenStore(environment.tokens_folder(DEFAULT_WORKER)) as store:
        store.replace(
            (
                BearerTokenRecord(
                    f"token-{n:05}-{'x' * 64}", f"user {n % 100}", now - n, now + 10_000 + n if n % 10 else None
                )
                for n in range(MANY)
            ),
            before_commit=None,
        )
    return environment


@pytest.fixture(scope="module")
def big_worker(big: Environment, running_worker: WorkerRunner) -> Iterator[RunningWorker]:
    """Run it."""
    with running_worker(big) as worker:
        yield worker


@pytest.fixture(scope="module")
def big_client(big: Environment, big_worker: RunningWorker) -> Iterator[Client]:
    """Make a client of it."""
    assert big_worker.process.poll() is None
    norfab = NorFab(big.inventory_file)
    yield norfab.make_client()
    norfab.destroy()


@pytest.fixture(scope="module")
def big_file(
    big: Environment, big_client: Client, nfcli: NfcliRunner, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Back it up."""
    file = tmp_path_factory.mktemp("backups") / "big.db"
    assert big_client is not None
    done = nfcli("--backup", str(file), environment=big)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed(tokens=MANY, file=str(file)), "")
    return file


class Changes(threading.Thread):
    """Somebody who creates tokens and deletes some, without a pause; `states` has what is there after each answer."""

    def __init__(self, environment: Environment, name: str) -> None:
        super().__init__(name=name)
        self._norfab = NorFab(environment.inventory_file)
        self.states: list[frozenset[str]] = [frozenset()]
        self.stopping = threading.Event()
        self.failures: list[object] = []

    def run(self) -> None:
        """Change tokens until `stopping` is set."""
        with closing(self._norfab.make_client()) as client:
            for number in range(10_000):
                if self.stopping.is_set():
                    return
                token = f"{self.name}-{number}"
                self._change(client, "bearer_token_store", token, self.states[-1] | {token})
                if number % 3 == 2:
                    old = f"{self.name}-{number - 1}"
                    self._change(client, "bearer_token_delete", old, self.states[-1] - {old})

    def _change(self, client: Client, task: str, token: str, after: frozenset[str]) -> None:
        kwargs = {"token": token} | ({"username": self.name} if task == "bearer_token_store" else {})
        (result,) = client.run_job("fastmcp", task, kwargs=kwargs).values()
        if result["result"] is not True:
            self.failures.append(result)
        self.states.append(after)


def test_a_backup_under_load_is_what_was_there_at_one_moment(
    environment: Environment,
    worker: RunningWorker,
    environment_factory: EnvironmentFactory,
    nfcli: NfcliRunner,
    tmp_path: Path,
) -> None:
    """All that was acknowledged before it, nothing that was deleted before it, no later change without earlier ones."""
    assert worker.process.poll() is None
    writers = [Changes(environment, f"writer-{n}") for n in range(3)]
    for writer in writers:
        writer.start()
    try:
        wait_until(lambda: all(len(writer.states) > 20 for writer in writers))
        acknowledged = [len(writer.states) - 1 for writer in writers]
        done = nfcli("--backup", str(tmp_path / "b.db"), environment=environment)
        # A change may be on disk a moment before its answer is counted.
        wait_until(lambda: all(len(w.states) > count + 1 for w, count in zip(writers, acknowledged, strict=True)))
    finally:
        for writer in writers:
            writer.stopping.set()
            writer.join(SECONDS)
    assert (done.returncode, done.stderr, [writer.failures for writer in writers]) == (0, "", [[]] * 3)
    other = environment_factory()
    restored = nfcli("--restore", str(tmp_path / "b.db"), "--unverified", environment=other)
    count = json.loads(done.stdout)[DEFAULT_WORKER]["tokens"]
    assert (restored.returncode, restored.stdout) == (0, printed(restored=count, removed=0, expired=0))
    with NorFab(other.inventory_file) as norfab:
        found = frozenset(listed(norfab.make_client()))
    for writer, least in zip(writers, acknowledged, strict=True):
        mine = frozenset(token for token in found if token.startswith(f"{writer.name}-"))
        assert mine in writer.states[least:]
    assert len(found) == count


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline


def test_a_backup_of_many_tokens_comes_back_whole(
    big_file: Path, big_client: Client, environment: Environment, client: Client, nfcli: NfcliRunner
) -> None:
    """Through several chunks each way; creation, expiry and user of every token are the same, all else is gone."""
    assert big_file.stat().st_size > 2 * CHUNK_BYTES
    ran(client, "bearer_token_store", username="late", token="late")
    before = listed(client)
    refused = nfcli("--restore", str(big_file), environment=environment)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert_one_line(refused.stderr, "the backup was sealed with another fleet key")
    done = nfcli("--restore", str(big_file), "--unverified", environment=environment)
    expected = printed(restored=MANY, removed=len(before), expired=0)
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, UNVERIFIED + NOTE)
    assert listed(client) == listed(big_client)


def test_a_restore_shuts_tokens_out_at_once(
    environment: Environment, worker: RunningWorker, client: Client, nfcli: NfcliRunner, tmp_path: Path
) -> None:
    """While requests with one of them run: once it is refused it stays so, and it is when the restore has ended."""
    ran(client, "bearer_token_store", username="kept", token="kept")
    nfcli("--backup", str(tmp_path / "b.db"), environment=environment)
    ran(client, "bearer_token_store", username="late", token="late")
    ended = threading.Event()

    def statuses() -> list[int]:
        found: list[int] = []
        while not ended.is_set():
            found.append(status_of(worker.url, "late"))
            if found[-1] != 200:
                return [*found, status_of(worker.url, "late")]
        return found

    with ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(statuses) for _ in range(2)]
        done = nfcli("--restore", str(tmp_path / "b.db"), environment=environment)
        after = status_of(worker.url, "late")
        ended.set()
        seen = [caller.result(SECONDS) for caller in callers]
    assert (done.returncode, done.stderr, after) == (0, NOTE, 401)
    assert status_of(worker.url, "kept") == 200
    for found in seen:
        assert 200 not in found[found.index(401) :]


def status_of(url: str, token: str) -> int:
    """Return the status of an MCP request."""
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)) as connection:
        connection.request("POST", "/mcp", body, headers)
        return connection.getresponse().status


def test_a_client_that_is_killed_leaves_no_file_and_the_next_one_takes_its_place(
    big: Environment, big_client: Client, big_worker: RunningWorker, start_program: ProgramStarter, tmp_path: Path
) -> None:
    """What it has left has a name that says what it is; two that write one file don't get into each other's way."""
    file, part = tmp_path / "b.db", tmp_path / "b.db.nfcli-part"
    big_worker.process.send_signal(signal.SIGSTOP)
    try:
        killed = start_program("--backup", str(file), environment=big)
        wait_until(part.exists)
        second = start_program("--backup", str(file), environment=big)
        assert second.end() == 1, second.err
        assert_one_line(second.err, file)
        killed.kill()
    finally:
        big_worker.process.send_signal(signal.SIGCONT)
    assert [path.name for path in tmp_path.iterdir()] == ["b.db.nfcli-part"]
    part.write_bytes(b"left by a run that was killed later")
    os.link(part, tmp_path / "another name of it")
    third = start_program("--backup", str(file), environment=big)
    assert (third.end(), third.err, third.out) == (0, "", printed(tokens=MANY, file=str(file)))
    assert (tmp_path / "another name of it").read_bytes() == b"left by a run that was killed later"
    assert not part.exists()
    begun = ran(big_client, "backup_begin")
    fourth = start_program("--backup", str(tmp_path / "c.db"), environment=big)
    assert (fourth.end(), fourth.err.startswith(BUSY), fourth.out) == (1, True, "")
    assert ran(big_client, "backup_end", id=begun["id"]) is True


def test_a_worker_that_is_killed_during_a_restore_has_all_tokens_of_before_or_all_of_the_backup(
    environment_factory: EnvironmentFactory,
    running_worker: WorkerRunner,
    start_program: ProgramStarter,
    watch: Watch,
    big_file: Path,
) -> None:
    """And what it was sent is gone with its next start."""
    environment = environment_factory()
    with running_worker(environment), NorFab(environment.inventory_file) as norfab:
        ran(norfab.make_client(), "bearer_token_store", username="old", token="old")
        upload = environment.run_folder / f"{DEFAULT_WORKER}.restore" / "tokens.db"
        program = start_program("-c", "--restore", str(big_file), "--unverified", environment=environment)
        wait_until(lambda: upload.exists() and upload.stat().st_size > big_file.stat().st_size - MAX_TRAILER_BYTES)
        watch(environment).kill()
        status = program.end()
    assert upload.exists()
    with running_worker(environment), NorFab(environment.inventory_file) as norfab:
        tokens = sorted(listed(norfab.make_client()))
        assert not upload.parent.exists()
    if status == 0:
        assert len(tokens) == MANY
    else:
        gone = f"nfcli: {DEFAULT_WORKER}: worker {DEFAULT_WORKER} "
        assert (status, program.out, program.err.count("\n")) == (1, "", 1)
        assert program.err.startswith(gone)
        assert tokens == ["old"] or len(tokens) == MANY


def test_a_backup_is_restored_on_another_machine_of_the_fleet_through_pipes(
    big: Environment, big_client: Client, running_worker: WorkerRunner, tmp_path: Path
) -> None:
    """Its environment was given the fleet key; the standard output has the backup and nothing else."""
    assert big_client is not None
    nfcli = [str(Path(sys.executable).with_name("nfcli")), "-c"]
    key = big.fleet_key_file.read_bytes()
    subprocess.run([nfcli[0], "--create-env", str(tmp_path / "b"), "--fleet-key", "-"], input=key, check=True)
    made = subprocess.run(
        [*nfcli, "-i", str(big.inventory_file), "--backup", "-"], capture_output=True, check=True, timeout=SECONDS
    )
    assert made.stderr.decode() == f"{DEFAULT_WORKER}: backed up, tokens: {MANY}\n"
    inventory = tmp_path / "b" / "inventory.yaml"
    with running_worker(find_environment(inventory)):
        done = subprocess.run(
            [*nfcli, "-i", str(inventory), "--restore", "-"],
            input=made.stdout,
            capture_output=True,
            check=True,
            timeout=SECONDS,
        )
        with NorFab(inventory) as norfab:
            found = listed(norfab.make_client())
    assert (done.stdout.decode(), done.stderr.decode()) == (printed(restored=MANY, removed=0, expired=0), NOTE)
    assert found == listed(big_client)


@pytest.mark.usefixtures("big_worker")
def test_at_a_terminal_the_progress_is_shown_and_wiped(
    big: Environment, open_terminal: TerminalStarter, tmp_path: Path
) -> None:
    """The result stands alone on its lines."""
    terminal = open_terminal("--backup", str(tmp_path / "b.db"), environment=big)
    assert terminal.end() == 0
    screen = terminal.child.before
    assert f"{DEFAULT_WORKER}: 0 %" in screen
    assert screen.rpartition("\x1b[K")[2].replace("\r\n", "\n") == printed(tokens=MANY, file=str(tmp_path / "b.db"))
