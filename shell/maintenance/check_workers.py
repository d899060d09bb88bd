"""How the workers of an environment are, for `nfcli --check`: those that run are asked, a process looks at the others.

Several are looked at side by side, so that one that doesn't answer doesn't hold up the others.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from pydantic import ValidationError

from ...models.environment.curve_keys import KeyPair
from ...models.environment.paths import Environment
from ...models.environment.worker_lock import LockOwner, has_owner, read_owner
from ...models.errors import EXIT_OK, EnvironmentFolderError, NfcliError, NoWorkersError
from ...models.inventory.schema import Inventory
from ...models.inventory.service import SERVICE
from ...models.protocol.broker_connection import BrokerAddress
from ...models.tasks.audit import AuditReport
from ...models.tasks.health import CheckResult, StoreReport, clock_result, rows_result
from ..client.client import Client
from ..client.norfab import make_transport
from ..transport.broker import FabricTransport

ALIVE_SECONDS = 3.0
WHOLE_SECONDS = 30.0
"""For what grows with the database and the audit trail, and for the start of a process that looks at them."""

_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Site:
    """An environment whose workers are looked at.

    `inventory` is None where it can't be read, `keys` where the client has none: workers that run are then not asked.
    `broker` is where they are reached, None for directly.
    """

    LOOKS = 3  # how many a worker has, all at the same time

    environment: Environment
    inventory: Inventory | None
    keys: KeyPair | None
    broker: BrokerAddress | None = None

    def begin(self, pool: ThreadPoolExecutor, name: str) -> list[Future[list[CheckResult]]]:
        """Begin to look at a worker; what is found comes in the order of the list."""
        return [pool.submit(look, name) for look in (self._process, self._exposure, self._health)]

    def look_at_broker(self, address: BrokerAddress, inventory: Inventory) -> CheckResult:
        """Ask the broker which workers it has."""
        with closing(FabricTransport(self.environment, inventory, self.keys, address)) as transport:
            try:
                transport.refresh(ALIVE_SECONDS)
            except NoWorkersError as error:
                return CheckResult(subject="broker", error=str(error))
            return CheckResult(
                subject="broker", detail=f"{address.endpoint}, workers registered: {len(transport.registered)}"
            )

    def _process(self, name: str) -> list[CheckResult]:
        """Look at the worker's process and at what it keeps."""
        try:
            owner = self._owner(name)
        except EnvironmentFolderError as error:
            return [CheckResult(subject="", error=str(error)), *([] if self._has_owner(name) else self._stopped(name))]
        return self._stopped(name) if owner is None else self._running(name, owner)

    def _owner(self, name: str) -> LockOwner | None:
        """Return who runs a worker, once it is ready or has had its time to become it."""
        deadline = time.monotonic() + ALIVE_SECONDS
        file = self.environment.lock_file(name)
        while (owner := read_owner(file)) is not None and not owner.ready and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        return owner

    def _has_owner(self, name: str) -> bool:
        try:
            return has_owner(self.environment.lock_file(name))
        except OSError:  # what can't be told is taken for the case in which less is looked at
            return True

    def _exposure(self, name: str) -> list[CheckResult]:
        worker = self.inventory.workers.get(name) if self.inventory is not None else None
        if worker is None:
            return []
        if worker.exposure_problem:
            return [CheckResult(subject="exposure", error=worker.exposure_problem)]
        reached = "this machine" if worker.is_loopback else "other machines"
        needed = "with a token" if worker.authentication_enabled else "without a token"
        return [CheckResult(subject="exposure", detail=f"reached from {reached}, {needed}")]

    def _stopped(self, name: str) -> list[CheckResult]:
        """Let a process of the worker's look at what its start would meet."""
        if self.inventory is not None and name in self.inventory.remote_workers:
            return [CheckResult(subject="", detail="not running; the broker has its inventory")]
        command = [sys.executable, "-P", "-m", "nfcli.worker.preflight", "--name", name, *self.environment.arguments]
        try:
            done = subprocess.run(  # noqa: S603  our own interpreter, no shell
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=WHOLE_SECONDS, check=False
            )
            found = [CheckResult.model_validate_json(line) for line in done.stdout.splitlines()]
        except subprocess.TimeoutExpired:
            fault = f"it can't be looked at within {WHOLE_SECONDS:g} s: see to that disk"
            return [CheckResult(subject="", error=fault)]
        except ValidationError:
            found = []
        if done.returncode != EXIT_OK or not found:
            return [
                CheckResult(subject="", error=f"looking at it ended with status {done.returncode}: please report it")
            ]
        # Behind a broker no endpoint is bound.
        met = [each for each in found if self.broker is None or each.subject != "endpoint"]
        return [CheckResult(subject="", detail="not running"), *met]

    def _running(self, name: str, owner: LockOwner) -> list[CheckResult]:
        who = f"pid {owner.pid or '?'}"
        if not owner.ready:
            fault = f"{who} has not become ready within {ALIVE_SECONDS:g} s: see its log, or end it and start it again"
            return [CheckResult(subject="", error=fault)]
        where = f"at {owner.endpoint}" if self.broker is None else f"reached through {self.broker.endpoint}"
        alive = CheckResult(subject="", detail=f"runs, {who}, {where}")
        if self.keys is None or self.inventory is None:
            return [alive]
        if self.broker is None and name not in self.inventory.workers:
            return [alive]
        transport = make_transport(self.environment, self.inventory, self.keys, self.broker)
        with closing(Client(self.environment, self.inventory, self.keys, transport)) as client:
            jobs = _Jobs(client, name)
            try:
                jobs.run("get_status", ALIVE_SECONDS)
            except NfcliError as error:
                return [CheckResult(subject="", error=f"{who}: {error}")]
            looks: Sequence[Callable[[], list[CheckResult]]] = (jobs.store, jobs.audit)
            return [alive, *(finding for look in looks for finding in look())]

    def _health(self, name: str) -> list[CheckResult]:
        """Ask the MCP server of a worker that runs whether it is there."""
        try:
            owner = self._owner(name)
        except EnvironmentFolderError:  # told where the process is looked at
            return []
        return [] if owner is None or not owner.ready else [_health(owner.url or "")]


