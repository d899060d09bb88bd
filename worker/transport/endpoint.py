"""Bind the endpoint of direct mode, or check that it can be bound."""

from __future__ import annotations

import os
from pathlib import Path

import zmq

from ...models.errors import WorkerStartError

_IPC = "ipc://"


def bind(router: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind a socket; return the endpoint, with the port's number where `endpoint` leaves the choice to the system.

    Raises:
        WorkerStartError: the address is in use, isn't this machine's or isn't a ZeroMQ endpoint.
    """
    file = socket_file(endpoint)
    if file is not None:
        _check_folder(endpoint, file)
        # This worker holds the lock on its name, so an existing socket file is a dead worker's.
        file.unlink(missing_ok=True)
    # Only if requested: an IPv6 socket reports IPv4 addresses in their mapped form.
    router.ipv6 = "[" in endpoint
    try:
        router.bind(endpoint)
    except zmq.ZMQError as error:
        raise _cannot_bind(endpoint, zmq.strerror(error.errno or 0)) from None
    if file is not None:
        file.chmod(0o600)
    return router.getsockopt_string(zmq.LAST_ENDPOINT)


def check_endpoint(endpoint: str) -> None:
    """Check that `bind` would succeed for a worker that isn't running; makes no file, and frees a port at once.

    Raises:
        WorkerStartError: as `bind` does.
    """
    file = socket_file(endpoint)
    if file is not None:
        _check_folder(endpoint, file)
        return
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        bind(router, endpoint)


def socket_file(endpoint: str) -> Path | None:
    """Return the file of an ipc endpoint, None for others."""
    return Path(endpoint.removeprefix(_IPC)) if endpoint.startswith(_IPC) else None


def _check_folder(endpoint: str, file: Path) -> None:
    if file.is_dir():
        raise _cannot_bind(endpoint, "it is a folder")
    # The folder of the default endpoint is made by the environment, perhaps only at the start.
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise _cannot_bind(endpoint, f"no folder {file.parent} that can be written to")


def _cannot_bind(endpoint: str, reason: str) -> WorkerStartError:
    return WorkerStartError(
        f"endpoint {endpoint} can't be bound: {reason}: free it or change `endpoint` in the inventory"
    )
