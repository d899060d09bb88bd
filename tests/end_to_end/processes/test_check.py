"""`nfcli --check` in environments of every state, with real workers and faults planted one by one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nfcli import NorFab
from nfcli.models.environment.fleet_key import read_fleet_key
from nfcli.models.environment.paths import DEFAULT_WORKER as NAME
from nfcli.models.environment.paths import Environment
from nfcli.models.environment.worker_lock import WorkerLock
from nfcli.models.errors import WorkerStartError
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.shell.cli import main
from nfcli.worker.http.listener import HttpListener
from nfcli.worker.tokens.errors import damaged
from support.programs import InTime
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner

pytestmark = pytest.mark.slow

Check = Callable[..., tuple[int, list[str]]]
DATABASE, TRAIL = "intact, tokens: 1", "intact, lines: 1"


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Check an environment in this process; return exit status and the lines on stdout; stderr stays empty."""

    def run(environment: Environment) -> tuple[int, list[str]]:
        status, said = main(["-i", str(environment.inventory_file), "--check", "offline"]), capsys.readouterr()
        assert said.err == ""
        return status, said.out.splitlines()

    return run


@pytest.fixture(scope="module")
def template(environment_factory: EnvironmentFactory, running_worker: WorkerRunner) -> Environment:
    """Return an environment whose worker has run, and has stored a token."""
    environment = environment_factory()
    with running_worker(environment), NorFab(environment.inventory_file) as norfab:
        kwargs = {"username": "ann", "token": "t1"}
        (result,) = norfab.make_client().run_job("fastmcp", "bearer_token_store", kwargs=kwargs).values()
    assert result["result"] is True
    return environment


@pytest.fixture
def site(template: Environment, tmp_path: Path) -> Environment:
    """Return a copy of that environment."""
    folder = shutil.copytree(template.folder, tmp_path / "site")
    return Environment(folder, folder / "inventory.yaml")


def stopped(site: Environment) -> list[str]:
    """Return the output for an environment without faults whose worker doesn't run."""
    return [
        f"ok    environment: {site.state_folder} is private",
        f"ok    inventory: {site.inventory_file}, workers of this machine: {NAME}",
        "ok    client key: authorized",
        f"ok    fleet key: id {read_fleet_key(site).id}",
        f"ok    {NAME} key: a valid pair",
        "ok    clients/client.key: authorized",
        f"ok    {NAME}: not running",
        f"ok    {NAME} database: {DATABASE}",
        f"ok    {NAME} clock: not behind what the token database has seen",
        f"ok    {NAME} audit trail: {TRAIL}",
        f"ok    {NAME} MCP: a free port",
        f"ok    {NAME} endpoint: ipc://{site.socket_file(NAME)}",
        f"ok    {NAME} exposure: reachable from this machine, with a token",
    ]


def with_faults(lines: list[str], faults: dict[str, list[str]]) -> list[str]:
    """Return the lines with those of some subjects replaced; an empty list removes the subject."""
    found = []
    for line in lines:
        what = line[6:].partition(": ")[0]
        found += [line] if what not in faults else [f"FAULT {what}: {fault}" for fault in faults[what]]
    return found


def contents(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return mode, time of change and hash of everything in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, digest)
    return found


def set_keys(site: Environment, **keys: object) -> None:
    """Set keys of the worker."""
    assert site.inventory_file is not None
    inventory = json.loads(site.inventory_file.read_text())
    inventory["workers"][NAME][0] |= keys
    site.inventory_file.write_text(json.dumps(inventory))


# Faults. Each one breaks an environment and returns the expected errors by subject.
Faults = dict[str, list[str]]


def widen_a_folder(site: Environment) -> Faults:
    """Open the logs to other users."""
    (folder := site.logs_folder).chmod(0o755)
    return {"environment": [f"{folder} has mode 0755 and is open to other users: run chmod 700 {folder}"]}


def link_a_file(site: Environment) -> Faults:
    """Put a link where it is found first."""
    link = site.state_folder / ".a-link"
    link.symlink_to("/dev/null")
    return {"environment": [f"{link} is a symbolic link: replace it with what it points to"]}


