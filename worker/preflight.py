"""Check what the start of a worker that isn't running would need, by the functions that the start itself uses.

Nothing on disk is changed, and ports are freed at once. It is a program of its own, `python -m nfcli.worker.preflight`,
that starts in a quarter of a worker's time, because it doesn't load the MCP server and the tasks.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ..models.environment.curve_keys import find_audit_key
from ..models.environment.paths import Environment
from ..models.environment.private_files import tree_problems
from ..models.errors import EXIT_OK, CertificateError, InventoryError, NfcliError, WorkerStartError
from ..models.inventory.loader import load_inventory, locate_key
from ..models.inventory.schema import WorkerInventory
from ..models.inventory.sections.metrics import Metrics
from ..models.tasks.health import CheckResult, clock_result, disk_results, relays_result, rows_result, trail_result
from ..models.tasks.tools import tool_name
from .audit.file import verify_closed
from .http.listener import HttpListener
from .http.tls.certificates import ServerCertificate
from .jobs.plugins import add_import_path, find_origin, not_found_error
from .tokens.fallback.disk_space import space_problem
from .tokens.files import DATABASE_NAME, read_closed
from .tools.policy import ToolPolicy
from .tools.relays import known_relays
from .transport.endpoint import check_endpoint


def check_worker(environment: Environment, name: str) -> Iterator[CheckResult]:
    """Check each thing that the start of a worker would need; an error of one doesn't end the checks."""
    yield from _check_database(environment.tokens_folder(name) / DATABASE_NAME)
    yield _check_audit(environment, name)
    try:
        inventory = load_inventory(environment, []).workers.get(name)
    except InventoryError:  # the shell reports it
        inventory = None
    if inventory is not None:
        yield from _check_plugins(environment, inventory)
        yield from _check_tls(environment, inventory)
        yield _check_http(environment, name, inventory)
        if inventory.metrics is not None:
            yield _check_metrics(inventory, inventory.metrics)
        yield _check_endpoint(environment, name, inventory)
        yield from _check_relays(inventory)


def _check_database(file: Path) -> list[CheckResult]:
    try:
        if not file.exists() or file.stat().st_size == 0:
            return [CheckResult(subject="database", detail="none yet, the first start creates it")]
        loaded = read_closed(file)
    except OSError as error:
        reason = f"{file} can't be read: {error.strerror}: check its owner, mode and mount"
        return [CheckResult(subject="database", error=reason)]
    except NfcliError as error:
        return [CheckResult(subject="database", error=str(error))]
    if loaded is None:
        detail = "not checked: the start has to apply its write-ahead log first"
        return [CheckResult(subject="database", detail=detail)]
    now = time.time()
    live = sum(record.is_live(now) for record in loaded.records)
    behind_seconds = 0.0 if loaded.latest is None else loaded.latest - now
    results = [rows_result(live, loaded.skipped), clock_result(behind_seconds)]
    return results + disk_results(space_problem(file.parent, is_thorough=True))


def _check_audit(environment: Environment, name: str) -> CheckResult:
    path, key = environment.audit_file(name), environment.audit_key_file(name)
    try:
        find_audit_key(key)
        if not os.path.lexists(path):
            return CheckResult(subject="audit trail", detail="none yet, the first start creates it")
        head = verify_closed(path)
    except NfcliError as error:
        return CheckResult(subject="audit trail", error=str(error))
    return trail_result(head.seq)


def _check_plugins(environment: Environment, inventory: WorkerInventory) -> Iterator[CheckResult]:
    if inventory.plugins:
        add_import_path(environment.folder)
    for name in inventory.plugins:
        try:
            origin = find_origin(name)
        except WorkerStartError as error:
            yield CheckResult(subject="plugins", error=str(error))
            continue
        if origin is None:
            yield CheckResult(subject="plugins", error=str(not_found_error(name)))
        else:
            yield CheckResult(subject="plugins", detail=f"{name} found at {origin}, not imported by this check")


def _check_relays(inventory: WorkerInventory) -> Iterator[CheckResult]:
    """Report the relays that the inventory's rules would publish, where there is a service of that name."""
    policy = ToolPolicy(inventory.tools)
    tools = [tool_name(service, task) for service, task in known_relays() if policy.is_named(service, task)]
    if tools:
        yield relays_result(tools)


def _check_tls(environment: Environment, inventory: WorkerInventory) -> list[CheckResult]:
    try:
        certificate = ServerCertificate.of(inventory, environment.folder)
    except CertificateError as error:
        return [CheckResult(subject="TLS", error=str(error))]
    if certificate is None:
        return []
    faults = [CheckResult(subject="TLS", error=problem) for problem in certificate.warnings()]
    return faults or [CheckResult(subject="TLS", detail=certificate.summary.describe())]


def _check_http(environment: Environment, name: str, inventory: WorkerInventory) -> CheckResult:
    try:
        with HttpListener.bind(inventory, partial(locate_key, environment, name, "port")) as listener:
            url = listener.url
    except WorkerStartError as error:
        return CheckResult(subject="MCP", error=str(error))
    return CheckResult(subject="MCP", detail="a free port" if inventory.port == 0 else f"{url} is available")


def _check_metrics(inventory: WorkerInventory, metrics: Metrics) -> CheckResult:
    try:
        with HttpListener.bind_metrics(inventory, metrics):
            return CheckResult(subject="metrics", detail=f"port {metrics.port or 'of its own'} is available")
    except WorkerStartError as error:
        return CheckResult(subject="metrics", error=str(error).removeprefix("metrics: "))


def _check_endpoint(environment: Environment, name: str, inventory: WorkerInventory) -> CheckResult:
    endpoint = inventory.endpoint
    if endpoint is None:
        return check_default_endpoint(environment, name)
    try:
        check_endpoint(endpoint)
    except WorkerStartError as error:
        return CheckResult(subject="endpoint", error=str(error))
    return CheckResult(subject="endpoint", detail=endpoint)


def check_default_endpoint(environment: Environment, name: str) -> CheckResult:
    """Check the folder of the endpoint of a worker whose inventory names none; the first start may create it."""
    file = environment.socket_file(name)
    # The shell checks the environment's own folders.
    is_outside = file.parent != environment.run_folder.absolute()
    problem = next((problem for problem, _ in tree_problems(file.parent)), "") if is_outside else ""
    return CheckResult(subject="endpoint", error=problem, detail=f"ipc://{file}")


def main(argv: Sequence[str] | None = None) -> int:
    """Check a worker that isn't running, and print a JSON line for each result."""
    parser = argparse.ArgumentParser(
        prog="python -m nfcli.worker.preflight", description="Check what the start of a worker would need."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--environment", type=Path, help="folder of an environment that has no inventory")
    where.add_argument("--inventory", type=Path, help="inventory file")
    parser.add_argument("--name", required=True, help="name of the worker")
    parser.add_argument("--state", type=Path, help="folder of the state")
    arguments = parser.parse_args(argv)
    for result in check_worker(_environment(arguments), arguments.name):
        sys.stdout.write(f"{result.model_dump_json()}\n")
    return EXIT_OK


def _environment(arguments: argparse.Namespace) -> Environment:
    """Return the environment that the shell has found; an inventory that is refused prevents no other check."""
    if arguments.inventory is None:
        return Environment(arguments.environment.resolve(), None, arguments.state)
    file: Path = arguments.inventory.absolute()
    return Environment(file.parent.resolve(), file.parent.resolve() / file.name, arguments.state)


if __name__ == "__main__":
    raise SystemExit(main())
