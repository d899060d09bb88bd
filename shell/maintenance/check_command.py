"""`nfcli --check`: check everything that an environment needs; one line for each check, with the remedy if it fails.

Nothing is created, changed or started. A failed check doesn't keep the others from being made.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...models.environment.curve_keys import (
    CLIENT_NAME,
    KeyPair,
    find_key_pair,
    read_client_key,
    read_public_key,
    read_worker_key,
)
from ...models.environment.fleet_key import find_fleet_key
from ...models.environment.locations import find_environment
from ...models.environment.paths import Environment, worker_name_problem
from ...models.environment.private_files import tree_problems
from ...models.errors import EXIT_FAILED, EXIT_OK, EnvironmentFolderError, InventoryError, KeyFileError
from ...models.inventory.loader import load_inventory
from ...models.inventory.schema import Inventory
from ...models.protocol.broker_connection import BrokerAddress
from ...models.protocol.broker_key import FILE_NAME as BROKER_KEY
from ...models.tasks.health import CheckResult
from ..client.norfab import broker_address
from ..output.console import Console
from ..text import escape_line
from .worker_checks import WorkerChecks


def run_checks(inventory: str | Path | None, state: Path | None = None, *, offline: bool = False) -> int:
    """Print a line for each check; return the exit status, 1 if one has failed.

    A worker of this machine that isn't running is a failure unless `offline`.

    Takes up to 3 s for a worker that doesn't answer, and up to 30 s for one whose database or trail is very large.
    """
    console = Console(sys.stdout, sys.stderr)
    errors: set[str] = set()
    for result in _check(inventory, state, offline=offline):
        if not (
            result.error and any(result.error.endswith(known) for known in errors)
        ):  # several checks find a file that is open to other users
            console.result(escape_line(result.line()))
        if result.error:
            errors.add(result.error)
    return EXIT_FAILED if errors else EXIT_OK


def _check(inventory_path: str | Path | None, state: Path | None, *, offline: bool) -> Iterator[CheckResult]:
    try:
        environment = find_environment(inventory_path, state)
        inventory, results = _check_inventory(environment)
        environment = environment if inventory is None else environment.with_state(inventory.state)
    except (InventoryError, EnvironmentFolderError) as error:
        yield CheckResult(subject="inventory" if isinstance(error, InventoryError) else "environment", error=str(error))
        return
    yield from _check_state_folder(environment)
    yield from results
    keys: KeyPair | None = None
    if environment.keys_folder.is_dir():
        keys, result = _check_client_key(environment, decider=_key_decider(inventory))
        yield result
        yield _check_fleet_key(environment)
        yield from _check_other_keys(environment, inventory)
    address, results = _check_broker_key(environment, inventory)
    checks = WorkerChecks(environment, inventory, keys, address, offline=offline)
    yield from results
    if address is not None and inventory is not None:
        yield from checks.check_broker(address, inventory)
    elif inventory is not None and inventory.broker is None:
        yield from checks.check_fleet(inventory, inventory.workers)
    names, remote = _local_workers(environment, inventory), _remote_workers(inventory)
    with ThreadPoolExecutor(1 + WorkerChecks.CHECKS * len(names) + len(remote)) as pool:
        tokens = pool.submit(checks.check_tokens)
        submitted = [(name, checks.submit(pool, name)) for name in names]
        submitted += [(name, [pool.submit(checks.check_remote, name)]) for name in remote]
        for name, futures in submitted:
            yield from (result.for_worker(name) for future in futures for result in future.result())
        yield from tokens.result()


def _check_state_folder(environment: Environment) -> Iterator[CheckResult]:
    try:
        environment.verify_folder()
    except EnvironmentFolderError as untrusted:
        yield CheckResult(subject="environment", error=str(untrusted))
    state = environment.state_folder
    if not os.path.lexists(state):
        error = f"{state} doesn't exist yet: run nfcli -w, or a command that needs a worker, to create it"
        yield CheckResult(subject="environment", error=error)
        return
    problems = [problem for problem, _ in tree_problems(*environment.verified_paths())]
    problems += [
        f"{folder} must be a folder: move away what is there"
        for folder in environment.private_folders
        if os.path.lexists(folder) and not folder.is_dir() and not folder.is_symlink()
    ]
    problems += [
        f"{folder} can't be written: run chmod 700 {shlex.quote(str(folder))}"
        for folder in environment.private_folders
        if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    ]
    yield from (CheckResult(subject="environment", error=problem) for problem in problems)
    if not problems:
        yield CheckResult(subject="environment", detail=f"{state} is private")


def _check_inventory(environment: Environment) -> tuple[Inventory | None, list[CheckResult]]:
    errors: list[InventoryError] = []
    inventory: Inventory | None = None
    try:
        inventory = load_inventory(environment, errors)
    except InventoryError as error:
        errors.append(error)
    if inventory is None or errors:
        return inventory, [CheckResult(subject="inventory", error=str(error)) for error in errors]
    names = ", ".join(inventory.topology.workers) or "none"
    detail = f"{environment.inventory_file or 'built in'}, workers of this machine: {names}"
    return inventory, [CheckResult(subject="inventory", detail=detail)]


def _check_broker_key(
    environment: Environment, inventory: Inventory | None
) -> tuple[BrokerAddress | None, list[CheckResult]]:
    """Return the broker's address, None if the inventory has no broker, and the results about its key."""
    try:
        address = None if inventory is None else broker_address(environment, inventory)
    except InventoryError as error:
        return None, [CheckResult(subject="broker key", error=str(error))]
    if address is None:
        return None, []
    if address.key is None:
        return address, [CheckResult(subject="broker key", detail="none, as zmq_auth is false: nothing is encrypted")]
    return address, [CheckResult(subject="broker key", detail=address.key.notice or address.key.source)]