def change_the_owner_of_a_file(site: Environment) -> Faults:
    """Let a file belong to another user."""
    if os.geteuid():
        pytest.skip("only root can give files away")
    file = site.logs_folder / "theirs"
    file.touch(mode=0o600)
    shutil.chown(file, 12345)
    said = f"{file} belongs to user 12345, not to user root who runs nfcli: run nfcli as that user, or run chown root"
    return {"environment": [f"{said} {file}"]}


def swap_the_workers_public_key(site: Environment) -> Faults:
    """Replace the worker's public key by the client's."""
    public = site.keys_folder / f"{NAME}.key"
    public.write_bytes((site.keys_folder / "client.key").read_bytes())
    return {f"{NAME} key": [f"{public} doesn't match {public}_secret: move it away and it will be restored"]}


def shut_the_client_out(site: Environment) -> Faults:
    """Revoke the client's key."""
    (site.clients_folder / "client.key").unlink()
    said = f"no file in {site.clients_folder} authorizes it: copy {site.keys_folder / 'client.key'} there"
    return {"client key": [said], "clients/client.key": []}


def garble_the_client_key(site: Environment) -> Faults:
    """Overwrite the client's secret key."""
    secret = site.keys_folder / "client.key_secret"
    secret.write_text("x")
    return {"client key": [f"{secret} is not a secret key file: it needs a line public-key and a line secret-key"]}


def misspell_a_key(site: Environment) -> Faults:
    """Write an unknown key."""
    set_keys(site, prot=1)
    said = f"{site.inventory_file}: workers.{NAME}[0].prot: no such key, did you mean port?"
    return {"inventory": [said], **{f"{NAME} {what}": [] for what in ("MCP", "endpoint", "exposure")}}


def serve_everybody(site: Environment) -> Faults:
    """Serve without authentication where other machines can reach it."""
    set_keys(site, host="0.0.0.0", authentication_enabled=False)  # noqa: S104  that is the fault
    said = (
        "other machines can reach host 0.0.0.0 and authentication is off: set authentication_enabled: true in the "
        "worker's inventory, or allow_unauthenticated: true if that is meant"
    )
    return {f"{NAME} exposure": [said]}


def damage_the_database(site: Environment) -> Faults:
    """Overwrite a part of the database."""
    file = site.tokens_folder(NAME) / "cache.db"
    data = file.read_bytes()
    file.write_bytes(data[:4096] + b"\xff" * 8192 + data[12_288:])
    said = str(damaged(file))
    return {f"{NAME} database": [said], f"{NAME} clock": []}


def plant_rows(site: Environment) -> Faults:
    """Put a row into the database that is not a token."""
    with closing(sqlite3.connect(site.tokens_folder(NAME) / "cache.db", isolation_level=None)) as connection:
        connection.execute("INSERT INTO Cache(key, raw, mode, value) VALUES('bearer_token::t9', 1, 1, 'x')")
    said = "skipped rows that hold no valid token: 1: store these tokens again with fastmcp auth create-token"
    return {f"{NAME} database": [said]}


def alter_the_trail(site: Environment) -> Faults:
    """Change a name in the audit trail."""
    file = site.audit_file(NAME)
    file.write_bytes(file.read_bytes().replace(b'"ann"', b'"bob"'))
    said = f"the audit trail {file} was altered: line 1 is altered; see man page tokens"
    return {f"{NAME} audit trail": [said]}


ALONE = [change_the_owner_of_a_file, misspell_a_key, damage_the_database, garble_the_client_key]
TOGETHER = [
    *(widen_a_folder, link_a_file, swap_the_workers_public_key, shut_the_client_out),
    *(serve_everybody, plant_rows, alter_the_trail),
]


@pytest.mark.parametrize("fault", [*ALONE, *TOGETHER], ids=lambda fault: fault.__name__)
def test_a_fault_is_found_with_its_remedy_and_hides_nothing_else(
    site: Environment, check: Check, fault: Callable[[Environment], Faults]
) -> None:
    """All other lines are those without the fault; nothing is fixed, created or changed."""
    faults = fault(site)
    before = contents(site.folder)
    assert check(site) == (1, with_faults(stopped(site), faults))
    assert contents(site.folder) == before


