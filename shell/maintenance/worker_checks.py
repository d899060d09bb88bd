"""The checks of workers for `nfcli --check`: running ones by their tasks, stopped ones by a preflight process.

All checks run in parallel, so that a worker that doesn't answer doesn't delay the others.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ...models.environment.curve_keys import KeyPair
from ...models.environment.paths import Environment
from ...models.environment.worker_lock import LockOwner, has_owner, read_owner
from ...models.errors import EXIT_OK, AccessDeniedError, EnvironmentFolderError, NfcliError, NoWorkersError
from ...models.inventory.schema import SERVICE, Inventory
from ...models.protocol.broker_connection import BrokerAddress
from ...models.protocol.frames import ALL
from ...models.tasks.audit import AuditReport
from ...models.tasks.health import (
    CheckResult,
    StoreReport,
    clock_result,
    disk_results,
    relays_result,
    rows_result,
    trail_result,
)
from ...models.tasks.token_sync import DigestComparison, compare_digests
from ..client.client import Client
from ..client.fleet import Fleet
from ..client.norfab import make_transport
from ..processes.worker_process import describe_end
from ..transport.broker import FabricTransport
from .server_check import check_server
from .worker_tasks import WorkerTasks

ALIVE_SECONDS = 3.0
FULL_SCAN_SECONDS = 30.0
"""Limit for reading a whole token database and audit trail, the start of the preflight process included."""

_POLL_SECONDS = 0.05
_FEWEST_COMPARED = 2


@dataclass(frozen=True)
class WorkerChecks:
    """Checks of an environment's workers.

    `inventory` is None if it can't be read, `keys` if the client has none: running workers are then not asked.
    `broker` is the address through which they are reached, None for direct connections. Workers that don't run are
    failures unless `offline`.
    """

    CHECKS = 3  # of each worker, in parallel

    environment: Environment
    inventory: Inventory | None
    keys: KeyPair | None
    broker: BrokerAddress | None = None
    offline: bool = False

    def submit(self, pool: ThreadPoolExecutor, name: str) -> list[Future[list[CheckResult]]]:
        """Start the checks of a worker; their results are to be shown in the order of the list."""
        return [pool.submit(check, name) for check in (self._check_process, self._check_exposure, self._check_http)]

    def check_broker(self, address: BrokerAddress, inventory: Inventory) -> list[CheckResult]:
        """Check that the broker answers, and that every expected worker is registered there."""
        with closing(FabricTransport(self.environment, inventory, self.keys, address)) as transport:
            try:
                transport.refresh(ALIVE_SECONDS)
            except NoWorkersError as error:
                return [CheckResult(subject="broker", error=str(error))]
            detail = f"{address.endpoint}, workers registered: {len(transport.registered(ALL))}"
            broker = CheckResult(subject="broker", detail=detail)
            present, local = transport.registered(SERVICE), transport.candidates(SERVICE)
        complete = CheckResult(subject="fleet", detail="no expected worker is missing")
        return [broker, *(self.check_fleet(inventory, present, local) or [complete])]

    def check_fleet(
        self, inventory: Inventory, present: Collection[str], local: Collection[str] = ()
    ) -> list[CheckResult]:
        """Return a result for each expected worker, the `local` ones included, that is not `present`."""
        try:
            missing = Fleet(self.environment, inventory, is_recording=False).missing(present, local)
        except EnvironmentFolderError as error:
            return [CheckResult(subject="fleet", error=str(error))]
        return [CheckResult(subject="fleet", error=str(worker)) for _, worker in sorted(missing.items())]

    def check_tokens(self) -> list[CheckResult]:
        """Check that all workers that answer have the same tokens; nothing is returned where there is only one."""
        if self.keys is None or self.inventory is None:
            return []
        if self.broker is None and len(self.inventory.workers) < _FEWEST_COMPARED:
            return []
        with closing(self._client(self.inventory, self.keys)) as client:
            differences, unknown = DigestComparison([], [])
            for _ in range(2):  # the first time, a change may be on its way to some of them
                try:
                    results = client.run_job(SERVICE, "get_status", timeout=ALIVE_SECONDS)
                except NfcliError:  # each worker is reported by its own check
                    return self._not_compared([] if self.broker is not None else self.inventory.workers)
                present = {name: result["result"] for name, result in results.items() if not result["failed"]}
                absent = results.keys() - present.keys()
                if len(present) < _FEWEST_COMPARED:
                    return self._not_compared(absent)
                differences, unknown = compare_digests(present)
                if not differences:
                    break
        found = [CheckResult(subject="tokens", error=text) for text in differences]
        found += [CheckResult(subject="tokens", detail=text.removeprefix("tokens ")) for text in unknown]
        same = CheckResult(subject="tokens", detail=f"the same on all workers that answer: {len(present)}")
        return (found or [same]) + self._not_compared(absent)

    def _not_compared(self, names: Iterable[str]) -> list[CheckResult]:
        """Return a result that names the workers whose tokens can't be compared, if there are any."""
        why = ", ".join(f"{name} {self._absence(name)}" for name in sorted(names))
        return [CheckResult(subject="tokens", detail=f"not compared, {why}")] if why else []

    def _absence(self, name: str) -> str:
        is_local = self.inventory is not None and name in self.inventory.topology.workers
        return "is not running" if is_local and not self._has_owner(name) else "does not answer"

    def _client(self, inventory: Inventory, keys: KeyPair) -> Client:
        transport = make_transport(self.environment, inventory, keys, self.broker)
        fleet = Fleet(self.environment, inventory, is_recording=False)
        return Client(self.environment, inventory, keys, transport, fleet=fleet)

    def check_remote(self, name: str) -> list[CheckResult]:
        """Check that a worker of another machine answers; one that is down is no failure where `offline`."""
        if self.keys is None or self.inventory is None:
            return []
        with closing(self._client(self.inventory, self.keys)) as client:
            try:
                status = WorkerTasks(client, name).run("get_status", ALIVE_SECONDS)
            except NfcliError as error:
                if self.offline and not isinstance(error, AccessDeniedError):
                    return [CheckResult(subject="", detail=f"does not answer: {error}")]
                return [CheckResult(subject="", error=str(error))]
        return [CheckResult(subject="", detail=f"answers at {status['endpoint']}, on another machine")]

    def _check_process(self, name: str) -> list[CheckResult]:
        """Check the worker's process, token database and audit trail."""
        try:
            owner = self._owner(name)
        except EnvironmentFolderError as error:
            return [CheckResult(subject="", error=str(error)), *([] if self._has_owner(name) else self._stopped(name))]
        return self._stopped(name) if owner is None else self._running(name, owner)

    def _owner(self, name: str) -> LockOwner | None:
        """Return the owner of a worker's name, once it is ready or `ALIVE_SECONDS` have passed."""
        deadline = time.monotonic() + ALIVE_SECONDS
        file = self.environment.lock_file(name)
        while (owner := read_owner(file)) is not None and not owner.ready and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return owner

    def _has_owner(self, name: str) -> bool:
        try:
            return has_owner(self.environment.lock_file(name))
        except (OSError, EnvironmentFolderError):  # unknown: assume that the worker runs, of which less is checked
            return True

    def _check_exposure(self, name: str) -> list[CheckResult]:
        worker = self.inventory.workers.get(name) if self.inventory is not None else None
        if worker is None:
            return []
        faults = [*filter(None, [worker.exposure_problem, worker.verification_problem]), *worker.warnings()]
        if faults:
            return [CheckResult(subject="exposure", error=fault) for fault in faults]
        clients = "this machine" if worker.is_loopback else "other machines"
        token = "with a token" if worker.authentication_enabled else "without a token"
        scheme = "" if worker.tls is None else " over HTTPS"
        return [CheckResult(subject="exposure", detail=f"reachable from {clients}{scheme}, {token}")]

    def _stopped(self, name: str) -> list[CheckResult]:
        """Run the preflight checks in a separate worker process."""
        if self.inventory is not None and name in self.inventory.remote_workers:
            return [self._not_running(name, "; the broker has its inventory")]
        command = [sys.executable, "-P", "-m", "nfcli.worker.preflight", "--name", name, *self.environment.arguments]
        try:
            done = subprocess.run(  # noqa: S603  our own interpreter, no shell
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=FULL_SCAN_SECONDS, check=False
            )
            results = [CheckResult.model_validate_json(line) for line in done.stdout.splitlines()]
        except subprocess.TimeoutExpired:
            error = f"its files could not be read within {FULL_SCAN_SECONDS:g} s: check that disk"
            return [CheckResult(subject="", error=error)]
        except ValidationError:
            results = []
        if done.returncode != EXIT_OK or not results:
            error = f"the preflight process {describe_end(done.returncode)}: please report this"
            return [CheckResult(subject="", error=error)]
        # Behind a broker a worker binds no endpoint.
        results = [each for each in results if self.broker is None or each.subject != "endpoint"]
        return [self._not_running(name), *results]

    def _not_running(self, name: str, addition: str = "") -> CheckResult:
        if self.offline:
            return CheckResult(subject="", detail=f"not running{addition}")
        remedy = "start it with nfcli -w, or run --check offline if it is meant to be stopped"
        return CheckResult(subject="", error=f"worker {name} is not running: {remedy}")

    def _running(self, name: str, owner: LockOwner) -> list[CheckResult]:
        process = f"pid {owner.pid or '?'}"
        if not owner.ready:
            error = f"{process} was not ready within {ALIVE_SECONDS:g} s: see its log, or end it and start it again"
            return [CheckResult(subject="", error=error)]
        route = f"at {owner.endpoint}" if self.broker is None else f"through {self.broker.endpoint}"
        alive = CheckResult(subject="", detail=f"running, {process}, {route}")
        if self.keys is None or self.inventory is None:
            return [alive]
        if self.broker is None and name not in self.inventory.workers:
            return [alive]
        with closing(self._client(self.inventory, self.keys)) as client:
            tasks = WorkerTasks(client, name)
            try:
                status = tasks.run("get_status", ALIVE_SECONDS)
            except NfcliError as error:
                return [CheckResult(subject="", error=f"{process}: {error}")]
            return [alive, *_check_relays(status), *_check_store(tasks), _check_audit(tasks)]

    def _check_http(self, name: str) -> list[CheckResult]:
        """Check that the MCP server of a running worker answers."""
        try:
            owner = self._owner(name)
        except EnvironmentFolderError:  # reported by `_check_process`
            return []
        if owner is None or not owner.ready:
            return []
        worker = None if self.inventory is None else self.inventory.workers.get(name)
        files = {} if worker is None or worker.tls is None else worker.tls.files(self.environment.folder)
        return check_server(owner.url or "", files, seconds=ALIVE_SECONDS)


def _check_relays(status: Any) -> list[CheckResult]:
    """Return a result where a worker publishes tools that relay; workers without a broker have none."""
    relays = status.get("relays") if isinstance(status, dict) else None
    return [relays_result([str(each) for each in relays])] if isinstance(relays, list) and relays else []


def _check_store(tasks: WorkerTasks) -> list[CheckResult]:
    try:
        report = tasks.report(StoreReport, "check_store", FULL_SCAN_SECONDS)
    except NfcliError as error:
        return [CheckResult(subject="database", error=str(error))]
    results = [rows_result(report.tokens, report.passed_over), clock_result(report.clock_behind_seconds)]
    return results + disk_results(report.disk)


def _check_audit(tasks: WorkerTasks) -> CheckResult:
    try:
        report = tasks.report(AuditReport, "verify_audit", FULL_SCAN_SECONDS)
    except NfcliError as error:
        return CheckResult(subject="audit trail", error=str(error))
    return trail_result(report.lines)
