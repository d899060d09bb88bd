"""Where a worker's jobs come from: its own ROUTER in direct mode, a broker in fabric mode."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from ..models.environment.curve_keys import ensure_key_pair
from ..models.protocol.broker_connection import BrokerAddress
from .jobs.context import WorkerContext
from .jobs.executor import JobExecutor
from .transport.broker import FabricServer
from .transport.broker_jobs import client_name
from .transport.curve_auth import AllowedClients
from .transport.direct import DirectServer

log = logging.getLogger(__name__)

Server = DirectServer | FabricServer


def open_server(worker: WorkerContext) -> tuple[JobExecutor, Server]:
    """Return what runs a worker's jobs and what they come by, opened, both still to be started.

    The worker's `endpoint` and `health` are filled in.

    Raises:
        WorkerStartError: the endpoint can't be bound, or another worker has this one's name at the broker.
        KeyFileError: the worker's CURVE pair can't be had.
    """
    executor, server, connect = _direct(worker) if worker.broker is None else _fabric(worker, worker.broker)
    try:
        worker.endpoint = connect()
    except BaseException:
        server.stop()
        raise
    worker.health = {"jobs": executor.counters, "messaging": server.counters}
    return executor, server


def _direct(worker: WorkerContext) -> tuple[JobExecutor, Server, Callable[[], str]]:
    environment = worker.environment
    keys = ensure_key_pair(environment.keys_folder, worker.name)
    endpoint = worker.inventory.endpoint or environment.socket_endpoint(worker.name)
    clients = AllowedClients(environment.clients_folder)
    executor = JobExecutor(worker, clients.name)
    server = DirectServer(worker, executor, keys=keys, clients=clients)
    return executor, server, partial(server.bind, endpoint)


def _fabric(worker: WorkerContext, broker: BrokerAddress) -> tuple[JobExecutor, Server, Callable[[], str]]:
    keys = ensure_key_pair(worker.environment.keys_folder, worker.name)
    executor = JobExecutor(worker, client_name)
    server = FabricServer(worker, executor, address=broker, keys=keys)
    if broker.key is not None and broker.key.notice:
        log.warning("broker: %s", broker.key.notice)
    return executor, server, server.connect
