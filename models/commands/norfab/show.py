"""`show norfab …`: workers of every service, their jobs and logs, the broker, and this client."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from ...fields import TimeoutSeconds, quote_value, seconds_of
from ...tasks.audit import LastLines
from ...tasks.operations import LOG_LEVELS, parse_time
from ..base import (
    CommandGroup,
    JobArguments,
    ShellCommand,
    Summary,
    TargetArguments,
    branch,
    check_printable,
)

ALL_SERVICES = "all"
DEFAULT_SECONDS = 5


def _check_text(value: str) -> str:
    if value != value.strip() or not value:
        raise PydanticCustomError("text_blanks", "must be text that neither begins nor ends with a blank")
    return check_printable(value)


Name = Annotated[str, StringConstraints(max_length=256), AfterValidator(_check_text)]
"""A name as it is typed: of a service, task or client."""


def _check_moment(value: str) -> str:
    """Check a time, or how long ago it is, and return it as ISO 8601 with the local offset."""
    seconds = seconds_of(value)
    if isinstance(seconds, int):
        try:
            return (datetime.now().astimezone() - timedelta(seconds=seconds)).isoformat(timespec="seconds")
        except OverflowError:
            pass
    try:
        return parse_time(value).isoformat()
    except (ValueError, OverflowError):
        raise PydanticCustomError(
            "moment",
            "must be a time such as 2026-12-01T04:30, or how long ago: 10m, 2h, 1d; got {value}",
            {"value": quote_value(value)},
        ) from None


def _check_level(value: str) -> str:
    if value.upper() not in LOG_LEVELS:
        raise PydanticCustomError(
            "level",
            "must be one of {levels}, got {value}",
            {"levels": ", ".join(LOG_LEVELS), "value": quote_value(value)},
        )
    return value.upper()


_Moment = Annotated[str, AfterValidator(_check_moment)]
_Level = Annotated[str, AfterValidator(_check_level)]


class ShowWorkers(ShellCommand):
    """Show the known workers, whether they run, and what they use; `| json` adds the endpoints of direct mode."""

    HANDLER: ClassVar[str] = "show_workers"
    USAGE: ClassVar[tuple[str, ...]] = ("uptime", "memory (MB)", "cpu (%)", "jobs")
    COLUMNS: ClassVar[tuple[str, ...]] = ("name", "service", "status", *USAGE, "note")
    FABRIC_COLUMNS: ClassVar[tuple[str, ...]] = ("name", "service", "status", *USAGE, "holdtime", "note")

    service: Annotated[Name | None, Field(description="Service whose workers to show")] = None
    status: Annotated[
        Literal["alive", "dead", "missing"] | None, Field(description="Status of the workers to show")
    ] = None
    timeout: Annotated[TimeoutSeconds, Field(description="Seconds to wait for the statistics of workers")] = (
        DEFAULT_SECONDS
    )

    def columns(self, data: Any = None) -> tuple[str, ...]:
        """Return the table's columns: with a broker a worker has a hold time; notes only if there are any."""
        rows = data or ()
        columns = self.FABRIC_COLUMNS if any("holdtime" in row for row in rows) else self.COLUMNS
        return columns if any(row.get("note") for row in rows) else columns[:-1]

    def seconds(self) -> float:
        """Return how long to wait for statistics."""
        return float(self.timeout)


