"""Access, files on disk and the handling of secrets, with real worker processes."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import socket
import sqlite3
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from nfcli import AccessDeniedError, Client, NorFab, NoWorkersError
from nfcli.models.environment.curve_keys import ensure_key_pair
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.private_files import write_private
from nfcli.models.environment.worker_lock import read_owner
from support.programs import InTime, ProgramStarter, TerminalStarter, Watch, assert_one_line
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner

pytestmark = pytest.mark.slow

SECRETS = ("tOken-that-was-typed", "tOken-that-was-deleted", "tOken-in-a-wrong-line", "tOken-of-a-stranger")
Connect = Callable[[Environment], Client]
Guarded = tuple[Environment, "RunningWorker"]
FOLDERS = {"keys", "clients", "run", "logs", "tokens"}


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make clients, each of an environment; all are closed at the test's end."""
    opened: list[NorFab] = []

    def make(environment: Environment) -> Client:
        opened.append(NorFab(environment.inventory_file))
        return opened[-1].make_client()

    yield make
    for norfab in opened:
        norfab.destroy()


@pytest.fixture(params=["ipc", "tcp"])
def guarded(
    request: pytest.FixtureRequest, environment_factory: EnvironmentFactory, running_worker: WorkerRunner
) -> Iterator[Guarded]:
    """Run a worker that clients reach by a socket in its folder, or by TCP."""
    settings = {"endpoint": "tcp://127.0.0.1:*"} if request.param == "tcp" else {}
    environment = environment_factory(**settings)
    with running_worker(environment) as worker:
        yield environment, worker


def replace_the_key(environment: Environment, folder: Path) -> None:
    """Give the local client a key pair that no worker has listed."""
    ensure_key_pair(folder, "client")
    for name in ("client.key", "client.key_secret"):
        (folder / name).replace(environment.keys_folder / name)


def elsewhere(factory: EnvironmentFactory, of: Environment, worker: RunningWorker) -> Environment:
    """Make the environment of another machine: the worker's address and public key, a client key of its own."""
    environment = factory(endpoint=worker.endpoint)
    environment.prepare()
    shutil.copy(of.keys_folder / f"{worker.name}.key", environment.keys_folder)
    return environment


def test_a_client_whose_key_is_not_listed_gets_nothing_but_the_reason(
    guarded: Guarded, nfcli: NfcliRunner, connect: Connect, tmp_path: Path, in_time: InTime
) -> None:
    """Within three seconds, in one line that says what to do; a program sees the error's class."""
    environment, _ = guarded
    assert connect(environment).run_job("fastmcp", "get_version")[DEFAULT_WORKER]["failed"] is False
    replace_the_key(environment, tmp_path)
    done = in_time(3, lambda: nfcli("-c", "fastmcp", "auth", "list-tokens", environment=environment))
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(
        r"the worker at \S+ doesn't know this client's key: put [^\n]* with nfcli --authorize\n", done.stderr
    )
    with pytest.raises(AccessDeniedError, match="doesn't know this client's key"):
        connect(environment).run_job("fastmcp", "bearer_token_list")
    (row,) = connect(environment).show_workers()
    assert (row["status"], "doesn't know this client's key" in row["note"]) == ("dead", True)


@pytest.mark.parametrize("guarded", ["tcp"], indirect=True)
def test_another_machine_is_authorized_by_its_key_file(
    guarded: Guarded,
    environment_factory: EnvironmentFactory,
    nfcli: NfcliRunner,
) -> None:
    """Refused at first, it works as soon as its public key is in the worker's folder, without a restart."""
    environment, worker = guarded
    other = elsewhere(environment_factory, environment, worker)
    words = ["-c", "fastmcp", "auth", "check-token", "token", "x"]
    assert nfcli(*words, environment=other).returncode == 3
    shutil.copy(other.keys_folder / "client.key", environment.clients_folder / "other-machine.key")
    done = nfcli(*words, environment=other)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {DEFAULT_WORKER: False}, "")


@pytest.mark.parametrize("guarded", ["tcp"], indirect=True)
def test_check_on_another_machine_asks_the_worker(
    guarded: Guarded, environment_factory: EnvironmentFactory, nfcli: NfcliRunner
) -> None:
    """It alone decides about this machine's key, which files here say nothing about; one that is down has a remedy."""
    environment, worker = guarded
    other = elsewhere(environment_factory, environment, worker)
    assert other.inventory_file is not None
    inventory = yaml.safe_load(other.inventory_file.read_text()) | {"topology": {"workers": []}}
    other.inventory_file.write_text(yaml.safe_dump(inventory))
    assert nfcli("-c", "show", "norfab", "workers", environment=other).returncode == 1
    ensure_key_pair(other.keys_folder, "client")

    def check(*words: str) -> tuple[int, str]:
        done = nfcli("--check", *words, environment=other)
        return done.returncode, done.stdout

    status, refused = check()
    assert (status, "client key: a valid pair; workers of other machines decide about it" in refused) == (1, True)
    assert f"FAULT {DEFAULT_WORKER}: the worker at {worker.endpoint} doesn't know this client's key" in refused
    assert check("offline")[0] == 1
    shutil.copy(other.keys_folder / "client.key", environment.clients_folder / "other-machine.key")
    status, accepted = check()
    assert (status, f"ok    {DEFAULT_WORKER}: answers at {worker.endpoint}, on another machine" in accepted) == (
        0,
        True,
    )
    worker.process.terminate()
    worker.process.wait()
    status, down = check()
    assert (status, "start it on its machine, or correct its endpoint in the inventory" in down) == (1, True)
    assert check("offline")[0] == 0


