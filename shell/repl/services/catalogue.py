"""The tasks of all services, as their workers list them: asked for when they are needed, and kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ....models.commands.base import ALL_WORKERS, Entry
from ....models.commands.schemas.definitions import check_tasks, is_usable_name, merge_tasks
from ....models.commands.schemas.groups import task_entries
from ....models.errors import NfcliError, TaskError
from ....models.protocol.jobs import Results, failure_reason
from ...text import escape_line
from .background import RETRY_SECONDS, Background

LIST_TASKS_SECONDS = 3.0
KEY_PRESS_SECONDS = 0.02
FRESH_SECONDS = 1.0
"""How long the list of workers counts as fresh."""
SAME_START_SECONDS = 1.5
"""How far apart two reports of one start of a worker may be: both ends round."""
_ALIVE = "alive"


class CatalogueClient(Protocol):
    """The client, as far as it is asked for tasks."""

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker."""

    def run_job(self, service: str, task: str, *, workers: str = ..., timeout: float = ...) -> Results:
        """Run a task; return one entry for each worker."""


@dataclass(frozen=True)
class _Known:
    """The tasks of a service, when its workers had started then, and when to ask again where one hasn't answered."""

    entries: dict[str, Entry]
    starts: Mapping[str, float]
    ask_after: float


class TaskCatalogue:
    """Asks the workers of a service for their tasks, and again once one of them has started since.

    `note` prints a line about a worker that doesn't answer. `clock` returns monotonic seconds.
    """

    def __init__(
        self,
        client: CatalogueClient,
        *,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._note = note
        self._clock = clock
        self._background = Background(clock=clock)
        self._rows: list[dict[str, str]] = []
        self._services: dict[str, str] = {}
        self._rows_after = float("-inf")
        self._known: dict[str, _Known] = {}
        self._asks = True

    @contextmanager
    def only_known(self) -> Iterator[None]:
        """Answer from what is known meanwhile; what isn't is asked for in a thread, which is waited for 20 ms."""
        before, self._asks = self._asks, False
        try:
            yield
        finally:
            self._asks = before

    def services(self) -> dict[str, str]:
        """Return the services, and for each how many workers it has.

        Raises:
            NfcliError: the broker can't be reached.
        """
        self._fresh_rows()
        return self._services

    def task_entries(self, service: str) -> dict[str, Entry]:
        """Return what can be typed below a service, by the names of its tasks.

        Raises:
            NoWorkersError: no worker of it can be reached.
            TaskError: none of them has listed its tasks; says why.
        """
        known = self._known.get(service)
        if not self._asks:
            if known is None:
                self._background.ask(("tasks", service), lambda: self._load(service), wait_seconds=KEY_PRESS_SECONDS)
                known = self._known.get(service)
            return {} if known is None else known.entries
        if known is None or not self._is_current(service, known):
            known = self._load(service, note=self._note)
        return known.entries

    def _fresh_rows(self) -> list[dict[str, str]]:
        if self._clock() < self._rows_after:
            return self._rows
        if self._asks:
            self._load_rows()
        else:
            self._background.ask("workers", self._load_rows, wait_seconds=KEY_PRESS_SECONDS)
        return self._rows

    def _load_rows(self) -> None:
        self._rows = self._client.show_workers()
        self._services = _services(self._rows)
        self._rows_after = self._clock() + FRESH_SECONDS

    def _is_current(self, service: str, known: _Known) -> bool:
        starts = self._starts(service)
        if self._clock() >= known.ask_after:
            return False
        return starts.keys() == known.starts.keys() and all(
            abs(starts[name] - known.starts[name]) <= SAME_START_SECONDS for name in starts
        )

    def _starts(self, service: str) -> dict[str, float]:
        """Return when each worker of a service has started that is alive, by this catalogue's clock."""
        rows = self._fresh_rows()
        now = self._rows_after - FRESH_SECONDS
        return {
            row["name"]: now - _seconds(row.get("alive (s)", ""))
            for row in rows
            if row.get("service") == service and row.get("status") == _ALIVE
        }

    def _load(self, service: str, note: Callable[[str], None] = lambda _: None) -> _Known:
        results = self._client.run_job(service, "list_tasks", workers=ALL_WORKERS, timeout=LIST_TASKS_SECONDS)
        answers, problems = split_answers(results)
        if not answers:
            reasons = "; ".join(problems.values()) or "there are none"
            raise TaskError(f"no worker of {escape_line(service)} has listed its tasks: {reasons}")
        self._load_rows()
        starts = self._starts(service)
        for worker in problems:
            if worker in starts:
                note(problems[worker])
        tasks = merge_tasks(service, answers, _workers(results, answers, starts))
        ask_after = self._clock() + RETRY_SECONDS if problems else float("inf")
        self._known[service] = _Known(task_entries(tasks), starts, ask_after)
        return self._known[service]


def _services(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the services whose names can be typed, and for each how many workers it has."""
    counts = Counter(row.get("service", "") for row in rows)
    names = sorted(name for name in counts if is_usable_name(name) and name != ALL_WORKERS)
    return {name: f"{counts[name]} worker{'s' if counts[name] > 1 else ''}" for name in names}


def split_answers(results: Results) -> tuple[dict[str, object], dict[str, str]]:
    """Return what each worker has answered to `list_tasks`, and a line about each of the others."""
    answers: dict[str, object] = {}
    problems = {}
    for worker, result in sorted(results.items()):
        if result.get("failed"):
            problems[worker] = f"{worker} hasn't listed its tasks: {failure_reason(result)}"
            continue
        try:
            check_tasks(worker, result.get("result"))
        except NfcliError as error:
            problems[worker] = str(error)
        else:
            answers[worker] = result.get("result")
    return answers, problems


def _workers(results: Results, answers: Mapping[str, object], starts: Mapping[str, float]) -> Sequence[str]:
    """Return the workers that a task can be missing on: those that answered, not those that are away."""
    return sorted(name for name in results if name in answers or name in starts)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