class ShowStatistics(JobArguments):
    """Show resources and counts of the workers of all services; `| json` shows all that they count."""

    SERVICE: ClassVar[str] = ALL_SERVICES
    TASK: ClassVar[str] = "get_stats"
    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("worker", "service", "status", "memory (MB)", "cpu (%)", "threads", "files", "sockets"),
        *("jobs", "running", "received", "sent"),
    )

    def check_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return one worker's result, failed where it holds no mapping."""
        if result.get("failed") or isinstance(result.get("result"), dict):
            return result
        return {**result, "failed": True, "errors": [f"the result of {self.TASK} is not a mapping"]}

    def merge(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a row for each worker: its statistics, and what of them the table shows."""
        return [{**stats, "worker": worker, **_counts(stats)} for worker, stats in values.items()]


def _counts(stats: dict[str, Any]) -> dict[str, Any]:
    process, messaging, jobs = (mapping(stats.get(key)) for key in ("process", "messaging", "jobs"))
    memory = process.get("memory_rss_mbyte")
    return {
        "memory (MB)": round(memory) if isinstance(memory, int | float) else None,
        "cpu (%)": process.get("cpu_percent"),
        "threads": process.get("threads"),
        "files": process.get("open_file_descriptors"),
        "sockets": process.get("tcp_sockets"),
        # `jobs` is the worker's own mapping in JSON.
        "running": stats.get("running_jobs"),
        "received": messaging.get("received"),
        "sent": messaging.get("sent"),
        "jobs": jobs.get("total_jobs"),
        "jobs_by_status": mapping(jobs.get("jobs_by_status")),
    }


def mapping(value: object) -> dict[str, Any]:
    """Return a value that is a mapping, else an empty one: it comes from another program."""
    return value if isinstance(value, dict) else {}


class ShowVersions(JobArguments):
    """Show versions of the workers of all services and of their libraries."""

    SERVICE: ClassVar[str] = ALL_SERVICES
    TASK: ClassVar[str] = "get_version"


class ShowNorfabJobs(TargetArguments):
    """Show the newest jobs of the workers by time, or one of them in full; secrets are not shown."""

    HANDLER: ClassVar[str] = "show_norfab_jobs"
    COLUMNS: ClassVar[tuple[str, ...]] = ("received", "worker", "task", "status", "uuid", "client_address")

    last: Annotated[LastLines, Field(description="Number of jobs to show")] = 20
    uuid: Annotated[Name | None, Field(description="UUID of a job to show in full")] = None
    service: Annotated[Name, Field(description="Service whose workers' jobs to show")] = ALL_SERVICES
    task: Annotated[Name | None, Field(description="Task whose jobs to show")] = None
    client: Annotated[Name | None, Field(description="Client whose jobs to show")] = None

    def columns(self, data: Any = None) -> tuple[str, ...]:  # noqa: ARG002  as in ShellCommand
        """Return the table's columns, none for one job in full."""
        return () if self.uuid else self.COLUMNS

    def job(self) -> dict[str, Any]:
        """Return the arguments of the client's `run_job`."""
        if self.uuid:
            return {"service": self.service, "task": "job_details", "kwargs": {"uuid": self.uuid}, **self.targets()}
        kwargs = self.model_dump(include={"last", "task", "client"}, exclude_none=True)
        return {"service": self.service, "task": "job_list", "kwargs": kwargs, **self.targets()}


class ShowLogging(TargetArguments):
    """Show the newest records of the logs of workers and broker, merged by time; `| json` shows them in full."""

    HANDLER: ClassVar[str] = "show_logging"
    COLUMNS: ClassVar[tuple[str, ...]] = ("time", "level", "worker", Summary("message"))

    last: Annotated[LastLines, Field(description="Number of records to show")] = 100
    level: Annotated[_Level | None, Field(description="Level of the records to show, such as WARNING")] = None
    logger: Annotated[Name | None, Field(description="Name of a logger")] = None
    since: Annotated[_Moment | None, Field(description="Oldest record: a time, or how long ago, such as 10m")] = None
    until: Annotated[_Moment | None, Field(description="Newest record: a time, or how long ago")] = None
    service: Annotated[Name, Field(description="Service whose workers' logs to show")] = ALL_SERVICES

    @property
    def includes_broker(self) -> bool:
        """Whether the broker's log is wanted too: not where workers or a service are named."""
        return self.workers == "all" and self.service == ALL_SERVICES

    def filters(self) -> dict[str, Any]:
        """Return the arguments of the task `get_logs`."""
        return self.model_dump(include={"last", "level", "logger", "since", "until"}, exclude_none=True)

    def job(self) -> dict[str, Any]:
        """Return the arguments of the client's `run_job`."""
        return {"service": self.service, "task": "get_logs", "kwargs": self.filters(), **self.targets()}


class ShowBroker(ShellCommand):
    """Show state, versions and number of workers of this environment's NorFab broker."""

    HANDLER: ClassVar[str] = "show_broker"


class ShowClient(ShellCommand):
    """Show this client's environment, public key, and connection mode."""

    HANDLER: ClassVar[str] = "show_client"


class ShowLocalInventory(ShellCommand):
    """Show the inventory as this client loaded it, secrets masked."""

    HANDLER: ClassVar[str] = "show_inventory"


class ShowNorfabCommands(CommandGroup, prompt="nf[show-norfab]#"):
    """Commands that show workers of all services, broker and client."""

    workers: ShowWorkers = branch("Show known workers, whether they run, and what they use")
    broker: ShowBroker = branch("Show state, versions and size of the NorFab broker")
    statistics: ShowStatistics = branch("Show resources and counts of the workers")
    version: ShowVersions = branch("Show versions of the workers and their libraries")
    jobs: ShowNorfabJobs = branch("Show jobs of the workers")
    logging: ShowLogging = branch("Show logs of workers and broker, merged by time")
    client: ShowClient = branch("Show environment and public key of this client")
    inventory: ShowLocalInventory = branch("Show the loaded inventory, secrets masked")