def test_many_faults_are_all_found_at_once(site: Environment, check: Check) -> None:
    """In one run, in the order of the subjects; each remedy is shown once."""
    faults: Faults = {}
    for fault in TOGETHER:
        for what, said in fault(site).items():
            faults[what] = sorted([*faults.get(what, []), *said])
    assert check(site) == (1, with_faults(stopped(site), faults))


def test_an_environment_without_faults_is_not_changed(site: Environment, check: Check) -> None:
    """Status 0, one line for each check."""
    before = contents(site.folder)
    assert check(site) == (0, stopped(site))
    assert contents(site.folder) == before


def test_files_that_are_open_to_others_are_listed_once_each(site: Environment, check: Check) -> None:
    """As after copying without modes; the content of the database is checked nevertheless."""
    for path in site.state_folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    status, lines = check(site)
    paths = sorted(path for path in site.state_folder.rglob("*"))
    named = [
        line.partition(" has mode")[0].removeprefix("FAULT environment: ") for line in lines if " has mode" in line
    ]
    assert (status, sorted(named)) == (1, [str(path) for path in paths])
    assert f"ok    {NAME} database: {DATABASE}" in lines


def test_before_the_first_start_it_names_what_creates_the_environment(
    environment_factory: EnvironmentFactory, check: Check
) -> None:
    """And creates nothing itself."""
    fresh = environment_factory()
    missing = f"{fresh.state_folder} doesn't exist yet: run nfcli -w, or a command that needs a worker, to create it"
    assert check(fresh) == (
        1,
        [
            f"FAULT environment: {missing}",
            f"ok    inventory: {fresh.inventory_file}, workers of this machine: {NAME}",
            f"ok    {NAME}: not running",
            f"ok    {NAME} database: none yet, the first start creates it",
            f"ok    {NAME} audit trail: none yet, the first start creates it",
            f"ok    {NAME} MCP: a free port",
            f"ok    {NAME} endpoint: ipc://{fresh.socket_file(NAME)}",
            f"ok    {NAME} exposure: reachable from this machine, with a token",
        ],
    )
    assert [path.name for path in fresh.folder.iterdir()] == ["inventory.yaml"]


def test_without_an_inventory_everything_else_is_checked(site: Environment, check: Check, tmp_path: Path) -> None:
    """One that can't be parsed, and one that is missing."""
    assert site.inventory_file is not None
    site.inventory_file.write_text("workers: {a: [")
    status, lines = check(site)
    gone = ("inventory", f"{NAME} MCP", f"{NAME} endpoint", f"{NAME} exposure")
    kept = [line for line in stopped(site) if line[6:].partition(": ")[0] not in gone]
    assert (status, [lines[0], *lines[2:]]) == (1, kept)
    assert lines[1].startswith(f"FAULT inventory: {site.inventory_file}:1: ")
    missing = Environment(tmp_path, tmp_path / "no.yaml")
    remedy = "name an existing one with -i, or create one with --create-env DIR"
    assert check(missing) == (1, [f"FAULT inventory: {missing.inventory_file}: no such inventory file: {remedy}"])


def test_without_arguments_the_default_environment_is_checked(nfcli: NfcliRunner, home: Path) -> None:
    """On a fresh machine it doesn't exist, and isn't created."""
    done = nfcli("--check")
    first, second, *_ = done.stdout.splitlines()
    assert (done.returncode, done.stderr, second) == (
        1,
        "",
        f"ok    inventory: built in, workers of this machine: {NAME}",
    )
    assert first.startswith(f"FAULT environment: {home / '.local' / 'state' / 'nfcli' / '.nfcli'} doesn't exist yet: ")
    assert not list(home.iterdir())


# Workers that run


