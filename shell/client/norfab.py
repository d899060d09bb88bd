"""`NorFab`: the workers of an inventory and clients for them, from Python."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Self

from ...models.environment.curve_keys import KeyPair, ensure_client_key
from ...models.environment.paths import Environment, find_environment
from ...models.inventory.loader import load_inventory
from ...models.inventory.schema import Inventory
from ...models.protocol.broker_connection import BrokerAddress
from ..processes.launcher import Launcher
from ..processes.worker_process import Notice, not_ours_notice
from ..transport.base import Transport
from ..transport.broker import FabricTransport
from ..transport.direct import DirectTransport
from ..transport.job import OnProgress
from .client import Client


def broker_address(environment: Environment, inventory: Inventory) -> BrokerAddress | None:
    """Return where the broker of an inventory is; None where it has none.

    Raises:
        InventoryError: the broker's public key isn't known or can't be read.
    """
    return None if inventory.broker is None else BrokerAddress.find(environment, inventory.broker)


def make_transport(
    environment: Environment,
    inventory: Inventory,
    keys: KeyPair,
    address: BrokerAddress | None,
    notice: Notice | None = None,
) -> Transport:
    """Return the way to workers: through the broker at `address`, or directly where that is None."""
    if address is None:
        return DirectTransport(environment, inventory, keys)
    return FabricTransport(environment, inventory, keys, address, notice=notice)


class NorFab:
    """An environment: starts its workers, makes clients, stops what it started.

    Use it as a context manager, or call `start` and `destroy`. Workers that already run are left alone. Should this
    process be killed, the workers that it started end by themselves. With `broker:` in the inventory clients and
    workers meet at that broker, which is never started here; otherwise clients reach the workers directly.

    Args:
        inventory: path of the inventory file; None takes `inventory.yaml` in the working folder or, where there is
            none, the default environment of the user.
        log_level: level of the logs of workers that are started here.
        notice: told, a line each, of what is no error but may surprise: workers of other services, for instance.

    Raises:
        InventoryError: the inventory can't be read or breaks its schema, or the broker's public key isn't known.
        EnvironmentFolderError: something under `.nfcli/` has a wider mode than its owner's own.
    """

    def __init__(
        self, inventory: str | Path | None = None, *, log_level: str = "INFO", notice: Notice | None = None
    ) -> None:
        self.environment = find_environment(inventory)
        self.inventory = load_inventory(self.environment)
        self._broker = broker_address(self.environment, self.inventory)
        self.environment.prepare()
        self._notice = notice or (lambda _: None)
        workers = self.inventory.topology.workers
        self.launcher = Launcher(self.environment, workers, log_level=log_level, not_ours=self._tell_not_ours)
        self._clients: list[Client] = []
        self._tell_surprises()

    def _tell_surprises(self) -> None:
        for name, service in self.inventory.foreign_workers.items():
            self._tell_not_ours(name, service)
        if self._broker is not None and self._broker.key is not None and self._broker.key.notice:
            self._notice(self._broker.key.notice)
        if self.inventory.topology.broker:
            self._notice("topology.broker is true, but nfcli starts no broker: start NorFab's, or set it to false")

    def _tell_not_ours(self, name: str, service: str) -> None:
        self._notice(not_ours_notice(name, service))

    def start(self) -> list[str]:
        """Start the workers of `topology.workers` that aren't running and wait until they are ready.

        Returns:
            The names of the workers that were started. Calling it again is safe.

        Raises:
            WorkerStartError: a worker can't start; none that this call started is left running.
        """
        return self.launcher.start()

    def make_client(
        self,
        *,
        start_workers: bool = False,
        notice: Notice | None = None,
        on_progress: OnProgress | None = None,
    ) -> Client:
        """Return a client; `destroy` closes it. It connects when it is used for the first time.

        Args:
            start_workers: start the missing workers when the client's first job is sent, not before, and start again
                what was started here and has died when a later job needs it.
            notice: told of each worker that was started again, and of a broker that goes away and comes back while a
                job runs.
            on_progress: gets a worker's name and what it says of a job that it runs, in the thread that waits for it.

        Raises:
            KeyFileError: the client's key pair can't be read or made.
        """
        keys = ensure_client_key(self.environment)
        transport = make_transport(self.environment, self.inventory, keys, self._broker, notice)
        tell = notice or (lambda _: None)
        client = Client(
            self.environment,
            self.inventory,
            keys,
            transport,
            before_first_job=partial(self._start_missing, tell) if start_workers else None,
            restart=partial(self._restart, tell) if start_workers else None,
            on_progress=on_progress,
        )
        self._clients.append(client)
        return client

    def _start_missing(self, tell: Notice) -> None:
        own = set(self.launcher.own)
        for name in own.intersection(self.launcher.start()):
            tell(_started_again(name))

    def _restart(self, tell: Notice, name: str) -> bool:
        is_started = self.launcher.restart(name)
        if is_started:
            tell(_started_again(name))
        return is_started

    def destroy(self) -> None:
        """Close the clients and stop the workers that were started here; safe to call twice."""
        while self._clients:
            self._clients.pop().close()
        self.launcher.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()


def _started_again(name: str) -> str:
    return f"worker {name} had ended: it was started again"
