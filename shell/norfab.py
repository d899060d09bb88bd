"""`NorFab`: the workers of an inventory and clients for them, from Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

from ..models.environment import Environment, find_environment
from ..models.errors import InventoryError
from ..models.inventory import Inventory, load_inventory
from ..models.keys import ensure_client_key
from .client import Client
from .direct import DirectTransport
from .launcher import Launcher


def check_is_direct(environment: Environment, inventory: Inventory) -> None:
    """Refuse an inventory that wants more than nfcli can do.

    Raises:
        InventoryError: it has a broker.
    """
    if inventory.broker is not None:
        raise InventoryError(
            f"{environment.inventory_file}: broker: joining a NorFab fabric is not supported yet: "
            f"take `broker` out to run the workers directly"
        )


class NorFab:
    """An environment: starts its workers, makes clients, stops what it started.

    Use it as a context manager, or call `start` and `destroy`. Workers that already run are left alone. Should this
    process be killed, the workers that it started end by themselves.

    Args:
        inventory: path of the inventory file; None takes `inventory.yaml` in the working folder or, where there is
            none, the default environment of the user.
        log_level: level of the logs of workers that are started here.

    Raises:
        InventoryError: the inventory can't be read or breaks its schema.
        EnvironmentFolderError: something under `.nfcli/` has a wider mode than its owner's own.
    """

    def __init__(self, inventory: str | Path | None = None, *, log_level: str = "INFO") -> None:
        self.environment = find_environment(inventory)
        self.inventory = load_inventory(self.environment)
        check_is_direct(self.environment, self.inventory)
        self.environment.prepare()
        self.launcher = Launcher(self.environment, self.inventory.topology.workers, log_level=log_level)
        self._clients: list[Client] = []

    def start(self) -> list[str]:
        """Start the workers of `topology.workers` that aren't running and wait until they are ready.

        Returns:
            The names of the workers that were started. Calling it again is safe.

        Raises:
            WorkerStartError: a worker can't start; none that this call started is left running.
        """
        return self.launcher.start()

    def make_client(self, *, start_workers: bool = False, notice: Callable[[str], None] | None = None) -> Client:
        """Return a client; `destroy` closes it.

        Args:
            start_workers: start the missing workers when the client's first job is sent, not before, and start again
                what was started here and has died when a later job needs it.
            notice: told of each worker that was started again.

        Raises:
            KeyFileError: the client's key pair can't be read or made.
        """
        keys = ensure_client_key(self.environment)
        transport = DirectTransport(self.environment, self.inventory, keys)
        tell = notice or (lambda _: None)
        first = partial(self._start_missing, tell) if start_workers else None
        again = partial(self._restart, tell) if start_workers else None
        client = Client(self.environment, self.inventory, keys, transport, before_first_job=first, restart=again)
        self._clients.append(client)
        return client

    def _start_missing(self, tell: Callable[[str], None]) -> None:
        own = set(self.launcher.own)
        for name in own.intersection(self.launcher.start()):
            tell(_started_again(name))

    def _restart(self, tell: Callable[[str], None], name: str) -> None:
        if self.launcher.restart(name):
            tell(_started_again(name))

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
