"""`NorFab`, the Python API: the workers of an inventory, and clients for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ...models.environment.curve_keys import KeyPair, ensure_client_key
from ...models.environment.locations import find_environment
from ...models.environment.paths import Environment
from ...models.errors import UsageError
from ...models.inventory.loader import load_inventory
from ...models.inventory.schema import Inventory
from ...models.protocol.broker_connection import BrokerAddress
from ...models.protocol.jobs import Event, is_automatic
from ...models.protocol.pending_job import OnEvent
from ..processes.launcher import Launcher
from ..processes.worker_process import Notice, foreign_worker_message
from ..transport.base import Transport
from ..transport.broker import FabricTransport
from ..transport.direct import DirectTransport
from .client import Client
from .fleet import Fleet
from .inventory_data import write_inventory
from .jobs.questions import OnInput

if TYPE_CHECKING:
    from .asynchronous import AsyncClient

OnProgress = Callable[[str, str], None]
"""Called with a worker's name and the message of an event that reports progress."""


_CLIENT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WORKERS_CLIENT = re.compile(r"-NFPClient\Z|-nfcli-[0-9a-f]{16}\Z")


def broker_address(environment: Environment, inventory: Inventory) -> BrokerAddress | None:
    """Return endpoint and key of an inventory's broker, None if it has no broker.

    Raises:
        InventoryError: the broker's public key can't be found or read.
    """
    return None if inventory.broker is None else BrokerAddress.find(environment, inventory.broker)


def make_transport(  # noqa: PLR0917  parts of an environment, in the order in which they are made
    environment: Environment,
    inventory: Inventory,
    keys: KeyPair,
    address: BrokerAddress | None,
    notice: Notice | None = None,
    identity: str = "",
) -> Transport:
    """Return the transport to the workers: through the broker at `address`, or directly if that is None.

    `identity` is that of an earlier one through a broker, empty for a new one.
    """
    if address is None:
        return DirectTransport(environment, inventory, keys)
    return FabricTransport(environment, inventory, keys, address, notice=notice, identity=identity)