@pytest.mark.parametrize("guarded", ["tcp"], indirect=True)
def test_a_worker_with_another_key_than_expected_is_not_trusted(
    guarded: Guarded,
    environment_factory: EnvironmentFactory,
    connect: Connect,
    in_time: InTime,
) -> None:
    """Another listener can't pose as the worker; the client reports it within three seconds."""
    environment, worker = guarded
    other = elsewhere(environment_factory, environment, worker)
    key_file = other.keys_folder / f"{worker.name}.key"
    key_file.unlink()
    ensure_key_pair(other.keys_folder, worker.name)
    error = in_time(3, lambda: failure_of(connect(other)))
    assert f"{key_file} is not the key of the worker there" in str(error)


def failure_of(client: Client) -> NoWorkersError:
    """Return the error of a job that reaches no worker."""
    with pytest.raises(NoWorkersError) as raised:
        client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "a", "token": SECRETS[0]})
    return raised.value


def test_an_address_without_a_listener_is_reported_within_three_seconds(
    environment_factory: EnvironmentFactory, connect: Connect, in_time: InTime
) -> None:
    """The client doesn't wait for its timeout."""
    with socket.socket() as taken:  # bound and not listening: no answer, and no other process gets the port
        taken.bind(("127.0.0.1", 0))
        environment = environment_factory(endpoint=f"tcp://127.0.0.1:{taken.getsockname()[1]}")
        environment.prepare()
        ensure_key_pair(environment.keys_folder, DEFAULT_WORKER)
        error = in_time(3, lambda: failure_of(connect(environment)))
    assert re.fullmatch(r"no worker answered at \S+ within 2.5 s: start it \(.*\)", str(error))


def test_a_key_that_is_taken_away_shuts_a_connected_client_out(guarded: Guarded, connect: Connect) -> None:
    """Its next job is refused and nothing is done; a new connection is refused; with the key back both work again."""
    environment, _ = guarded
    connected = connect(environment)
    key_file = environment.clients_folder / "client.key"
    store = {"kwargs": {"username": "a", "token": "t1"}}
    assert connected.run_job("fastmcp", "bearer_token_store", **store)[DEFAULT_WORKER]["result"] is True
    kept = key_file.read_bytes()
    key_file.unlink()
    result = connected.run_job("fastmcp", "bearer_token_delete", kwargs={"token": "t1"})[DEFAULT_WORKER]
    assert (result["failed"], result["result"]) == (True, None)
    assert re.fullmatch(
        r"this client's key is not allowed: put [^\n]*\.nfcli/clients/ with [^\n]*", result["errors"][0]
    )
    with pytest.raises(AccessDeniedError):
        connect(environment).run_job("fastmcp", "get_version")
    write_private(key_file, kept)
    for client in (connected, connect(environment)):
        checked = client.run_job("fastmcp", "bearer_token_check", kwargs={"token": "t1"})
        assert checked[DEFAULT_WORKER]["result"] is True


def private(path: Path) -> list[str]:
    """Return what others could get at, of everything from a folder down."""
    found = []
    for each in [path, *path.rglob("*")]:
        mode = stat.S_IMODE(each.lstat().st_mode)
        if mode != (0o700 if each.is_dir() else 0o600):
            found.append(f"{each} {mode:o}")
    return found


def test_everything_is_private_whatever_the_umask(
    tmp_path_factory: pytest.TempPathFactory, start_program: ProgramStarter, open_terminal: TerminalStarter
) -> None:
    """Under umask 0: the environment that is made, and .nfcli while shell and worker run and after they have ended."""
    folder = tmp_path_factory.mktemp("e") / "environment"  # short: the socket has to fit into it
    assert start_program("--create-env", str(folder), umask=0).end() == 0
    assert private(folder) == []
    worker_file = folder / "fastmcp" / f"{DEFAULT_WORKER}.yaml"
    worker_file.write_text(worker_file.read_text().replace("port: 8001", "port: 0"))
    environment = Environment(folder, folder / "inventory.yaml")
    terminal = open_terminal(environment=environment, umask=0)
    terminal.wait_for_prompt()
    for line in ("fastmcp auth create-token username a", "fastmcp auth list-tokens | json", "nonsense"):
        terminal.run(line)
    assert private(folder) == []
    assert {"history", "keys", "clients", "run", "logs", "tokens"} <= {
        path.name for path in environment.state_folder.iterdir()
    }
    assert environment.run_folder.joinpath(f"{DEFAULT_WORKER}.ipc").is_socket()
    assert terminal.leave() == 0
    assert private(folder) == []


