"""What the tasks that only look take and give: status, versions, tools, and what every NorFab worker answers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from .base import Report, TaskInput

ECHO_SLEEP_MAX_SECONDS = 60


class ListTasksInput(TaskInput):
    """Arguments of `list_tasks`."""

    name: Annotated[str | None, Field(description="Name of the only task to list")] = None
    brief: Annotated[bool, Field(description="List names only")] = False


class EchoInput(TaskInput):
    """Arguments of `echo`: any, of which these two are special."""

    model_config = ConfigDict(extra="allow")

    sleep: Annotated[
        float,
        Field(ge=0, le=ECHO_SLEEP_MAX_SECONDS, description="Seconds to wait before the answer, until the worker stops"),
    ] = 0
    raise_error: Annotated[
        bool | int | str | None, Field(description="Fail, with this text where it is one, instead of answering")
    ] = None


class EchoReport(Report):
    """What `echo` heard. The fields about the job are NorFab's; a task isn't told of its job here, so they are null."""

    juuid: str | None = Field(default=None, description="UUID of the job")
    client_address: str | None = Field(default=None, description="Address of the client that sent the job")
    timeout: float | None = Field(default=None, description="Seconds the job may take")
    task: str = Field(description="Name of the task")
    args: list[Any] = Field(default_factory=list, description="Positional arguments")
    kwargs: dict[str, Any] = Field(description="Keyword arguments, without the two special ones")


class StatusReport(Report):
    """Where a worker listens and how it is."""

    name: str = Field(description="Name of the worker")
    service: str = Field(description="Service of the worker")
    status: str = Field(description="active, or stopping once the worker was asked to end")
    url: str = Field(description="Where MCP clients connect")
    endpoint: str = Field(description="Where nfcli's clients connect over ZeroMQ")
    authentication_enabled: bool = Field(description="Whether every MCP request needs a bearer token")
    tokens_count: int = Field(description="Number of stored tokens that have not expired")
    users_count: int = Field(description="Number of users that have such a token")
    tools_count: int = Field(description="Number of tools that MCP clients see")
    prompts_count: int = Field(default=0, description="Number of prompts that MCP clients see")
    version: str = Field(description="Version of nfcli")
    pid: int = Field(description="Process id of the worker")
    started: str = Field(description="When the worker started, ISO 8601 in UTC")
    uptime_seconds: float = Field(description="Seconds since then")


class TaskEntry(Report):
    """A task as `list_tasks` tells it; the keys are NFP's."""

    name: str = Field(description="Name of the task")
    description: str = Field(description="What the task does")
    inputSchema: dict[str, Any] = Field(description="JSON Schema of its keyword arguments")  # noqa: N815  NFP's name
    outputSchema: dict[str, Any] = Field(description="JSON Schema of its Result")  # noqa: N815  NFP's name
    fastapi: dict[str, Any] | bool = Field(description="How it is published over REST, false for not at all")
    mcp: dict[str, Any] | bool = Field(description="How it is published over MCP, false for not at all")
    agent: dict[str, Any] = Field(description="How agents may use it")


class WorkerDirectories(Report):
    """Where a worker keeps its files."""

    base_dir: str = Field(description="Folder of the environment")
    public_keys_dir: str = Field(description="Folder of the keys of the clients that are let in")
    private_keys_dir: str = Field(description="Folder of the worker's own keys")


class WorkerSecurity(Report):
    """How the wire to a worker is protected."""

    worker_private_key_file: str = Field(description="File of the worker's secret CURVE key")
    broker_public_key_file: str | None = Field(
        description="File of the broker's public CURVE key, or broker.shared_key, null without one"
    )
    zmq_auth: bool = Field(description="Whether the socket speaks CURVE")


class WorkerStatusReport(Report):
    """Identity, folders and keys of a worker, in NorFab's shape."""

    name: str = Field(description="Name of the worker")
    role: str = Field(default="worker", description="What the process is")
    service: str = Field(description="Service of the worker")
    status: str = Field(description="active, or stopping once the worker was asked to end")
    broker: str = Field(description="The broker's endpoint; the worker's own where it answers in a broker's stead")
    directories: WorkerDirectories = Field(description="Where the worker keeps its files")
    security: WorkerSecurity = Field(description="How the wire is protected")


class ProcessStats(Report):
    """What the worker's process uses; null where the system doesn't tell."""

    cpu_percent: float = Field(description="Processor time as percentage of the time since the start, on average")
    memory_rss_mbyte: float = Field(description="Resident memory in MiB; where only that is known, its peak")
    uptime_seconds: float = Field(description="Seconds since the worker started")
    open_file_descriptors: int | None = Field(description="Number of open file descriptors")
    tcp_sockets: int | None = Field(description="Number of the process's TCP sockets")
    threads: int = Field(description="Number of threads")


class MessagingStats(Report):
    """Messages over ZeroMQ since the start."""

    sent: int = Field(default=0, description="Messages sent")
    received: int = Field(default=0, description="Messages received")
    events_received: int = Field(default=0, description="Events received")
    send_failures: int = Field(default=0, description="Messages that could not be handed over")
    receive_failures: int = Field(default=0, description="Messages that were refused or could not be read")


class JobsStats(Report):
    """Jobs since the start."""

    total_jobs: int = Field(default=0, description="Number of jobs")
    jobs_by_status: dict[str, int] = Field(default_factory=dict, description="Number of jobs by state")


class StatsReport(Report):
    """Counters of a worker, in NorFab's shape; what has no meaning without a broker is 0."""

    schema_version: str = Field(default="1.0", description="Version of this shape")
    collected_at: str = Field(description="When this was collected, ISO 8601 in UTC")
    name: str = Field(description="Name of the worker")
    role: str = Field(default="worker", description="What the process is")
    status: str = Field(description="active, or stopping once the worker was asked to end")
    process: ProcessStats = Field(description="What the process uses")
    messaging: MessagingStats = Field(description="Messages over ZeroMQ")
    service: str = Field(description="Service of the worker")
    broker: str = Field(description="The broker's endpoint; the worker's own where it answers in a broker's stead")
    reconnects: int = Field(default=0, description="Reconnections to a broker")
    outbound_queue_depth: int = Field(default=0, description="Messages that wait to be sent")
    running_jobs: int = Field(default=0, description="Jobs that run or wait")
    jobs: JobsStats = Field(description="Jobs since the start")
    max_concurrent_jobs: int = Field(description="Jobs that may run at the same time")
    watchdog_runs: int = Field(default=0, description="Runs of NorFab's watchdog")
    keepalives_sent: int = Field(default=0, description="Keepalives sent to a broker")
    keepalives_received: int = Field(default=0, description="Keepalives received from a broker")
    sid_inventory_status: str = Field(default="completed", description="Whether the inventory is loaded")
