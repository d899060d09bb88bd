"""`nfcli --check`: look at all that an environment needs and say of each thing that it is well, or what to do about it.

Nothing is made, changed or started for it. What is wrong in one place keeps nothing else from being looked at.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...models.environment.curve_keys import CLIENT_NAME, KeyPair, find_key_pair, read_public_key
from ...models.environment.paths import Environment, find_environment, worker_name_problem
from ...models.environment.private_files import tree_problems
from ...models.errors import EXIT_FAILED, EXIT_OK, InventoryError, KeyFileError
from ...models.inventory.loader import load_inventory
from ...models.inventory.schema import Inventory
from ...models.protocol.broker_connection import BrokerAddress
from ...models.protocol.broker_key import FILE_NAME as BROKER_KEY
from ...models.tasks.health import CheckResult
from ..client.norfab import broker_address
from ..output.console import Console
from ..text import escape_line
from .check_workers import Site


def check(inventory: Path | None) -> int:
    """Print a line for each thing that was looked at; return the exit status.

    Takes 3 s at most for a worker that doesn't answer, and 30 s for one whose database or trail is very large.

    Args:
        inventory: as `nfcli -i` gives it.
    """
    console = Console(sys.stdout, sys.stderr)
    has_fault = False
    said: set[str] = set()
    for finding in _findings(inventory):
        has_fault |= bool(finding.error)
        if not finding.error or finding.error not in said:  # a file that is open to others is met in several places
            console.result(escape_line(finding.line()))
        said.add(finding.error)
    return EXIT_FAILED if has_fault else EXIT_OK


def _findings(inventory_path: Path | None) -> Iterator[CheckResult]:
    try:
        environment = find_environment(inventory_path)
    except InventoryError as error:
        yield CheckResult(subject="inventory", error=str(error))
        return
    yield from _folder(environment)
    inventory, faults = _inventory(environment)
    yield from faults
    keys: KeyPair | None = None
    if environment.keys_folder.is_dir():
        keys, finding = _client_key(environment, is_direct=inventory is None or inventory.broker is None)
        yield finding
        yield from _other_keys(environment, inventory)
    address, findings = _broker(environment, inventory)
    site = Site(environment, inventory, keys, address)
    yield from findings
    if address is not None and inventory is not None:
        yield site.look_at_broker(address, inventory)
    names = _workers_here(environment, inventory)
    with ThreadPoolExecutor(max(1, Site.LOOKS * len(names))) as pool:
        pending = [(name, site.begin(pool, name)) for name in names]
        for name, looks in pending:
            yield from (finding.for_worker(name) for look in looks for finding in look.result())


def _folder(environment: Environment) -> Iterator[CheckResult]:
    state = environment.state_folder
    if not os.path.lexists(state):
        fault = (
            f"there is none yet in {environment.folder}: the first command that needs a worker makes it, or nfcli -w"
        )
        yield CheckResult(subject="environment", error=fault)
        return
    problems = [problem for problem, _ in tree_problems(state)]
    problems += [
        f"{folder} is in the way: a folder is needed there"
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
        yield CheckResult(subject="environment", detail=f"{state} is for this user alone")


def _inventory(environment: Environment) -> tuple[Inventory | None, list[CheckResult]]:
    where = str(environment.inventory_file or "built in")
    faults: list[InventoryError] = []
    inventory: Inventory | None = None
    try:
        inventory = load_inventory(environment, faults)
    except InventoryError as error:
        faults.append(error)
    if inventory is None or faults:
        return inventory, [CheckResult(subject="inventory", error=str(fault)) for fault in faults]
    names = ", ".join(inventory.topology.workers) or "no worker"
    return inventory, [CheckResult(subject="inventory", detail=f"{where}, to run here: {names}")]


def _broker(environment: Environment, inventory: Inventory | None) -> tuple[BrokerAddress | None, list[CheckResult]]:
    """Return where the broker is, None where the inventory has none, and what there is to say of its key."""
    try:
        address = None if inventory is None else broker_address(environment, inventory)
    except InventoryError as error:
        return None, [CheckResult(subject="broker key", error=str(error))]
    if address is None:
        return None, []
    if address.key is None:
        return address, [CheckResult(subject="broker key", detail="none, zmq_auth is false: nothing is encrypted")]
    return address, [CheckResult(subject="broker key", detail=address.key.notice or address.key.source)]


def _workers_here(environment: Environment, inventory: Inventory | None) -> list[str]:
    """Return the workers to look at: where the inventory doesn't tell, those that have had tokens."""
    if inventory is not None:
        names: Iterable[str] = inventory.topology.workers
    else:
        folder = environment.state_folder / "tokens"
        names = sorted(path.name for path in folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []
    return [name for name in names if worker_name_problem(name) is None]


def _client_key(environment: Environment, *, is_direct: bool) -> tuple[KeyPair | None, CheckResult]:
    what, clients = "client key", environment.clients_folder
    try:
        pair = find_key_pair(environment.keys_folder, CLIENT_NAME)
    except KeyFileError as error:
        return None, CheckResult(subject=what, error=str(error))
    if pair is None:
        return None, CheckResult(subject=what, detail="none yet, the first command makes it")
    if not is_direct:
        return pair, CheckResult(subject=what, detail="a pair; the broker lets in any")
    if pair.public in {key for key in map(_public_key, sorted(clients.glob("*.key"))) if key}:
        return pair, CheckResult(subject=what, detail="let in")
    fault = f"no file in {clients} lets it in: copy {environment.keys_folder / f'{CLIENT_NAME}.key'} there"
    return pair, CheckResult(subject=what, error=fault)


def _public_key(path: Path) -> bytes | None:
    try:
        return read_public_key(path)
    except KeyFileError:
        return None


def _other_keys(environment: Environment, inventory: Inventory | None) -> Iterator[CheckResult]:
    """Look at the workers' keys, those of workers elsewhere included, and at those of the clients that are let in."""
    folder = environment.keys_folder
    names = {path.stem for path in folder.iterdir() if path.suffix in {".key", ".key_secret"}}
    here, elsewhere, others = set(_workers_here(environment, inventory)), set(), {CLIENT_NAME}
    if inventory is not None and inventory.broker is not None:
        others |= {Path(BROKER_KEY).stem} - here  # workers elsewhere are the broker's to know
    elif inventory is not None:
        elsewhere = set(inventory.workers) - here
    for name in sorted((names | here | elsewhere) - others):
        yield _worker_key(folder, name, is_elsewhere=name in elsewhere).for_worker(name)
    for path in sorted(environment.clients_folder.glob("*.key")):
        try:
            read_public_key(path)
        except KeyFileError as error:
            yield CheckResult(subject=f"clients/{path.name}", error=str(error))
        else:
            yield CheckResult(subject=f"clients/{path.name}", detail="let in")


def _worker_key(folder: Path, name: str, *, is_elsewhere: bool) -> CheckResult:
    public = folder / f"{name}.key"
    try:
        if is_elsewhere and not os.path.lexists(folder / f"{name}.key_secret"):
            read_public_key(public)
            return CheckResult(subject="key", detail="the public one of a worker elsewhere")
        pair = find_key_pair(folder, name)
    except KeyFileError as error:
        return CheckResult(subject="key", error=str(error))
    return CheckResult(subject="key", detail="a pair" if pair else "none yet, the first start makes it")