@pytest.mark.parametrize("guarded", ["ipc"], indirect=True)
@pytest.mark.parametrize("program", ["worker", "nfcli -w"])
def test_a_second_worker_of_a_name_ends_with_a_clear_line_and_disturbs_nothing(
    guarded: Guarded, start_program: ProgramStarter, connect: Connect, program: str
) -> None:
    """The line names the owner; the first worker serves on, over the connection that was open and over new ones."""
    environment, worker = guarded
    client = connect(environment)
    client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "a", "token": "t1"})
    before = read_owner(environment.lock_file(worker.name))
    command = [sys.executable, "-m", "nfcli.worker", "--environment", str(environment.folder), "--name", worker.name]
    second = start_program(command=command) if program == "worker" else start_program("-w", environment=environment)
    assert second.end() == 1
    assert_one_line(second.err, worker.name, worker.process.pid)
    assert read_owner(environment.lock_file(worker.name)) == before
    for each in (client, connect(environment)):
        checked = each.run_job("fastmcp", "bearer_token_check", kwargs={"token": "t1"})
        assert checked[DEFAULT_WORKER]["result"] is True


class Planted:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickled_rows_in_the_database_do_not_run(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner, connect: Connect, tmp_path: Path
) -> None:
    """Neither as a value nor as a key; the worker starts, keeps the valid rows, and logs the skipped ones."""
    environment = environment_factory()
    store = {"kwargs": {"username": "alice", "token": "good"}}
    with running_worker(environment):
        assert connect(environment).run_job("fastmcp", "bearer_token_store", **store)[DEFAULT_WORKER]["result"] is True
    trap = pickle.dumps(Planted(tmp_path / "it ran"))
    columns = "key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value"
    with closing(sqlite3.connect(environment.tokens_folder(DEFAULT_WORKER) / "cache.db")) as database, database:
        for key, raw, mode, value in [
            ("bearer_token::planted", 1, 4, trap),
            (trap, 0, 1, "{}"),
            (trap + b" ", 0, 4, trap),
        ]:
            row = (key, raw, 1.0, None, 1.0, 0, "alice", 0, mode, None, value)
            database.execute(f"INSERT INTO Cache({columns}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    with running_worker(environment):
        client = connect(environment)
        (listed,) = client.run_job("fastmcp", "bearer_token_list").values()
        assert [(row["username"], row["token"]) for row in listed["result"]] == [("alice", "good")]
        client.run_job("fastmcp", "bearer_token_check", kwargs={"token": "planted"})
        client.run_job("fastmcp", "bearer_token_delete", kwargs={"username": "alice"})
    assert not (tmp_path / "it ran").exists()
    assert "3" in next(
        line for line in environment.log_file(DEFAULT_WORKER).read_text().splitlines() if "pickle" in line
    )


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
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_tokens_are_nowhere_but_in_the_token_database(
    environment_factory: EnvironmentFactory, open_terminal: TerminalStarter, watch: Watch
) -> None:
    """After a session with right and wrong lines and requests, at the most talkative log level.

    Not in logs, audit trail, history, lock files, nor in the arguments and the environment of the processes; a deleted
    token isn't in the database either.
    """
    environment = environment_factory()
    typed, deleted, wrong, strange = SECRETS
    terminal = open_terminal("-l", "DEBUG", environment=environment)
    terminal.wait_for_prompt()
    worker = watch(environment)
    for line in (
        f"fastmcp auth create-token username alice token {typed}",
        f"fastmcp auth create-token username bob token {deleted} expire 3600",
        f"fastmcp auth create-token username bob token {typed}",
        f"fastmcp auth check-token token {deleted}",
        f"fastmcp auth delete-token token {deleted} username alice",
        f"fastmcp auth delete-token token {deleted}",
        f"fastmcp auth check-token token {wrong}",
        f"fastmcp auth create-token username alice token {wrong} expire -1",
        f"fastmcp auth create-token username alice token {wrong} token {wrong}",
        f"fastmcp auth create-token username alice tokn {wrong}",
        f"fastmcp auth create-token username alice token '{wrong} with a blank'",
        f"fastmcp auth create-token username alice token '{wrong}",
        f"fastmcp auth chekc-token token {wrong} | json",
    ):
        assert "Traceback" not in terminal.run(line)
    assert status_of_request(worker.url, typed) != 401
    assert [status_of_request(worker.url, token) for token in (deleted, strange, f"{strange} x")] == [401, 401, 401]
    processes = b"".join(
        Path(f"/proc/{pid}/{name}").read_bytes()
        for pid in (worker.pid, terminal.child.pid)
        for name in ("cmdline", "environ")
    )
    assert [secret for secret in SECRETS if secret.encode() in processes] == []
    assert terminal.leave() == 0
    found = {secret: set[str]() for secret in SECRETS}
    for path in environment.folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for secret in SECRETS:
            if secret.encode() in content:
                found[secret].add(path.relative_to(environment.state_folder).parts[0])
    assert found == {typed: {"tokens"}, deleted: set(), wrong: set(), strange: set()}
    assert {path.name for path in environment.logs_folder.iterdir()} >= {f"{DEFAULT_WORKER}.jsonl"}
