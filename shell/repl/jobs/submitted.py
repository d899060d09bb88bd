"""Run the commands for jobs that nobody waits for: `… nowait` and `show jobs`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from ....models.commands.base import JobArguments
from ....models.commands.jobs import ShowJobs
from ....models.errors import UsageError
from ....models.protocol.jobs import EVENT_TIME, Event, Results, failure_reason, read_event

Fail = Callable[[str], None]


class StartedJob(Protocol):
    """A job that workers have taken; `failed` are the results of those that haven't."""

    @property
    def uuid(self) -> str:
        """The job's id."""

    @property
    def failed(self) -> Results:
        """Failed results."""


class FetchedResults(Protocol):
    """What the workers of a job have to say by now."""

    @property
    def results(self) -> Results:
        """The results of those that have one."""

    @property
    def states(self) -> Mapping[str, str]:
        """The states of the others."""

    def describe(self) -> dict[str, Any]:
        """Return the job with the state of each worker."""


class JobsClient(Protocol):
    """The client, as far as it knows jobs that nobody waits for; `shell/client/client.py` documents the errors."""

    def start_job(
        self, service: str, task: str, *, kwargs: dict[str, Any], workers: str | Sequence[str], timeout: float
    ) -> StartedJob:
        """Send a job without waiting for its results."""

    def list_jobs(self) -> list[dict[str, Any]]:
        """Return a row for each job that was sent so, the oldest first."""

    def fetch_results(self, uuid: str) -> FetchedResults:
        """Return what the workers of a job have to say by now."""

    def fetch_events(self, uuid: str) -> Results:
        """Return what `job_details` of each worker of a job returns, events included."""


def start_job(command: JobArguments, client: JobsClient, fail: Fail) -> str:
    """Send a command's job; return its uuid."""
    if command.GENERATED and command.GENERATED not in command.model_fields_set:
        name = command.GENERATED
        raise UsageError(
            f"nowait needs the {name}: one that is generated is only shown once all workers have confirmed it"
        )
    started = client.start_job(**command.job())
    for worker, result in sorted(started.failed.items()):
        fail(f"{worker}: {failure_reason(result)}")
    return started.uuid


def show_jobs(command: ShowJobs, client: JobsClient, *, report: Callable[[Results], dict[str, Any]], fail: Fail) -> Any:
    """Return rows of jobs, or what is known of one; `report` prints why workers failed, and returns values."""
    if command.uuid is None:
        rows = [row for row in client.list_jobs() if command.service in {None, row["service"]}]
        return rows[-command.last :]
    if command.events:
        return _events(client.fetch_events(command.uuid), report)
    fetched = client.fetch_results(command.uuid)
    if not command.result:
        return fetched.describe()
    for worker, state in sorted(fetched.states.items()):
        fail(f"{worker}: the job has no result yet ({state.lower()}): repeat this later")
    return report(fetched.results) or None


def _events(results: Results, report: Callable[[Results], dict[str, Any]]) -> list[dict[str, Any]] | None:
    rows = []
    values = report(results)
    for worker, details in values.items():
        events = details.get("job_events") if isinstance(details, dict) else None
        found = [each for each in events if isinstance(each, dict)] if isinstance(events, list) else []
        rows += [_row(worker, each) for each in found]
    return rows if values else None


def _row(worker: str, event: dict[str, Any]) -> Event:
    """Return an event as a row, its time in the order in which times sort; it is the worker's local time."""
    row = read_event({**event, "worker": worker})
    with contextlib.suppress(ValueError):  # another form: shown as it is
        time = datetime.strptime(row["timestamp"], EVENT_TIME)  # noqa: DTZ007  the worker's offset isn't known
        row["timestamp"] = time.isoformat(" ", timespec="milliseconds")
    return row
