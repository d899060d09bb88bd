"""The other services of a fabric: found through the broker, asked for their tasks, published as MCP tools.

A thread of its own looks at regular times. What comes is other programs' work: a service that says nothing, or
nonsense, keeps what was published of it and spoils nothing for the others.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from ...models.errors import NfcliError, TaskError
from ...models.protocol.frames import ALL, ANY
from ...models.protocol.jobs import Results, failure_reason

log = logging.getLogger(__name__)

MAX_SERVICES = 500
MAX_TASKS = 1_000
ASKED_AT_ONCE = 32
STOP_SECONDS = 2.0

_SHOWN_CHARACTERS = 200

Entries = list[Mapping[str, Any]]


class Fabric(Protocol):
    """What discovery needs of a `FabricClient`."""

    def submit(
        self, service: str, task: str, kwargs: dict[str, Any], *, timeout: float, target: str | Sequence[str]
    ) -> Future[Results]:
        """Send a job and return what will have its results."""

    def workers(self) -> list[dict[str, str]]:
        """Return a row for each worker that the broker has."""

    def is_settling(self) -> bool:
        """Whether the broker is back since so short a time that workers may not have registered again."""


class Catalogue(Protocol):
    """Where the tasks that were found are published."""

    def replace(self, service: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
        """Publish these tasks of a service instead of those before; return the names of its tools."""

    def keep_only(self, services: Collection[str]) -> None:
        """Take away what is published of all other services."""


@dataclass(frozen=True)
class Pace:
    """How often and how long, in seconds.

    `look`: between two questions to the broker. `answer`: for a service that is asked for its tasks. `retry` and
    `retry_max`: the pause after a service failed to answer, at first, and what it grows to.
    """

    look: float = 2.5
    answer: float = 3.0
    retry: float = 5.0
    retry_max: float = 60.0


@dataclass(frozen=True)
class Discovered:
    """What services said: the names of the tools that are published of each, or what went wrong, on one line."""

    tools: dict[str, list[str]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass
class _Service:
    """One service while the broker has workers of it; `uptimes` are their seconds since they registered."""

    uptimes: dict[str, float]
    next_try: float = -math.inf
    pause: float = 0.0
    problem: str = ""


class Discovery:
    """Looks for services at regular times and on demand; what it finds goes to a catalogue.

    A service is asked when it shows up, and again when a worker of it registers anew: that one may know other tasks.

    Args:
        own_service: this worker's, which is not looked for.
        fabric: how to reach the others.
        catalogue: where their tasks are published.
        pace: how often and how long.
    """

    def __init__(self, own_service: str, fabric: Fabric, catalogue: Catalogue, *, pace: Pace | None = None) -> None:
        self._own_service = own_service
        self._fabric = fabric
        self._catalogue = catalogue
        self._pace = pace or Pace()
        # One look at a time: the older of two would publish what the newer one took away.
        self._lock = threading.Lock()
        self._services: dict[str, _Service] = {}
        self._published: set[str] = set()
        self._problem = ""
        self._has_too_many = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="discovery", daemon=True)

    def start(self) -> None:
        """Start looking, at once and then at regular times."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Let the thread end as soon as what it waits for is over."""
        self._stopping.set()

    def stop(self) -> None:
        """End the thread; what it waits for should have been ended before."""
        self.ask_to_stop()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)

    def discover(self, service: str = ALL, *, tell: Callable[[str], None] | None = None) -> Discovered:
        """Ask one service, or all, for their tasks now; blocks for `pace.answer` seconds where one is silent.

        May be called from any thread but that of a loop; looks that are under way are waited for. `tell` gets a line
        for each service that says what it can do, as it does.

        Raises:
            TaskError: there is no such service, or it doesn't answer.
            NfcliError: the broker can't be reached.
        """
        if service == self._own_service:
            raise TaskError(f"service {service} is this worker's own: its tools are always published")
        with self._lock:
            self._look_around()
            if service == ALL:
                return self._ask(sorted(self._services), tell)
            if service not in self._services:
                known = ", ".join(sorted(self._services)) or "none"
                raise TaskError(f"unknown service {service[:_SHOWN_CHARACTERS]!r}: there is {known}")
            found = self._ask([service], tell)
        if found.problems:
            raise TaskError(f"service {service}: {found.problems[service]}")
        return found

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
            except NfcliError as error:
                self._say_away(str(error))
            except Exception as error:  # noqa: BLE001  a fault must not end the thread: services go on coming and going
                log.error("discovery failed: %s", type(error).__name__)
            self._stopping.wait(self._pace.look)

    def _look(self) -> None:
        with self._lock:
            self._look_around()
            now = time.monotonic()
            self._ask(sorted(name for name, service in self._services.items() if now >= service.next_try))

    def _look_around(self) -> None:
        """Learn from the broker which services there are; those that have gone take their tools along."""
        found = self._registered(self._fabric.workers())
        self._say_back()
        # Workers need a while to find a broker that was away: until then what isn't there has not gone.
        if not self._fabric.is_settling():
            for name in self._services.keys() - found.keys():
                del self._services[name]
            if self._published - found.keys():
                log.info("services gone: %s", ", ".join(sorted(self._published - found.keys())))
                self._published &= found.keys()
                self._catalogue.keep_only(frozenset(self._published))
        for name, uptimes in found.items():
            service = self._services.setdefault(name, _Service(uptimes))
            if any(uptime < service.uptimes.get(worker, math.inf) for worker, uptime in uptimes.items()):
                service.next_try = -math.inf
            service.uptimes = uptimes

    def _registered(self, rows: Iterable[Mapping[str, str]]) -> dict[str, dict[str, float]]:
        """Return the other services that have a worker, each with the uptimes of its workers."""
        services: dict[str, dict[str, float]] = {}
        for row in rows:
            if row.get("status") == "alive" and row["service"] not in {self._own_service, ALL}:
                services.setdefault(row["service"], {})[row["name"]] = _seconds(row.get("alive (s)", ""))
        if len(services) > MAX_SERVICES and not self._has_too_many:
            log.warning("the broker has more than %d services: the others are passed over", MAX_SERVICES)
        self._has_too_many = len(services) > MAX_SERVICES
        return {name: services[name] for name in sorted(services)[:MAX_SERVICES]}

    def _ask(self, names: Iterable[str], tell: Callable[[str], None] | None = None) -> Discovered:
        """Ask services for their tasks, side by side, and publish what each says as soon as it does."""
        found = Discovered()
        for name, answer in self._answers(iter(names)):
            service = self._services[name]
            try:
                found.tools[name] = self._publish(name, _entries(answer()))
            except NfcliError as error:
                found.problems[name] = self._put_off(name, service, str(error))
            except Exception as error:  # noqa: BLE001  a fault costs one service, not all that come after it
                found.problems[name] = self._put_off(name, service, f"internal error: {type(error).__name__}")
            else:
                service.next_try, service.pause, service.problem = math.inf, 0.0, ""
                if tell is not None:
                    tell(f"service {name}: tools found: {len(found.tools[name])}")
        return Discovered(dict(sorted(found.tools.items())), dict(sorted(found.problems.items())))

    def _answers(self, names: Iterator[str]) -> Iterator[tuple[str, Callable[[], Results]]]:
        """Yield each service with what returns or raises its answer, in the order in which they come."""
        under_way: dict[Future[Results], str] = {}
        while True:
            for name in islice(names, ASKED_AT_ONCE - len(under_way)):
                try:
                    asked = self._fabric.submit(name, "list_tasks", {}, timeout=self._pace.answer, target=ANY)
                except NfcliError as error:
                    asked = Future()
                    asked.set_exception(error)
                under_way[asked] = name
            if not under_way:
                return
            for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                yield under_way.pop(done), done.result

    def _publish(self, name: str, entries: Entries) -> list[str]:
        tools = self._catalogue.replace(name, entries)
        if name not in self._published:
            log.info("service %s found: %d tasks, %d tools", name[:_SHOWN_CHARACTERS], len(entries), len(tools))
        self._published.add(name)
        return tools

    def _put_off(self, name: str, service: _Service, problem: str) -> str:
        """Have a service that didn't answer asked again later, and tell it once for each reason."""
        service.pause = min(service.pause * 2 or self._pace.retry, self._pace.retry_max)
        service.next_try = time.monotonic() + service.pause
        if problem != service.problem and not self._stopping.is_set():
            log.warning("tasks of service %s not found: %s", name[:_SHOWN_CHARACTERS], problem[:_SHOWN_CHARACTERS])
        service.problem = problem
        return problem

    def _say_away(self, problem: str) -> None:
        if problem != self._problem and not self._stopping.is_set():
            log.warning("other services can't be looked for: %s", problem)
        self._problem = problem

    def _say_back(self) -> None:
        if self._problem:
            log.info("other services can be looked for again")
        self._problem = ""


def _entries(results: Results) -> Entries:
    """Return the tasks that a worker listed.

    Raises:
        TaskError: it failed, or answered something else.
    """
    for result in results.values():
        if result["failed"]:
            raise TaskError(failure_reason(result))
        value = result.get("result")
        if isinstance(value, list) and len(value) <= MAX_TASKS and all(isinstance(entry, dict) for entry in value):
            return value
    raise TaskError(f"the answer to list_tasks is no list of at most {MAX_TASKS} tasks")


def _seconds(text: str) -> float:
    """Return an uptime as the broker tells it; 0, which never goes down, for what is none."""
    try:
        return float(text)
    except ValueError:
        return 0.0
