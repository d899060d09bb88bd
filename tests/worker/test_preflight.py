"""Preflight checks of a worker that isn't running; they change nothing on disk."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.private_files import write_private
from nfcli.models.errors import WorkerStartError
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker import preflight
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.http.listener import HttpListener
from nfcli.worker.tokens.errors import damaged
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token
from support.workers import EnvironmentFactory

OpenStore = Callable[[], TokenStore]

# A worker that stores a token and is killed before its write-ahead log is folded in.
KILLED = """
import os, sys
from pathlib import Path
from nfcli.models.tasks.auth import BearerTokenStoreInput
from nfcli.worker.tokens.store import TokenStore
store = TokenStore(Path(sys.argv[1]))  # kept: a store that nobody has any more closes its database
store.store(BearerTokenStoreInput(username="ann", token="t1"), before_commit=None)
os._exit(9)
"""


@pytest.fixture
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make an environment whose worker has run: two tokens, three lines in the audit trail."""
    environment = environment_factory()
    environment.prepare()
    with (
        TokenStore(environment.tokens_folder(DEFAULT_WORKER)) as store,
        AuditTrail(environment.audit_file(DEFAULT_WORKER), bytes(32)) as trail,
    ):
        for token in ("t1", "t2", "t3"):
            store_token(store, "ann", token, None, before_commit=trail.before_commit("client"))
        delete_tokens(store, token="t3")
    return environment


@pytest.fixture
def stopped(environment: Environment, raw_database: RawDatabase) -> RawDatabase:
    """Open that worker's database without its store."""
    return type(raw_database)(environment.tokens_folder(DEFAULT_WORKER))


def lines(environment: Environment) -> list[str]:
    """Return the printed results; nothing on disk has changed by the checks."""
    before = contents(environment.folder)
    found = [result.line() for result in preflight.check_worker(environment, DEFAULT_WORKER)]
    assert contents(environment.folder) == before
    return found


def contents(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return mode, time of change and hash of everything in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, digest)
    return found


def without_errors(environment: Environment, *instead: str) -> list[str]:
    """Return the lines of a worker without errors, some of them replaced by those of the same subject."""
    usual = [
        "ok    database: intact, tokens: 2",
        "ok    clock: not behind what the token database has seen",
        "ok    audit trail: intact, lines: 3",
        "ok    MCP: a free port",
        f"ok    endpoint: ipc://{environment.socket_file(DEFAULT_WORKER)}",
    ]
    new = {line[6:].split(":")[0]: line for line in instead}
    return [new.get(line[6:].split(":")[0], line) for line in usual]


def test_a_worker_that_can_start_has_no_errors(environment: Environment) -> None:
    """A line for each thing that its start needs."""
    assert lines(environment) == without_errors(environment)


def test_a_worker_that_never_ran_has_no_errors(environment_factory: EnvironmentFactory) -> None:
    """Files and folders that its first start makes aren't missed."""
    environment = environment_factory()
    assert lines(environment) == [
        "ok    database: none yet, the first start creates it",
        "ok    audit trail: none yet, the first start creates it",
        "ok    MCP: a free port",
        f"ok    endpoint: ipc://{environment.socket_file(DEFAULT_WORKER)}",
    ]


def test_the_files_of_a_killed_worker_are_read_in_place(environment: Environment) -> None:
    """With the write-ahead log, unless SQLite would have to make a file for it."""
    folder = environment.tokens_folder(DEFAULT_WORKER)
    (folder / "cache.db").unlink()
    assert subprocess.run([sys.executable, "-c", KILLED, folder], check=False).returncode == 9
    assert (folder / "cache.db-wal").stat().st_size > 0
    assert lines(environment) == without_errors(environment, "ok    database: intact, tokens: 1")
    (folder / "cache.db-shm").unlink()
    told = "ok    database: not checked: the start has to apply its write-ahead log first"
    assert lines(environment) == [line for line in without_errors(environment, told) if " clock" not in line]


@pytest.mark.parametrize("damage", ["zeros", "cut short", "text"])
def test_a_damaged_database_of_a_stopped_worker_is_found(environment: Environment, damage: str) -> None:
    """With the remedy."""
    file = environment.tokens_folder(DEFAULT_WORKER) / "cache.db"
    data = file.read_bytes()
    file.write_bytes(
        {"zeros": data[:8192] + bytes(12_288) + data[20_480:], "cut short": data[:9000], "text": b"x" * 9000}[damage]
    )
    fault = f"FAULT database: {damaged(file)}"
    assert lines(environment) == [line for line in without_errors(environment, fault) if " clock" not in line]


