"""A worker that has the right key and says what a script tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from nfcli.models.environment.curve_keys import ensure_client_key, ensure_key_pair
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import WorkerLock
from nfcli.models.inventory.loader import load_inventory
from nfcli.models.protocol.pending_job import OnEvent
from nfcli.shell.client.client import Client
from nfcli.shell.transport.direct import DirectTransport

WAIT_SECONDS = 10.0
Frames = list[bytes]
Script = Callable[[str], list[Frames]]


def answer(uuid: str, status: str, data: Any, command: bytes = b"0x05") -> Frames:
    """Return the frames of an answer; bytes go out as they are."""
    payload = data if isinstance(data, bytes) else json.dumps(data).encode()
    return [b"", b"NFPB01", command, b"fastmcp", uuid.encode(), status.encode(), payload]


def result(value: str) -> dict[str, Any]:
    """Return the data of a good answer."""
    return {DEFAULT_WORKER: {"result": value, "failed": False, "errors": []}}


class Rogue:
    """A ROUTER under the name of the default worker that answers each message with what `script` makes of its uuid.

    `is_silent` is set when all of an answer has been handed to ZeroMQ.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.script: Script = lambda _: []
        self.is_silent = threading.Event()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.sndhwm = 0
        keys = ensure_key_pair(environment.keys_folder, DEFAULT_WORKER)
        self.router.curve_publickey, self.router.curve_secretkey = keys.public, keys.secret
        self.router.curve_server = True
        port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.lock = WorkerLock.acquire(environment.lock_file(DEFAULT_WORKER))
        # A wildcard address, as an inventory may bind to, means this machine.
        self.lock.publish(ready=True, endpoint=f"tcp://0.0.0.0:{port}", url="")
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while not self.stopping.is_set():
            if self.router.poll(20):
                identity, *frames = self.router.recv_multipart()
                for reply in self.script(frames[5].decode()):
                    self.router.send_multipart([identity, *reply])
                self.is_silent.set()

    def transport(self, **options: Any) -> DirectTransport:
        """Return a transport of the worker's environment."""
        keys = ensure_client_key(self.environment)
        return DirectTransport(self.environment, load_inventory(self.environment), keys, **options)

    def client(self, on_event: OnEvent | None = None, **options: Any) -> Client:
        """Return a client of the worker; the other options are those of its transport."""
        inventory, keys = load_inventory(self.environment), ensure_client_key(self.environment)
        return Client(self.environment, inventory, keys, self.transport(**options), on_event=on_event)

    def stop(self) -> None:
        """Close everything."""
        self.stopping.set()
        self.thread.join(WAIT_SECONDS)
        self.lock.release()
        self.context.destroy(linger=0)


@contextmanager
def rogue_and_client(folder: Path) -> Iterator[tuple[Rogue, Client]]:
    """Run a rogue in an environment of its own in `folder`, and make a client of it."""
    environment = Environment(folder, None)
    environment.prepare()
    rogue = Rogue(environment)
    try:
        with rogue.client() as client:
            yield rogue, client
    finally:
        rogue.stop()
