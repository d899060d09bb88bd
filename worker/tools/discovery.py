"""Discovery of the fabric's other services, whose tasks are published as MCP tools.

A thread polls the broker for services and asks them for their tasks. Answers are untrusted: a service that doesn't
answer, or answers nonsense, keeps its published tools and doesn't affect the others.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ...models.errors import NfcliError, TaskError
from ...models.protocol.frames import ALL
from ...models.protocol.jobs import OUTCOME_UNKNOWN, Results, failure_reason
from .catalogue import ToolCatalogue

log = logging.getLogger(__name__)

MAX_SERVICES = 500
MAX_TASKS = 1_000
CONCURRENT_JOBS = 32
STOP_SECONDS = 2.0

Entries = list[Mapping[str, Any]]


@dataclass(frozen=True)
class Intervals:
    """Intervals and time limits of discovery, in seconds.

    `poll`: between two requests to the broker. `answer`: time limit for a service's list of tasks. `retry`,
    `retry_max`: the first pause after a service failed to answer, and the longest that doubling it leads to.
    """

    poll: float = 2.5
    answer: float = 3.0
    retry: float = 5.0
    retry_max: float = 60.0


@dataclass(frozen=True)
class Discovered:
    """Result of a discovery: by service the names of its published tools, or one line about what failed."""

    tools: dict[str, list[str]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass
class _Service:
    """A service that has workers at the broker; `uptimes` are their seconds since they registered."""

    uptimes: dict[str, float]
    next_try: float = -math.inf
    pause: float = 0.0
    problem: str = ""


class Discovery:
    """Discovers services at regular intervals and on demand, and publishes their tasks in a catalogue.

    A service is asked for its tasks when its first worker registers, and again whenever a worker registers: that one
    may have other tasks.

    `list_workers` returns the broker's row of each worker; `list_tasks` sends that task to any worker of a service,
    with a time limit in seconds. Both may raise NfcliError. `is_settling` returns whether the broker came back so
    recently that workers may not have registered again. `own_service` is skipped; `clock` returns monotonic seconds.
    """

    def __init__(
        self,
        own_service: str,
        catalogue: ToolCatalogue,
        *,
        list_workers: Callable[[], list[dict[str, str]]],
        list_tasks: Callable[[str, float], Future[Results]],
        is_settling: Callable[[], bool],
        intervals: Intervals | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own_service = own_service
        self._catalogue = catalogue
        self._list_workers = list_workers
        self._list_tasks = list_tasks
        self._is_settling = is_settling
        self._intervals = intervals or Intervals()
        self._clock = clock
        # One discovery at a time: the older of two would publish what the newer one removed.
        self._lock = threading.Lock()
        self._services: dict[str, _Service] = {}
        self._published: set[str] = set()
        self._problem = ""
        self._has_too_many = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="discovery", daemon=True)

    def start(self) -> None:
        """Start polling."""
        self._thread.start()

    def request_stop(self) -> None:
        """Let the thread end as soon as it isn't waiting for an answer."""
        self._stopping.set()

    def stop(self) -> None:
        """End the thread; the jobs it waits for should have been ended before."""
        self.request_stop()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)

    def discover(self, service: str = ALL, *, progress: Callable[[str], None] | None = None) -> Discovered:
        """Ask one service, or all, for their tasks now; blocks for `intervals.answer` seconds if one doesn't answer.

        Call it from any thread but an event loop's; it waits for a discovery in progress. `progress` is called with one
        line for each service as soon as its tools are published.

        Raises:
            TaskError: there is no such service, or it failed to answer.
            NfcliError: the broker is not reachable.
        """
        if service == self._own_service:
            raise TaskError(f"service {service} is this worker's own: its tools are always published")
        with self._lock:
            self._refresh_services()
            if service == ALL:
                return self._ask(sorted(self._services), progress)
            if service not in self._services:
                known = ", ".join(sorted(self._services)) or "none"
                raise TaskError(f"unknown service {service[:200]!r}: known are {known}")
            found = self._ask([service], progress)
        if found.problems:
            raise TaskError(f"service {service}: {found.problems[service]}")
        return found

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                self.poll()
            except NfcliError as error:
                if str(error) != self._problem and not self._stopping.is_set():
                    log.warning("service discovery failed: %s", error)
                self._problem = str(error)
            except Exception as error:  # noqa: BLE001  a fault must not end the thread
                log.error("service discovery failed: %s", type(error).__name__)
            self._stopping.wait(self._intervals.poll)

    def poll(self) -> None:
        """Refresh the services, and ask those for their tasks that are new or due for a retry.

        Raises:
            NfcliError: the broker is not reachable.
        """
        with self._lock:
            self._refresh_services()
            now = self._clock()
            self._ask(sorted(name for name, service in self._services.items() if now >= service.next_try))

    def _refresh_services(self) -> None:
        """Fetch the services from the broker, and remove the tools of those that have no worker any more."""
        found = self._registered(self._list_workers())
        if self._problem:
            log.info("service discovery works again")
        self._problem = ""
        # Workers need time to register with a broker that was down: until then a missing service isn't gone.
        if not self._is_settling():
            for name in self._services.keys() - found.keys():
                del self._services[name]
            if self._published - found.keys():
                log.info("services gone: %s", ", ".join(sorted(self._published - found.keys())))
                self._published &= found.keys()
                self._catalogue.retain(frozenset(self._published))
        for name, uptimes in found.items():
            service = self._services.setdefault(name, _Service(uptimes))
            if any(uptime < service.uptimes.get(worker, math.inf) for worker, uptime in uptimes.items()):
                service.next_try = -math.inf
            service.uptimes = uptimes

    def _registered(self, rows: Iterable[Mapping[str, str]]) -> dict[str, dict[str, float]]:
        """Return the other services that have live workers, with these workers' uptimes."""
        services: dict[str, dict[str, float]] = {}
        for row in rows:
            if row.get("status") == "alive" and row["service"] not in {self._own_service, ALL}:
                services.setdefault(row["service"], {})[row["name"]] = _seconds(row.get("alive (s)", ""))
        if len(services) > MAX_SERVICES and not self._has_too_many:
            log.warning("the broker has more than %d services: the rest is skipped", MAX_SERVICES)
        self._has_too_many = len(services) > MAX_SERVICES
        return {name: services[name] for name in sorted(services)[:MAX_SERVICES]}

    def _ask(self, names: Iterable[str], progress: Callable[[str], None] | None = None) -> Discovered:
        """Ask services for their tasks, concurrently, and publish each answer as it arrives."""
        found = Discovered()
        for name, answer in self._answers(iter(names)):
            try:
                found.tools[name] = self._publish(name, _entries(answer()))
            except NfcliError as error:
                found.problems[name] = self._back_off(name, str(error))
            except Exception as error:  # noqa: BLE001  a fault must not affect the other services
                found.problems[name] = self._back_off(name, f"internal error: {type(error).__name__}")
            else:
                self._services[name] = _Service(self._services[name].uptimes, next_try=math.inf)
                if progress is not None:
                    progress(f"service {name}: tools found: {len(found.tools[name])}")
        return Discovered(dict(sorted(found.tools.items())), dict(sorted(found.problems.items())))

    def _answers(self, names: Iterator[str]) -> Iterator[tuple[str, Callable[[], Results]]]:
        """Yield each service and a function that returns its answer or raises, in the order of the answers."""
        jobs: dict[Future[Results], str] = {}
        while True:
            for name in islice(names, CONCURRENT_JOBS - len(jobs)):
                try:
                    job = self._list_tasks(name, self._intervals.answer)
                except NfcliError as error:
                    job = Future()
                    job.set_exception(error)
                jobs[job] = name
            if not jobs:
                return
            for done in wait(jobs, return_when=FIRST_COMPLETED).done:
                yield jobs.pop(done), done.result

    def _publish(self, name: str, entries: Entries) -> list[str]:
        tools = self._catalogue.replace(name, entries)
        if name not in self._published:
            log.info("service %.200s found: %d tasks, %d tools", name, len(entries), len(tools))
        self._published.add(name)
        return tools

    def _back_off(self, name: str, problem: str) -> str:
        """Schedule the retry for a service that failed to answer; log each problem once, and return it."""
        service = self._services[name]
        service.pause = min(service.pause * 2 or self._intervals.retry, self._intervals.retry_max)
        service.next_try = self._clock() + service.pause
        if problem != service.problem and not self._stopping.is_set():
            log.warning("service %.200s did not list its tasks: %.200s", name, problem)
        service.problem = problem
        return problem


def _entries(results: Results) -> Entries:
    """Return the entries that a worker answered to `list_tasks`.

    Raises:
        TaskError: the task failed, or the answer is not such a list.
    """
    for result in results.values():
        if result["failed"]:
            reason = failure_reason(result).partition(f", {OUTCOME_UNKNOWN}")[0]  # nothing was to be changed
            raise TaskError(reason)
        value = result.get("result")
        if isinstance(value, list) and len(value) <= MAX_TASKS and all(isinstance(entry, dict) for entry in value):
            return value
    raise TaskError(f"the answer to list_tasks is not a list of at most {MAX_TASKS} tasks")


def _seconds(text: str) -> float:
    """Return an uptime from the broker's text; 0, which never decreases, if it isn't a number."""
    try:
        return float(text)
    except ValueError:
        return 0.0