def test_invalid_rows_are_found(environment: Environment, stopped: RawDatabase) -> None:
    """Pickled and invalid ones are counted together; their values aren't shown."""
    stopped.plant(token="t7", value="x")
    stopped.plant(token="t8", raw=0)
    stopped.run("PRAGMA wal_checkpoint(TRUNCATE)")
    fault = (
        "FAULT database: skipped rows that hold no valid token: 2: store these tokens again with "
        "fastmcp auth create-token"
    )
    assert lines(environment) == without_errors(environment, fault)


def test_a_clock_that_was_set_back_is_found(environment: Environment, stopped: RawDatabase) -> None:
    """Tokens would live longer than they should."""
    stopped.run(f"UPDATE Cache SET value = '{time.time() + 3600!r}' WHERE key = 'latest_time'")  # noqa: S608
    found = lines(environment)
    (fault,) = [line for line in found if line.startswith("FAULT")]
    assert fault in {
        f"FAULT clock: it is {seconds} s behind the latest time that the token database has seen: "
        "set this machine's clock right"
        for seconds in range(3500, 3601)
    }
    assert found == without_errors(environment, fault)


def test_a_tampered_audit_trail_is_found(environment: Environment) -> None:
    """An altered line, a missing one, a missing head; the unfinished line of a crash is no fault."""
    path = environment.audit_file(DEFAULT_WORKER)
    head = path.with_suffix(".head")
    whole, known = path.read_bytes(), head.read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    faults = {
        first + second.replace(b"ann", b"bob") + third: "line 2 is altered",
        first + third: "line 2 is missing",
        first + second: "line 3 is missing",
    }
    for content, fault in faults.items():
        path.write_bytes(content)
        told = f"FAULT audit trail: the audit trail {path} was altered: {fault}; see man page tokens"
        assert lines(environment) == without_errors(environment, told)
    path.write_bytes(whole)
    head.unlink()
    told = "the head file is missing or altered: lines at the end may be missing"
    assert lines(environment) == without_errors(
        environment, f"FAULT audit trail: the audit trail {path} was altered: {told}; see man page tokens"
    )
    head.touch(mode=0o600)
    head.write_bytes(known)
    path.write_bytes(whole + b'{"seq": 4, "ti')
    assert lines(environment) == without_errors(environment)


def test_an_invalid_audit_key_is_found(environment: Environment) -> None:
    """Fingerprints need it."""
    file = environment.audit_key_file(DEFAULT_WORKER)
    write_private(file, b"x")
    remedy = "restore it, or move it away and older lines can't be searched"
    told = f"FAULT audit trail: {file} is not an audit key: {remedy}"
    assert lines(environment) == without_errors(environment, told)


def set_keys(environment: Environment, **keys: object) -> None:
    """Set keys of the worker."""
    assert environment.inventory_file is not None
    inventory = json.loads(environment.inventory_file.read_text())
    inventory["workers"][DEFAULT_WORKER][0] |= keys
    environment.inventory_file.write_text(json.dumps(inventory))


def test_ports_in_use_are_found(environment: Environment) -> None:
    """Of the MCP server and of the endpoint; free ones are released after the check."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        set_keys(environment, port=port, endpoint=f"tcp://127.0.0.1:{port}")
        with pytest.raises(WorkerStartError) as in_use:
            HttpListener.bind(
                WorkerInventory(service="fastmcp", port=port),
                lambda: f"{environment.inventory_file}: workers.{DEFAULT_WORKER}[0].port",
            )
        assert lines(environment) == without_errors(
            environment,
            f"FAULT MCP: {in_use.value}",
            f"FAULT endpoint: endpoint tcp://127.0.0.1:{port} can't be bound: Address already in use: "
            "free it or change `endpoint` in the inventory",
        )
    for _ in range(2):
        assert lines(environment) == without_errors(
            environment,
            f"ok    MCP: http://127.0.0.1:{port}/mcp is available",
            f"ok    endpoint: tcp://127.0.0.1:{port}",
        )


def test_the_port_of_metrics_is_checked(environment: Environment) -> None:
    """One that is taken prevents the start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        set_keys(environment, metrics={"port": port})
        (line,) = [line for line in lines(environment) if "metrics" in line]
        assert line.startswith(f"FAULT metrics: port {port} on 127.0.0.1 is already in use")
    assert f"ok    metrics: port {port} is available" in lines(environment)


