"""Workers without an MCP server, run in this process, and clients of them."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from nfcli.models.environment.curve_keys import ensure_client_key, ensure_key_pair
from nfcli.models.environment.paths import Environment
from nfcli.models.environment.worker_lock import WorkerLock
from nfcli.models.inventory.loader import load_inventory
from nfcli.models.tasks.base import TaskInput
from nfcli.shell.client.client import Client
from nfcli.shell.transport.direct import DirectTransport
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.executor import JobExecutor
from nfcli.worker.jobs.task import TaskRegistry, task
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.transport.curve_auth import AuthorizedKeys
from nfcli.worker.transport.direct import DirectServer
from support.task_context import task_context

WAIT_SECONDS = 10.0


class Server:
    """A worker without an MCP server.

    Task `who` returns its name or fails if `fails`, `hold` waits for `gate`, `report` first reports two steps.
    """

    def __init__(self, environment: Environment, name: str) -> None:
        self.name, self.runs, self.gate, self.fails = name, 0, threading.Event(), False
        self.entered = threading.Event()
        self._open = ExitStack()
        lock = WorkerLock.acquire(environment.lock_file(name))
        self._open.callback(lock.release)
        store = self._open.enter_context(TokenStore(environment.tokens_folder(name)))
        self.worker = task_context(
            name=name,
            environment=environment,
            inventory=load_inventory(environment).workers[name],
            registry=TaskRegistry(self._tasks()),
            store=store,
            audit=self._open.enter_context(AuditTrail(environment.audit_file(name), bytes(32))),
        )
        clients = AuthorizedKeys(environment.clients_folder)
        self.executor = JobExecutor(self.worker, clients.name)
        self._open.callback(self.executor.stop)
        keys = ensure_key_pair(environment.keys_folder, name)
        self.direct = DirectServer(self.worker, self.executor, keys=keys, clients=clients)
        self._open.callback(self.direct.stop)
        endpoint = self.direct.bind(environment.socket_endpoint(name))
        self.executor.start()
        self.direct.start()
        lock.publish(ready=True, endpoint=endpoint, url="")

    def _tasks(self) -> ModuleType:
        def who(worker: WorkerContext, _arguments: TaskInput) -> str:
            self.runs += 1
            return str(1 / (not self.fails)) and worker.name

        def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
            self.entered.set()
            return self.gate.wait(WAIT_SECONDS)

        def report(worker: WorkerContext, arguments: TaskInput) -> bool:
            worker.progress("one")
            worker.progress("two")
            return hold(worker, arguments)

        tasks = ModuleType("tasks")
        vars(tasks).update(who=task(result=str)(who), hold=task(result=bool)(hold), report=task(result=bool)(report))
        return tasks

    def stop(self) -> None:
        """Close everything; safe to repeat."""
        self.gate.set()
        self._open.close()


class Fabric:
    """An environment with workers `a`, `b` and `c` in its inventory, none of them running."""

    def __init__(self, folder: Path) -> None:
        file = folder / "inventory.yaml"
        workers = {name: [{"service": "fastmcp", "port": 0}] for name in "abc"}
        file.write_text(yaml.safe_dump({"workers": workers, "topology": {"workers": [*"abc"]}}))
        self.environment = Environment(folder, file)
        self.environment.prepare()
        self.servers: dict[str, Server] = {}

    def run(self, *names: str) -> None:
        """Start workers."""
        for name in names:
            self.servers[name] = Server(self.environment, name)

    def client(self, **options: Any) -> Client:
        """Return a client."""
        keys = ensure_client_key(self.environment)
        inventory = load_inventory(self.environment)

        def open_transport(_identity: str) -> DirectTransport:
            return DirectTransport(self.environment, inventory, keys)

        transport = open_transport("")
        return Client(self.environment, inventory, keys, transport, open_transport=open_transport, **options)