def _local_workers(environment: Environment, inventory: Inventory | None) -> list[str]:
    """Return the workers to check: those of the inventory, or without one those that have a token database."""
    if inventory is not None:
        names: Iterable[str] = inventory.topology.workers
    else:
        folder = environment.state_folder / "tokens"
        names = sorted(path.name for path in folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []
    return [name for name in names if worker_name_problem(name) is None]


def _remote_workers(inventory: Inventory | None) -> list[str]:
    """Return the workers of other machines that are reached without a broker."""
    if inventory is None or inventory.broker is not None:
        return []
    return [name for name in inventory.workers if name not in inventory.topology.workers]


def _requires_signatures(inventory: Inventory | None) -> bool:
    workers = {} if inventory is None else inventory.workers
    return any(worker.signed_jobs == "required" for worker in workers.values())


def _key_decider(inventory: Inventory | None) -> str:
    """Return who decides about the client's key, empty where it is the workers of this machine."""
    if inventory is None or _requires_signatures(inventory):
        return ""
    if inventory.broker is not None:
        return "the broker accepts any key"
    return "" if inventory.topology.workers else "workers of other machines decide about it"


def _check_client_key(environment: Environment, *, decider: str) -> tuple[KeyPair | None, CheckResult]:
    """Check the client's pair and, where workers of this machine consult `clients/`, that it is authorized there."""
    subject, clients = "client key", environment.clients_folder
    try:
        pair = find_key_pair(environment.keys_folder, CLIENT_NAME)
    except KeyFileError as error:
        return None, CheckResult(subject=subject, error=str(error))
    if pair is None:
        return None, CheckResult(subject=subject, detail="none yet, the first command creates it")
    if decider:
        return pair, CheckResult(subject=subject, detail=f"a valid pair; {decider}")
    if pair.public in {key for key in map(_read_public_key, sorted(clients.glob("*.key"))) if key}:
        return pair, CheckResult(subject=subject, detail="authorized")
    remedy = f"copy {environment.keys_folder / f'{CLIENT_NAME}.key'} there"
    return pair, CheckResult(subject=subject, error=f"no file in {clients} authorizes it: {remedy}")


def _check_fleet_key(environment: Environment) -> CheckResult:
    try:
        key = find_fleet_key(environment)
    except KeyFileError as error:
        return CheckResult(subject="fleet key", error=str(error))
    return CheckResult(
        subject="fleet key", detail="none yet, the first start creates it" if key is None else f"id {key.id}"
    )


def _read_public_key(path: Path) -> bytes | None:
    try:
        return read_public_key(path)
    except KeyFileError:
        return None


def _check_other_keys(environment: Environment, inventory: Inventory | None) -> Iterator[CheckResult]:
    """Check the keys of the workers, of other machines too, and those of the authorized clients."""
    folder = environment.keys_folder
    names = {path.stem for path in folder.iterdir() if path.suffix in {".key", ".key_secret"}}
    local, remote, others = (
        set(_local_workers(environment, inventory)),
        set(),
        {CLIENT_NAME, environment.fleet_key_file.stem},
    )
    if inventory is not None and inventory.broker is not None:
        others |= {Path(BROKER_KEY).stem} - local  # the broker has the keys of remote workers
    elif inventory is not None:
        remote = {*_remote_workers(inventory)}
    for name in sorted((names | local | remote) - others):
        yield _check_worker_key(folder, name, is_remote=name in remote).for_worker(name)
    for path in sorted(environment.clients_folder.glob("*.key")):
        yield _check_authorized_key(path, needs_signing_key=_requires_signatures(inventory))
    for path in sorted(environment.verifiers_folder.glob("*.key")):
        yield _check_authorized_key(path, needs_signing_key=False)


def _check_authorized_key(path: Path, *, needs_signing_key: bool) -> CheckResult:
    subject = f"{path.parent.name}/{path.name}"
    try:
        key = read_client_key(path)
    except KeyFileError as error:
        return CheckResult(subject=subject, error=str(error))
    if key.signing is not None or not needs_signing_key:
        return CheckResult(subject=subject, detail="authorized")
    missing = f"{path} has no signing key, and signed_jobs is required here"
    remedy = "run nfcli on that client's machine, and authorize its .nfcli/keys/client.key again (nfcli --authorize)"
    return CheckResult(subject=subject, error=f"{missing}: {remedy}")


def _check_worker_key(folder: Path, name: str, *, is_remote: bool) -> CheckResult:
    public = folder / f"{name}.key"
    try:
        if is_remote and not os.path.lexists(folder / f"{name}.key_secret"):
            read_worker_key(public)
            return CheckResult(subject="key", detail="the public key of a worker on another machine")
        pair = find_key_pair(folder, name)
    except KeyFileError as error:
        return CheckResult(subject="key", error=str(error))
    return CheckResult(subject="key", detail="a valid pair" if pair else "none yet, the first start creates it")