class _Jobs:
    """The tasks by which a worker that runs tells how it is."""

    def __init__(self, client: Client, worker: str) -> None:
        self._client = client
        self._worker = worker

    def run(self, task: str, seconds: float) -> object:
        """Run a task and return its value.

        Raises:
            NfcliError: the worker failed, or can't be reached.
        """
        result = self._client.run_job(SERVICE, task, workers=[self._worker], timeout=seconds)[self._worker]
        if result.get("failed"):
            reason = "; ".join(result.get("errors") or ["failed without a reason"])
            raise NfcliError(reason)
        return result.get("result")

    def store(self) -> list[CheckResult]:
        """Tell of the token database."""
        try:
            report = StoreReport.model_validate(self.run("check_store", WHOLE_SECONDS))
        except (NfcliError, ValidationError) as error:
            return [CheckResult(subject="database", error=_reason(error))]
        return [rows_result(report.tokens, report.passed_over), clock_result(report.clock_behind_seconds)]

    def audit(self) -> list[CheckResult]:
        """Tell of the audit trail."""
        try:
            report = AuditReport.model_validate(self.run("verify_audit", WHOLE_SECONDS))
        except (NfcliError, ValidationError) as error:
            return [CheckResult(subject="audit trail", error=_reason(error))]
        return [CheckResult(subject="audit trail", detail=f"whole, lines in it: {report.lines}")]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, NfcliError) else "the worker's answer is not what nfcli's workers give"


def _health(url: str) -> CheckResult:
    parts = urlsplit(url)
    try:
        with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=ALIVE_SECONDS)) as connection:
            connection.request("GET", "/health")
            problem = f"status {connection.getresponse().status}"
    except (OSError, HTTPException) as error:
        problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if problem == "status 200":
        return CheckResult(subject="MCP", detail=f"{url} answers")
    return CheckResult(
        subject="MCP", error=f"{url} doesn't answer as it should ({problem}): see the worker's log, or restart it"
    )
