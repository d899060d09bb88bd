"""What tests of a fabric share: hubs with clients, a catalogue to wait for, a fabric without a wire."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from nfcli.models.protocol.broker_presence import Timeouts
from nfcli.models.protocol.frames import ANY
from nfcli.models.tasks.tools import tool_name
from nfcli.worker.fabric.client import FabricClient
from nfcli.worker.tools.discovery import Discovery, Intervals
from support.fabric.hub import WAIT_SECONDS, pushes

# Short where something has to happen, long where it must not.
TIMEOUTS = Timeouts(poll=0.05, answer=WAIT_SECONDS, comeback=WAIT_SECONDS)
INTERVALS = Intervals(poll=0.02, answer=WAIT_SECONDS, retry=0.01, retry_max=0.05)
NO_LIST = "the answer to list_tasks is not a list of at most 1000 tasks"

Connect = Callable[..., FabricClient]
Make = Callable[..., Discovery]


class Catalogue:
    """Keeps what is published, and lets a test wait for it."""

    def __init__(self) -> None:
        self.by_service: dict[str, list[str]] = {}
        self.kept: list[set[str]] = []
        self.faulty: set[str] = set()
        self._change = threading.Condition()

    def replace(self, service: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
        """Publish."""
        if service in self.faulty:
            raise RuntimeError
        tools = [tool_name(service, entry["name"]) for entry in entries]
        with self._change:
            self.by_service[service] = tools
            self._change.notify_all()
        return tools

    def retain(self, services: Collection[str]) -> None:
        """Take away."""
        with self._change:
            self.kept.append(set(services))
            self.by_service = {name: tools for name, tools in self.by_service.items() if name in services}
            self._change.notify_all()

    def wait_for(self, **by_service: list[str]) -> None:
        """Wait until exactly this is published: services and their tasks."""
        expected = {service: [tool_name(service, task) for task in tasks] for service, tasks in by_service.items()}
        with self._change:
            assert self._change.wait_for(lambda: self.by_service == expected, WAIT_SECONDS), self.by_service


class Fabric:
    """A fabric without a wire: rows of the broker, and what each service answers once `awaits` have been asked."""

    def __init__(self, **services: Any) -> None:
        self.services = services
        self.rows = [{"name": f"{name}1", "service": name, "status": "alive", "alive (s)": "5"} for name in services]
        self.fault: Exception | None = None
        self.awaits = 1
        self.asked: list[str] = []
        self.most_at_once = 0
        self._polls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._jobs: list[Future[Any]] = []

    def workers(self) -> list[dict[str, str]]:
        """Return the rows."""
        self._polls.put(None)
        if self.fault is not None:
            raise self.fault
        return self.rows

    def list_tasks(self, service: str, _seconds: float) -> Future[Any]:
        """Answer, or raise the service's error."""
        self.asked.append(service)
        answer = self.services[service]
        if isinstance(answer, Exception):
            raise answer
        asked: Future[Any] = Future()
        self._jobs.append(asked)
        self.most_at_once = max(self.most_at_once, sum(not each.done() for each in self._jobs))
        if self.most_at_once >= self.awaits:
            for each in (each for each in self._jobs if not each.done()):
                each.set_result({"w": {"failed": False, "result": answer}})
        return asked

    def discovery(
        self, catalogue: Any, *, clock: Callable[[], float] = time.monotonic, **intervals: float
    ) -> Discovery:
        """Return the discovery of this fabric's services by a worker of service `own`."""
        return Discovery(
            "own",
            catalogue,
            list_workers=self.workers,
            list_tasks=self.list_tasks,
            is_settling=lambda: False,
            intervals=Intervals(**intervals),
            clock=clock,
        )

    def wait_for_polls(self, count: int) -> None:
        """Wait until the broker has been asked so many more times."""
        for _ in range(count):
            self._polls.get(timeout=WAIT_SECONDS)


def lists(*tasks: str) -> Any:
    """Be a worker with these tasks."""
    return pushes([{"name": task} for task in tasks])


def tools(service: str, *tasks: str) -> dict[str, list[str]]:
    """Return what is found of a service."""
    return {service: [tool_name(service, task) for task in tasks]}


def discover_through(client: FabricClient, catalogue: Any, intervals: Intervals) -> Discovery:
    """Return the discovery of a client's fabric by a worker of service `own`."""
    return Discovery(
        "own",
        catalogue,
        list_workers=client.workers,
        list_tasks=lambda service, seconds: client.submit(service, "list_tasks", {}, timeout=seconds, target=ANY),
        is_settling=client.is_settling,
        intervals=intervals,
    )


def values(results: dict[str, Any]) -> dict[str, Any]:
    """Return the value of each result, or the errors of a failed one."""
    return {name: each["errors"] if each["failed"] else each["result"] for name, each in results.items()}
