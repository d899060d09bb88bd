"""A worker with a few tasks in a fabric of the tests' own, and raw peers there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from nfcli.models.environment.curve_keys import ensure_key_pair
from nfcli.models.environment.paths import Environment
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.executor import JobExecutor
from nfcli.worker.jobs.task import TaskRegistry, task
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.transport.broker import BrokerTransport
from nfcli.worker.transport.broker_jobs import fabric_client_name
from support.direct_server import ask
from support.fabric.broker import WAIT_SECONDS
from support.task_context import task_context

KEEPALIVE_SECONDS, HOLD_SECONDS = 0.1, 0.6


class Joined:
    """A worker with tasks: `add` counts its runs, `quick` is run at once, `hold` waits for the gate; `ask`."""

    def __init__(self, environment: Environment, store: TokenStore, broker: Any) -> None:
        self.runs, self.gate = 0, threading.Event()

        def add(_worker: WorkerContext, _arguments: TaskInput) -> int:
            self.runs += 1
            return self.runs

        def quick(_worker: WorkerContext, _arguments: TaskInput) -> int:
            return 1

        def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
            return self.gate.wait(WAIT_SECONDS)

        tasks = ModuleType("tasks")
        vars(tasks).update(
            add=task(result=int)(add), hold=task(result=bool)(hold), quick=task(result=int, run_inline=True)(quick)
        )
        vars(tasks)["ask"] = task(result=bool)(ask)
        self.worker = task_context(
            environment=environment,
            registry=TaskRegistry(tasks),
            store=store,
            audit=AuditTrail(environment.audit_file("w1"), bytes(32)),
        )
        self.executor = JobExecutor(self.worker, fabric_client_name)
        self.executor.start()
        self.broker = broker
        self.keys = ensure_key_pair(environment.keys_folder, "w1")
        self.server = self.make_server()

    def make_server(self, hold_seconds: float = HOLD_SECONDS) -> BrokerTransport:
        """Make a connection for this worker."""
        return BrokerTransport(
            self.worker,
            self.executor,
            address=self.broker.address,
            keys=self.keys,
            keepalive_seconds=KEEPALIVE_SECONDS,
            hold_seconds=hold_seconds,
            connect_seconds=KEEPALIVE_SECONDS * 2,
        )

    def replace_server(self, hold_seconds: float = HOLD_SECONDS) -> None:
        """Have another connection instead of the one that wasn't used."""
        self.server.stop()
        self.server = self.make_server(hold_seconds)

    def join(self) -> None:
        """Connect and serve."""
        self.server.connect()
        self.server.start()

    def stop(self) -> None:
        """End everything."""
        self.gate.set()
        self.executor.stop()
        self.server.stop()
        self.worker.audit.close()


Connect = Callable[..., Any]


def runs_a_job(connect: Connect, name: bytes = b"somebody") -> bool:
    """Whether a job that is sent now is answered; one that is lost while the worker joins again is sent again."""
    peer = connect(name)
    for number in range(5):
        peer.post(f"job-{number}", {"task": "quick"})
        statuses: list[str] = []
        while len(statuses) < 4 and peer.dealer.poll(2_000):
            statuses += peer.statuses(1)
        if statuses == ["202", "event", "event", "200"]:
            return True
    return False


def eventually(condition: Callable[[], Any]) -> bool:
    """Poll until a condition holds for which there is no notification."""
    pause, deadline = threading.Event(), time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(KEEPALIVE_SECONDS / 10)
    return True