@pytest.mark.parametrize("endpoint", ["tcp://*:*", "tcp://[::1]:*", "tcp://localhost:0"])
def test_endpoints_of_every_form_are_checked(environment: Environment, endpoint: str) -> None:
    """Wildcards, IPv6, names."""
    set_keys(environment, endpoint=endpoint)
    assert lines(environment) == without_errors(environment, f"ok    endpoint: {endpoint}")


def test_addresses_of_other_machines_are_found(environment: Environment) -> None:
    """They can't be bound here."""
    set_keys(environment, host="192.0.2.1", endpoint="tcp://192.0.2.1:5555")
    assert lines(environment) == without_errors(
        environment,
        "FAULT MCP: host 192.0.2.1 is not an address of this machine: "
        "set host in the worker's inventory to one that is",
        "FAULT endpoint: endpoint tcp://192.0.2.1:5555 can't be bound: Cannot assign requested address: free it or "
        "change `endpoint` in the inventory",
    )


def test_sockets_that_cannot_be_made_are_found(environment: Environment, tmp_path: Path) -> None:
    """No folder for it, a folder in its place."""
    for path, problem in [
        (tmp_path / "missing" / "w.ipc", f"no folder {tmp_path / 'missing'} that can be written to"),
        (tmp_path, "it is a folder"),
    ]:
        set_keys(environment, endpoint=f"ipc://{path}")
        fault = f"endpoint ipc://{path} can't be bound: {problem}: free it or change `endpoint` in the inventory"
        assert lines(environment) == without_errors(environment, f"FAULT endpoint: {fault}")
    set_keys(environment, endpoint=f"ipc://{tmp_path / 'w.ipc'}")
    assert lines(environment) == without_errors(environment, f"ok    endpoint: ipc://{tmp_path / 'w.ipc'}")


def test_a_short_socket_folder_open_to_others_is_found() -> None:
    """It is used if the environment's path is too long, and made by the first start."""
    environment = Environment(Path("/" + "x" * 110), None)
    file = environment.socket_file(DEFAULT_WORKER)
    folder = file.parent
    assert folder == Path(os.environ["XDG_RUNTIME_DIR"]) / "nfcli"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert preflight.check_default_endpoint(environment, DEFAULT_WORKER).line() == f"ok    endpoint: ipc://{file}"
    folder.chmod(0o755)
    try:
        problem = f"{folder} has mode 0755 and is open to other users: run chmod 700 {folder}"
        found = preflight.check_default_endpoint(environment, DEFAULT_WORKER).line()
        assert found == f"FAULT endpoint: {problem}"
    finally:
        folder.chmod(0o700)


def test_an_invalid_inventory_prevents_no_other_check(environment: Environment) -> None:
    """The shell reports the inventory."""
    set_keys(environment, prot=1)
    assert lines(environment) == without_errors(environment)[:3]
    assert environment.inventory_file is not None
    environment.inventory_file.write_text("workers: {a: [")
    assert lines(environment) == without_errors(environment)[:3]


def test_the_program_prints_results_as_json_lines(environment: Environment) -> None:
    """The shell reads them."""
    command = [sys.executable, "-m", "nfcli.worker.preflight", "--name", DEFAULT_WORKER]
    where = ["--inventory", str(environment.inventory_file)]
    done = subprocess.run([*command, *where], capture_output=True, check=True, text=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        result.model_dump() for result in preflight.check_worker(environment, DEFAULT_WORKER)
    ]
    assert done.stderr == ""


def test_relays_that_the_rules_publish_are_named(environment: Environment) -> None:
    """Only those with their service and task in a rule."""
    assert environment.inventory_file is not None
    inventory = json.loads(environment.inventory_file.read_text(encoding="utf-8"))
    rules = [{"service": "workflow", "tasks": ["run"]}, {"service": "agent"}]
    inventory["workers"][DEFAULT_WORKER][0]["tools"] = {"policy": rules}
    environment.inventory_file.write_text(json.dumps(inventory), encoding="utf-8")
    (found,) = (line for line in lines(environment) if "relays" in line)
    assert found.startswith("ok    relays: published: service_workflow__task_run: MCP clients can run any task")
