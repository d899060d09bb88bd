"""Whether a worker is well: of one that runs by a task, of one that doesn't by a look at what its start would meet.

The look changes nothing on disk: databases and trails are read as they lie there, and ports are given back at once. It
is a program of its own, `python -m nfcli.worker.preflight`: without the parts that only a worker needs it starts in a
quarter of the time.
"""

from __future__ import annotations

import argparse
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ..models.environment.curve_keys import ensure_audit_key
from ..models.environment.paths import Environment, find_environment
from ..models.environment.private_files import open_private, tree_problems
from ..models.errors import EXIT_OK, EnvironmentFolderError, InventoryError, KeyFileError, WorkerStartError
from ..models.inventory.loader import load_inventory
from ..models.inventory.schema import WorkerInventory
from ..models.tasks.health import CheckResult, clock_result, rows_result
from .audit.chain import Head, backwards, recover_head, verify_chain
from .http.listener import HttpListener
from .jobs.plugins import let_in, not_found, place_of
from .tokens.files import DATABASE_NAME, companion
from .tokens.rows import LoadedTokens, read_rows

_HEAD_MAX_BYTES = 100


def findings(environment: Environment, name: str) -> Iterator[CheckResult]:
    """Look at everything that the start of a worker that isn't running would need; faults stop nothing."""
    yield from _database(environment.tokens_folder(name) / DATABASE_NAME)
    yield _audit(environment, name)
    try:
        inventory = load_inventory(environment, []).workers.get(name)
    except InventoryError:  # the shell tells of it
        inventory = None
    if inventory is not None:
        yield from _plugins(environment, inventory)
        yield _mcp(inventory)
        yield _endpoint(environment, name, inventory)


def _database(file: Path) -> Iterator[CheckResult]:
    try:
        if not file.exists() or file.stat().st_size == 0:
            yield CheckResult(subject="database", detail="none yet, the first start makes it")
            return
        if _has_log(file) and not companion(file, "-shm").exists():
            yield CheckResult(
                subject="database", detail="not looked into, as its log has to be folded in first: the start does it"
            )
            return
        with closing(_opened(file)) as connection:
            is_whole = connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
            loaded = read_rows(connection) if is_whole else None
    except sqlite3.Error:
        loaded = None
    except OSError as error:
        yield CheckResult(
            subject="database", error=f"{file} can't be read: {error.strerror}: see to its owner, mode and mount"
        )
        return
    if loaded is not None:
        yield from _contents(loaded)
    else:
        fault = f"{file} is damaged or no token database: move it away and restore a backup, see man page backup"
        yield CheckResult(subject="database", error=fault)


def _has_log(file: Path) -> bool:
    log = companion(file, "-wal")
    return log.exists() and log.stat().st_size > 0


def _contents(loaded: LoadedTokens) -> Iterator[CheckResult]:
    now = time.time()
    tokens = sum(record.is_live(now) for record in loaded.records)
    yield rows_result(tokens, loaded.pickled + loaded.invalid)
    yield clock_result(0.0 if loaded.latest is None else loaded.latest - now)


def _opened(file: Path) -> sqlite3.Connection:
    """Open a database that nobody has open, so that no file is made or changed, its write-ahead log included."""
    # What a worker that was killed has left: SQLite then reads its shared memory too, but doesn't write to it.
    how = "mode=ro&readonly_shm=1" if _has_log(file) else "immutable=1"
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _audit(environment: Environment, name: str) -> CheckResult:
    path, key = environment.audit_file(name), environment.audit_key_file(name)
    try:
        if os.path.lexists(key):
            ensure_audit_key(key)
        if not os.path.lexists(path):
            return CheckResult(subject="audit trail", detail="none yet, the first start makes it")
        head, fault = _audit_fault(path)
    except (EnvironmentFolderError, KeyFileError) as error:
        return CheckResult(subject="audit trail", error=str(error))
    except OSError as error:
        return CheckResult(subject="audit trail", error=f"{path} can't be read: {error.strerror}: see to that disk")
    if fault:
        fault = f"{path} is not as it was written: {fault}: see man page tokens"
    return CheckResult(subject="audit trail", error=fault or "", detail=f"whole, lines in it: {head.seq}")