class NorFab:
    """An environment: starts its workers, creates clients, and stops the workers that it started.

    Use it as a context manager, which makes a client too, or call `start` and `destroy`. Workers that already run are
    left alone. If this process is killed, the workers that it started end by themselves. With `broker:` in the
    inventory, clients and workers connect to that broker, which is never started here; otherwise clients connect to the
    workers. `client` is the first client that was made, None before that.

    Args:
        inventory: path of the inventory file; None uses `inventory.yaml` in the working folder or, without one, the
            user's default environment, which `default` names.
        inventory_data: the inventory itself, in place of a file. It is kept in a private file in `base_dir` until
            `destroy`, for the workers.
        base_dir: folder of that inventory, by default the working folder: paths in it are relative to this one, and
            `.nfcli/` is there. With `inventory` it is the folder of `.nfcli/` alone.
        state: folder for what nfcli writes; None uses `NFCLI_STATE` or the inventory's `state`, or else `.nfcli/`
            beside the inventory. Nothing is written before `start` or `make_client`.
        log_level: log level of the workers that are started here.
        notice: called with one line for each thing that is not an error but may surprise: a worker of another service,
            for instance.

    Raises:
        UsageError: both an inventory file and data are given, or the data isn't JSON.
        InventoryError: the inventory can't be read or breaks its schema, or the broker's public key isn't known.
        EnvironmentFolderError: other users could change the environment's folder, or there is no home folder.
    """

    def __init__(
        self,
        inventory: str | Path | None = None,
        inventory_data: Mapping[str, Any] | None = None,
        base_dir: str | Path | None = None,
        *,
        state: str | Path | None = None,
        log_level: str = "INFO",
        notice: Notice | None = None,
    ) -> None:
        self._written: Path | None = None
        if inventory_data is not None:
            if inventory is not None:
                raise UsageError("name an inventory file or give inventory_data, not both")
            inventory = self._written = write_inventory(inventory_data, base_dir)
        elif base_dir is not None and state is None:
            state = Path(base_dir) / ".nfcli"
        try:
            self._open(inventory, state, log_level, notice)
        except BaseException:
            self._forget_data()
            raise

    def _open(
        self, inventory: str | Path | None, state: str | Path | None, log_level: str, notice: Notice | None
    ) -> None:
        found = find_environment(inventory, state)
        self.inventory = load_inventory(found)
        self.environment = found.with_state(self.inventory.state)
        self._broker = broker_address(self.environment, self.inventory)
        self.environment.verify_folder()
        self._notice = notice or (lambda _: None)
        workers = self.inventory.topology.workers
        self.launcher = Launcher(self.environment, workers, log_level=log_level, notice=self._notice)
        self.client: Client | None = None
        self._clients: list[Client] = []
        self._report_surprises()

    def _forget_data(self) -> None:
        if self._written is not None:
            self._written.unlink(missing_ok=True)

    def _report_surprises(self) -> None:
        for name, service in self.inventory.foreign_workers.items():
            self._notice(foreign_worker_message(name, service))
        if self._broker is not None and self._broker.key is not None and self._broker.key.notice:
            self._notice(self._broker.key.notice)
        if self.inventory.topology.broker:
            self._notice("topology.broker is true, but nfcli starts no broker: start NorFab's, or set it to false")

    def start(self) -> list[str]:
        """Start the workers of `topology.workers` that aren't running and wait until they are ready.

        Returns:
            The names of the workers that were started. Safe to repeat.

        Raises:
            WorkerStartError: a worker can't start; those that this call started are stopped again.
            EnvironmentFolderError: something of the state is open to other users or not this user's, or can't be
                created.
        """
        self.environment.prepare()
        return self.launcher.start()

    def make_client(
        self,
        name: str | None = None,
        *,
        start_workers: bool = False,
        notice: Notice | None = None,
        on_progress: OnProgress | None = None,
        on_event: OnEvent | None = None,
        on_input: OnInput | None = None,
    ) -> Client:
        """Return a client; `destroy` closes it. It connects when it is first used.

        Args:
            name: what a broker's workers know the client by, one that no other process uses at the same time: replies
                to both would go to the one that came last. None: a new one. Without a broker that is the name of the
                client's key file.
            start_workers: start the workers that aren't running before the client's first job, and restart those
                started here that have ended before a later job that targets them.
            notice: called with a line for each worker that was restarted, when a broker goes away or comes back while a
                job runs, and if the workers that were seen can't be remembered.
            on_event: called with each event of a job: a dictionary with the keys worker, time stamp, severity, status,
                resource, message and so on of `man page python`, in the thread that waits for the job.
            on_input: called with a `Question` of a task, in the same thread; returns the answer.
            on_progress: called with the worker's name and the message of those events that report progress.

        Raises:
            UsageError: the name is not valid.
            KeyFileError: the client's key pair can't be read or created.
            EnvironmentFolderError: as `start`.
        """
        _check_client_name(name)
        self.environment.prepare()
        keys = ensure_client_key(self.environment)
        transport = self._open_transport(keys, notice, name or "")
        notify = notice or (lambda _: None)
        client = Client(
            self.environment,
            self.inventory,
            keys,
            transport,
            open_transport=partial(self._open_transport, keys, notice),
            before_first_job=partial(self._start_missing, notify) if start_workers else None,
            restart=partial(self._restart, notify) if start_workers else None,
            on_event=on_event if on_progress is None else partial(_report, on_progress, on_event),
            on_input=on_input,
            fleet=Fleet(self.environment, self.inventory, notice=notice),
        )
        self._clients.append(client)
        self.client = self.client or client
        return client

    def make_async_client(self, **options: Any) -> AsyncClient:
        """Return a client for a program that uses asyncio; the options are those of `make_client`."""
        from .asynchronous import AsyncClient  # noqa: PLC0415  the shell has no event loop

        return AsyncClient(self.make_client(**options))

    def _open_transport(self, keys: KeyPair, notice: Notice | None, identity: str = "") -> Transport:
        return make_transport(self.environment, self.inventory, keys, self._broker, notice, identity)

    def _start_missing(self, notify: Notice) -> None:
        before = set(self.launcher.started_here)
        for name in before.intersection(self.launcher.start()):
            notify(_restarted_message(name))

    def _restart(self, notify: Notice, name: str) -> bool:
        is_started = self.launcher.restart(name)
        if is_started:
            notify(_restarted_message(name))
        return is_started

    def destroy(self) -> list[str]:
        """Close the clients and stop the workers that were started here. Safe to repeat.

        Returns:
            The names of the workers that were stopped: not those that other shells still use.
        """
        self.client = None
        while self._clients:
            self._clients.pop().close()
        stopped = self.launcher.stop()
        self._forget_data()
        return stopped

    def __enter__(self) -> Self:
        self.start()
        self.make_client()
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()


def _report(on_progress: OnProgress, on_event: OnEvent | None, event: Event) -> None:
    if on_event is not None:
        on_event(event)
    if event["event_type"] == "progress" and not is_automatic(event):
        on_progress(event["worker"], event["message"])


def _check_client_name(name: str | None) -> None:
    if name is not None and not _CLIENT_NAME.fullmatch(name):
        raise UsageError("the name of a client must be 1 to 64 letters, digits, dots, dashes and underscores")
    if name is not None and _WORKERS_CLIENT.search(name):
        raise UsageError(f"the name of a client must not be {name}: so are clients of workers named, which are refused")


def _restarted_message(name: str) -> str:
    return f"worker {name} had ended and was restarted"