@pytest.fixture(scope="module")
def running(environment_factory: EnvironmentFactory, running_worker: WorkerRunner) -> Iterator[tuple[Environment, Any]]:
    """Run a worker with a token."""
    environment = environment_factory()
    with running_worker(environment) as worker, NorFab(environment.inventory_file) as norfab:
        norfab.make_client().run_job("fastmcp", "bearer_token_store", kwargs={"username": "ann", "token": "t1"})
        yield environment, worker


def alive(site: Environment, worker: RunningWorker) -> list[str]:
    """Return the output for an environment without faults whose worker runs."""
    return [
        *stopped(site)[:6],
        f"ok    {NAME}: running, pid {worker.process.pid}, at {worker.endpoint}",
        f"ok    {NAME} database: {DATABASE}",
        f"ok    {NAME} clock: not behind what the token database has seen",
        f"ok    {NAME} audit trail: {TRAIL}",
        f"ok    {NAME} exposure: reachable from this machine, with a token",
        f"ok    {NAME} MCP: {worker.url} answers",
    ]


def test_a_worker_that_runs_is_asked(running: tuple[Environment, RunningWorker], check: Check) -> None:
    """Its port isn't reported as in use."""
    assert check(running[0]) == (0, alive(*running))


def test_a_worker_that_hangs_is_reported_in_three_seconds(
    running: tuple[Environment, RunningWorker], check: Check, in_time: InTime
) -> None:
    """Everything else is checked meanwhile."""
    site, worker = running
    worker.process.send_signal(signal.SIGSTOP)
    try:
        status, lines = in_time(4.5, lambda: check(site))
    finally:
        worker.process.send_signal(signal.SIGCONT)
    hangs = f"worker {NAME} at {worker.endpoint} accepts connections but doesn't answer within 2.5 s"
    silent = f"{worker.url} is not healthy (timed out)"
    assert status == 1
    assert lines == [
        *alive(*running)[:6],
        f"FAULT {NAME}: pid {worker.process.pid}: {hangs}: check its log, or restart it",
        f"ok    {NAME} exposure: reachable from this machine, with a token",
        f"FAULT {NAME} MCP: {silent}: see the worker's log, or restart it",
    ]


def test_a_worker_that_refuses_the_client_is_reported(running: tuple[Environment, RunningWorker], check: Check) -> None:
    """Whether it runs and serves MCP is checked nevertheless."""
    site, worker = running
    key = site.clients_folder / "client.key"
    content = key.read_bytes()
    key.unlink()
    try:
        status, lines = check(site)
    finally:
        key.touch(mode=0o600)
        key.write_bytes(content)
    assert status == 1
    remedy = f"copy {site.keys_folder / 'client.key'} there"
    denied = f"the worker at {worker.endpoint} doesn't know this client's key: put the client's .key file into"
    assert [line for line in lines if line.startswith("FAULT")] == [
        f"FAULT client key: no file in {site.clients_folder} authorizes it: {remedy}",
        f"FAULT {NAME}: pid {worker.process.pid}: {denied} the worker's .nfcli/clients/ with nfcli --authorize",
    ]
    assert lines[-1] == f"ok    {NAME} MCP: {worker.url} answers"


def test_a_process_that_never_becomes_ready_is_reported(site: Environment, check: Check, in_time: InTime) -> None:
    """It holds the worker's name."""
    lock = WorkerLock.acquire(site.lock_file(NAME))
    try:
        status, lines = in_time(4.5, lambda: check(site))
    finally:
        lock.release()
    assert status == 1
    faults = [line for line in lines if line.startswith("FAULT")]
    assert len(faults) == 1
    assert faults[0].startswith(f"FAULT {NAME}: pid ")
    assert faults[0].endswith(" was not ready within 3 s: see its log, or end it and start it again")


def test_a_port_in_use_is_found(site: Environment, nfcli: NfcliRunner) -> None:
    """By the installed program, as users run it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        set_keys(site, port=port)
        key = f"{site.inventory_file}: workers.{NAME}[0].port"
        with pytest.raises(WorkerStartError) as in_use:
            HttpListener.bind(WorkerInventory(service="fastmcp", port=port), lambda: key)
        done = nfcli("--check", "offline", environment=site)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == with_faults(stopped(site), {f"{NAME} MCP": [str(in_use.value)]})