def _audit_fault(path: Path) -> tuple[Head, str | None]:
    """Return how far a trail has come and what is wrong with it; the unfinished line of a crash is no fault."""
    try:
        with open_private(path.with_suffix(".head"), "rb") as stream:
            known = Head.decode(stream.read(_HEAD_MAX_BYTES))
    except FileNotFoundError:
        known = None
    with open_private(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        lines = backwards(stream.fileno(), size)
        unfinished = len(next(lines))
        head, found = recover_head(lines, known)
        return head, "; ".join(found) or verify_chain(stream, size - unfinished, head)


def _plugins(environment: Environment, inventory: WorkerInventory) -> Iterator[CheckResult]:
    if inventory.plugins:
        let_in(environment.folder)
    for name in inventory.plugins:
        place = place_of(name)
        if place is None:
            yield CheckResult(subject="plugins", error=str(not_found(name)))
        else:
            yield CheckResult(
                subject="plugins", detail=f"{name} would be imported from {place}, which is not done to look"
            )


def _mcp(inventory: WorkerInventory) -> CheckResult:
    try:
        with HttpListener.bind(inventory) as listener:
            url = listener.url
    except WorkerStartError as error:
        return CheckResult(subject="MCP", error=str(error))
    return CheckResult(subject="MCP", detail="a free port" if inventory.port == 0 else f"{url} can be had")


def _endpoint(environment: Environment, name: str, inventory: WorkerInventory) -> CheckResult:
    endpoint = inventory.endpoint or f"ipc://{environment.socket_file(name)}"
    try:
        if endpoint.startswith("ipc://"):
            problem = _socket_problem(environment, Path(endpoint.removeprefix("ipc://")), inventory)
        else:
            problem = _bind_problem(endpoint.removeprefix("tcp://"))
    except OSError as error:
        problem = error.strerror
    if problem:
        fault = f"{endpoint} can't be bound: {problem}: free it or change `endpoint` in the inventory"
        return CheckResult(subject="endpoint", error=fault)
    return CheckResult(subject="endpoint", detail=endpoint)


def _socket_problem(environment: Environment, file: Path, inventory: WorkerInventory) -> str | None:
    """Return why a socket can't be made, None where it can."""
    if file.is_dir():
        return "a folder is in the way"
    if inventory.endpoint is not None:
        return None if os.access(file.parent, os.W_OK | os.X_OK) else f"no folder {file.parent} that can be written to"
    if file.parent == environment.run_folder.absolute():
        return None  # the shell looks through the environment's own folders
    return next((problem for problem, _ in tree_problems(file.parent)), None)


def _bind_problem(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    number = 0 if port == "*" else int(port)
    name = None if host == "*" else host.strip("[]")
    for family, kind, protocol, _, where in socket.getaddrinfo(
        name, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
        if name is not None:
            break  # ZeroMQ takes the first address of a name
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Print what there is to say of a worker that isn't running, a JSON line for each finding."""
    parser = argparse.ArgumentParser(
        prog="python -m nfcli.worker.preflight", description="Look at what a start would meet."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--environment", type=Path, help="folder of an environment that has no inventory")
    where.add_argument("--inventory", type=Path, help="inventory file")
    parser.add_argument("--name", required=True, help="name of the worker")
    arguments = parser.parse_args(argv)
    folder = arguments.environment
    environment = find_environment(arguments.inventory) if folder is None else Environment(folder.resolve(), None)
    for finding in findings(environment, arguments.name):
        sys.stdout.write(f"{finding.model_dump_json()}\n")
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
