"""Fabric mode as the client sees it: one DEALER, connected to a NorFab broker that all workers are registered at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.environment.paths import Environment
from ...models.environment.worker_lock import read_owner
from ...models.errors import NfcliError, NoWorkersError
from ...models.inventory.schema import Inventory
from ...models.inventory.service import SERVICE
from ...models.protocol.broker_connection import BrokerAddress, BrokerConnection, random_routing_id
from ...models.protocol.broker_presence import Timeouts
from ...models.protocol.broker_replies import INVENTORY_SERVICE, worker_rows
from ...models.protocol.frames import ALL
from ...models.protocol.pending_job import PendingJob
from .delivery import Delivery

REGISTER_SECONDS = 3.0
"""A worker that is ready registers within milliseconds; the broker may be busy."""
ALIVE = "alive"
TIMEOUTS = Timeouts(silence=2.0)

_PAUSE_SECONDS = 0.02
_SHOW_WORKERS = "show_workers"


class FabricTransport:
    """Reaches workers through a broker; used by one thread at a time.

    Args:
        environment: whose client this is; its own workers are meant to be registered.
        inventory: of that environment.
        keys: the client's CURVE pair; the broker lets in any, None: one for this time.
        address: the broker's.
        notice: told when the broker goes away in the middle of a job, and when it is back.
    """

    SOURCE: ClassVar[str] = "the broker"

    def __init__(
        self,
        environment: Environment,
        inventory: Inventory,
        keys: KeyPair | None,
        address: BrokerAddress,
        *,
        notice: Callable[[str], None] | None = None,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        self._environment = environment
        self._inventory = inventory
        self._keys = keys or KeyPair(*zmq.curve_keypair())
        self._address = address
        self._notify = notice or (lambda _: None)
        self._timeouts = timeouts
        # Workers tell a job that comes again by its uuid and this name, which outlives a broken connection.
        self._name = random_routing_id("client")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._link: BrokerConnection | None = None
        self._rows: dict[str, dict[str, str]] = {}
        self._remote_services: dict[str, str] = {}

    @property
    def registered(self) -> list[str]:
        """Names of the workers that the broker had at the last `refresh`."""
        return sorted(self._rows)

    def refresh(self, seconds: float) -> None:
        """Ask the broker which workers it has, over a new connection where there is none or the old one has broken.

        Raises:
            NoWorkersError: it isn't there, or doesn't answer within `seconds`.
        """
        deadline = time.monotonic() + seconds
        link = self._sound_link()
        try:
            answer = link.ask(_SHOW_WORKERS, seconds=seconds)
        except NoWorkersError:
            if link.is_up or not link.disconnects:
                raise
            # It broke this very moment: the broker may have been started again.
            answer = self._sound_link().ask(_SHOW_WORKERS, seconds=max(0.0, deadline - time.monotonic()))
        self._rows = {row["name"]: row for row in worker_rows(answer)}

    def _sound_link(self) -> BrokerConnection:
        if self._link is not None:
            self._link.read_monitor()
            if not self._link.is_up:
                self._link.close()
                self._link = None
        if self._link is None:
            self._link = BrokerConnection(
                *(self._context, self._address),
                name=self._name,
                keys=self._keys,
                connect_seconds=self._timeouts.answer,
            )
        return self._link

    def wait_registered(self) -> None:
        """Wait until this environment's workers that are ready have registered; the broker may be slow to note it."""
        deadline = time.monotonic() + REGISTER_SECONDS
        self.refresh(REGISTER_SECONDS)
        while self._is_anyone_on_the_way() and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
            self.refresh(REGISTER_SECONDS)

    def _is_anyone_on_the_way(self) -> bool:
        return any(self._is_ready_here(name) for name in self._own() if name not in self._rows)

    def _is_ready_here(self, name: str) -> bool:
        owner = read_owner(self._environment.lock_file(name))
        return owner is not None and owner.ready

    def candidates(self, service: str) -> list[str]:
        """Return the registered workers that serve `service` (`all`: every one), and those that should be."""
        services = {name: row["service"] for name, row in self._rows.items()}
        services = {**self._own(), **services}
        return sorted(name for name, serves in services.items() if service in (serves, ALL))

    def _own(self) -> dict[str, str]:
        """Return the services of the workers that are to run on this machine, by name."""
        return {name: self._own_service(name) for name in self._inventory.topology.workers}

    def _own_service(self, name: str) -> str:
        """Return what a worker of this machine serves; of one whose inventory only the broker has, it is asked once."""
        if name in self._inventory.workers:
            return self._inventory.workers[name].service
        if name in self._rows:
            return self._rows[name]["service"]
        if name not in self._remote_services:
            try:
                found = self._sound_link().ask("get_inventory", service=INVENTORY_SERVICE, name=name)
            except NoWorkersError:  # a broker that can't tell; the worker's own process will meet it too
                found = None
            service = found.get("service") if isinstance(found, dict) else None
            # One that the broker knows nothing of is not passed over: the start of its process says what is wrong.
            self._remote_services[name] = service if isinstance(service, str) else SERVICE
        return self._remote_services[name]

    def services(self) -> list[str]:
        """Return the services of these workers."""
        return sorted({row["service"] for row in self._rows.values()} | set(self._own().values()))

    def is_running(self, name: str) -> bool:
        """Whether a worker is registered and was heard of lately; of this machine's the process is looked for as well.

        The broker takes a worker that was killed for alive until its hold time is over.
        """
        is_alive = name in self._rows and self._rows[name].get("status") == ALIVE
        return is_alive and (name not in self._inventory.topology.workers or self._is_ready_here(name))

    def send(self, job: PendingJob) -> None:
        """Send a job to its missing workers and wait for their results until none is missing or it expires."""
        Delivery(self._sound_link(), job, self._notify, self._timeouts).run()

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker: name, service, status (`alive`, `dead`), holdtime, seconds up, note."""
        told = ("service", "status", "holdtime", "alive (s)")
        rows = {
            name: {"name": name, **{key: row.get(key, "") for key in told}, "note": ""}
            for name, row in self._rows.items()
        }
        for name, service in self._own().items():
            if name not in rows:
                row = {"name": name, "service": service, "status": "dead", "holdtime": "", "alive (s)": ""}
                rows[name] = {**row, "note": self._why_missing(name)}
        return [rows[name] for name in sorted(rows)]

    def _why_missing(self, name: str) -> str:
        owner = read_owner(self._environment.lock_file(name))
        if owner is None:
            return f"worker {name} is not running: start it with nfcli -w"
        return f"worker {name} runs here (pid {owner.pid or '?'}) but is not registered at the broker: see its log"

    def show_broker(self) -> dict[str, Any]:
        """Return the broker's state and versions, and how many workers and services it has.

        Raises:
            NoWorkersError: it isn't there, or doesn't answer.
            NfcliError: it answers with something else.
        """
        link = self._sound_link()
        status, versions = link.ask("get_status"), link.ask("show_broker_version")
        for task, answer in (("get_status", status), ("show_broker_version", versions)):
            if not isinstance(answer, dict):
                raise NfcliError(f"the broker at {link.endpoint} doesn't know {task}: norfab 0.25.0 or newer is needed")
        services = {row["service"] for row in self._rows.values()}
        return {**status, "versions": versions, "workers": len(self._rows), "services": len(services)}

    def describe(self) -> dict[str, Any]:
        """Return the broker's endpoint, where its key was found, and the workers of this machine."""
        key = self._address.key
        return {
            "mode": "fabric",
            "broker": self._address.endpoint,
            "broker_key": "none: zmq_auth is false" if key is None else key.source,
            "workers": sorted(self._inventory.topology.workers),
        }

    def close(self) -> None:
        """Close the connection at once."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self._context.destroy(linger=0)
