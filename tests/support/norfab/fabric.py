"""A NorFab fabric of the reference's: its broker and its workers as they are, CURVE on, each process in a test's hand.

Test files take the fixtures; the class is for fabrics that a test wants for itself.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zmq.auth

from support.norfab.processes import Reference, ReferenceProcess, inventory_text

JOIN_SECONDS = 30.0
PLUGINS = {
    "demo": {"worker": "demo_service:DemoWorker"},
    "mute": {"worker": "mute_service:MuteWorker"},
    "asking": {"worker": "asking_service:AskingWorker"},
}


class Fabric:
    """A broker with its keys, and the workers that its inventory names; nothing runs before it is started.

    `endpoint` and `shared_key` are known from the beginning, and stay when the broker is started again. `client` is a
    client of the reference's with a folder of its own, as on another machine.

    Args:
        python: the Python that has norfab.
        folder: NorFab's base folder, which is filled.
        socket_folder: where the broker's socket is; None has it listen on a free TCP port.
        workers: inventories by the names of workers, `{"service": "demo"}`; also of workers that are not of the
            reference's, which may ask the broker for theirs. `mute` is a service that doesn't list its tasks.
        services: further services, each with the one, `demo` or `mute`, whose tasks it has.
    """

    def __init__(
        self,
        python: str,
        folder: Path,
        socket_folder: Path | None,
        workers: Mapping[str, Mapping[str, Any]],
        services: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self.endpoint = f"ipc://{socket_folder}/b" if socket_folder else f"tcp://127.0.0.1:{_free_port()}"
        self.shared_key = _make_broker_key(folder / "__norfab__" / "files" / "broker")
        self._python = python
        inventory = {
            "broker": {"endpoint": self.endpoint},
            "workers": {name: [dict(settings)] for name, settings in workers.items()},
            "topology": {"broker": True, "workers": list(workers)},
            "plugins": {**PLUGINS, **{name: PLUGINS[like] for name, like in services.items()}},
        }
        (folder / "inventory.yaml").write_text(inventory_text(inventory), encoding="utf-8")
        self.broker: Any = None
        self.workers: dict[str, Any] = {}
        self._client: Any = None

    @property
    def join_inventory(self) -> dict[str, Any]:
        """What an inventory says to join: the key `broker`."""
        return {"endpoint": self.endpoint, "shared_key": self.shared_key}

    @property
    def client(self) -> Any:
        """The reference's client, which is connected when it is first asked for."""
        if self._client is None:
            folder = self.folder / "client"
            folder.mkdir()
            inventory = {"broker": self.join_inventory, "topology": {"broker": False}}
            self._client = Reference(self._python, folder, inventory)
            self._client.call("start")
            self._client.call("open_client", name="script")
        return self._client

    def start(self, *workers: str) -> None:
        """Start broker and workers side by side; wait until the workers have joined."""
        self.launch_broker()
        for name in workers:
            self.launch_worker(name)
        self.await_broker()
        for name in workers:
            self.workers[name].await_ready()
        if workers:
            self.await_workers(*workers)

    def launch_broker(self) -> None:
        """Start the broker, also again; don't wait."""
        self.broker = ReferenceProcess(self._python, self.folder)

    def await_broker(self) -> None:
        """Wait until the broker is bound."""
        self.broker.await_ready()

    def launch_worker(self, name: str) -> None:
        """Start a worker of the reference's, also again; don't wait."""
        self.workers[name] = ReferenceProcess(self._python, self.folder, name)

    def show_workers(self) -> list[dict[str, str]]:
        """Return the broker's rows on the workers that have joined."""
        rows: list[dict[str, str]] = self.client.call("show_workers")
        return rows

    def await_workers(self, *names: str, seconds: float = JOIN_SECONDS) -> None:
        """Wait until these workers, of whomever, have joined and are alive."""
        self.client.call("await_workers", names=names, seconds=seconds)

    def await_gone(self, *names: str, seconds: float = JOIN_SECONDS) -> None:
        """Wait until the broker knows none of these workers any more."""
        self.client.call("await_workers", names=names, seconds=seconds, gone=True)

    def stop(self) -> None:
        """End everything that runs."""
        running = [*self.workers.values(), *([self.broker] if self.broker else [])]
        for process in running:
            process.kill()
        if self._client is not None:
            self._client.stop()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _make_broker_key(folder: Path) -> str:
    """Make the broker's key pair where the reference would; return the public key."""
    public, private = folder / "public_keys", folder / "private_keys"
    for made in (public, private):
        made.mkdir(parents=True)
    file, secret_file = zmq.auth.create_certificates(private, "broker")
    shutil.move(file, public)
    return zmq.auth.load_certificate(secret_file)[0].decode()
