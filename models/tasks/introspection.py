"""Inputs and results of the introspection tasks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from .base import Report, TaskInput

MAX_ECHO_SLEEP_SECONDS = 60


class ListTasksInput(TaskInput):
    """Arguments of `list_tasks`."""

    name: Annotated[str | None, Field(description="Name of the only task to list")] = None
    brief: Annotated[bool, Field(description="List names only")] = False


class EchoInput(TaskInput):
    """Arguments of `echo`: these two, and any others."""

    model_config = ConfigDict(extra="allow")

    sleep: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_ECHO_SLEEP_SECONDS,
            description="Seconds to wait before answering; the wait ends when the worker stops",
        ),
    ] = 0
    raise_error: Annotated[
        bool | int | str | None, Field(description="Fail instead of answering; a text becomes the error message")
    ] = None


class EchoReport(Report):
    """Arguments that `echo` received, and the job that they came with."""

    juuid: str | None = Field(default=None, description="UUID of the job")
    client_address: str | None = Field(default=None, description="Name of the client that sent the job")
    timeout: float | None = Field(default=None, description="Time limit of the job in seconds")
    task: str = Field(description="Name of the task")
    args: list[Any] = Field(default_factory=list, description="Positional arguments")
    kwargs: dict[str, Any] = Field(description="Keyword arguments, without sleep and raise_error")


class StatusReport(Report):
    """Addresses and state of a worker."""

    name: str = Field(description="Name of the worker")
    service: str = Field(description="Service of the worker")
    status: str = Field(description="active, or stopping during shutdown")
    url: str = Field(description="URL for MCP clients")
    endpoint: str = Field(description="ZeroMQ endpoint for nfcli clients")
    metrics_url: str | None = Field(default=None, description="URL of the metrics for Prometheus, null without them")
    authentication_enabled: bool = Field(description="Whether MCP requests require a bearer token")
    tokens_count: int = Field(description="Number of unexpired tokens")
    tokens_digest: str | None = Field(
        default=None,
        description="Digest of the unexpired tokens, keyed with the fleet key; the same set has the same one",
    )
    fleet_key: str | None = Field(
        default=None, description="Id of the fleet key; digests made with different keys can't be compared"
    )
    users_count: int = Field(description="Number of users with unexpired tokens")
    tools_count: int = Field(description="Number of published tools")
    prompts_count: int = Field(default=0, description="Number of published prompts")
    relays: list[str] = Field(
        default_factory=list, description="Published tools that run tasks of other services for their callers"
    )
    version: str = Field(description="Version of nfcli")
    pid: int = Field(description="Process id of the worker")
    started: str = Field(description="Start of the worker, ISO 8601 in UTC")
    uptime_seconds: float = Field(description="Seconds since the start")
    disk: str = Field(default="ok", description="What keeps the token database from being written, or ok")
    certificate_expires: str | None = Field(
        default=None, description="End of the TLS certificate, ISO 8601 in UTC; null without TLS"
    )
    http_connections: int = Field(default=0, description="Number of open HTTP connections")
    http_connections_closed: int = Field(
        default=0, description="HTTP connections closed or refused since the start because there were too many"
    )


class TaskEntry(Report):
    """Entry of `list_tasks`; the keys are NFP's."""

    name: str = Field(description="Name of the task")
    description: str = Field(description="What the task does")
    inputSchema: dict[str, Any] = Field(description="JSON Schema of its keyword arguments")  # noqa: N815  NFP's name
    outputSchema: dict[str, Any] = Field(description="JSON Schema of its Result")  # noqa: N815  NFP's name
    fastapi: dict[str, Any] | bool = Field(description="Metadata for REST, or false if not published")
    mcp: dict[str, Any] | bool = Field(description="Metadata for MCP, or false if not published")
    agent: dict[str, Any] = Field(description="Metadata for agents")


class WorkerDirectories(Report):
    """Folders of a worker."""

    base_dir: str = Field(description="Folder of the environment")
    public_keys_dir: str = Field(description="Folder of the authorized clients' public keys")
    private_keys_dir: str = Field(description="Folder of the worker's keys")


class WorkerSecurity(Report):
    """Encryption of the worker's ZeroMQ socket."""

    worker_private_key_file: str = Field(description="File of the worker's secret CURVE key")
    broker_public_key_file: str | None = Field(
        description="File of the broker's public CURVE key, or broker.shared_key, null without one"
    )
    zmq_auth: bool = Field(description="Whether the socket uses CURVE")


class WorkerStatusReport(Report):
    """Identity, folders and keys of a worker, in NorFab's format."""

    name: str = Field(description="Name of the worker")
    role: str = Field(default="worker", description="Role of the process")
    service: str = Field(description="Service of the worker")
    status: str = Field(description="active, or stopping during shutdown")
    broker: str = Field(description="Endpoint of the broker; in direct mode the worker's own")
    directories: WorkerDirectories = Field(description="Folders of the worker")
    security: WorkerSecurity = Field(description="Encryption of the socket")


class ProcessStats(Report):
    """Resource usage of the worker's process; null where the system doesn't provide it."""

    cpu_percent: float = Field(description="Average CPU usage since the start in percent")
    memory_rss_mbyte: float = Field(description="Resident memory in MiB, or its peak if only that is known")
    uptime_seconds: int = Field(description="Seconds since the worker started")
    open_file_descriptors: int | None = Field(description="Number of open file descriptors")
    tcp_sockets: int | None = Field(description="Number of the process's TCP sockets")
    threads: int = Field(description="Number of threads")


class MessagingStats(Report):
    """ZeroMQ messages since the start."""

    sent: int = Field(default=0, description="Messages sent")
    received: int = Field(default=0, description="Messages received")
    events_received: int = Field(default=0, description="Events received")
    send_failures: int = Field(default=0, description="Messages that could not be sent")
    receive_failures: int = Field(default=0, description="Messages that were refused or malformed")


class JobsStats(Report):
    """Jobs since the start."""

    total_jobs: int = Field(default=0, description="Number of jobs")
    jobs_by_status: dict[str, int] = Field(default_factory=dict, description="Number of jobs by status")


class LimitsStats(Report):
    """Open connections, and how often a limit on clients was applied since the start."""

    http_connections: int = Field(default=0, description="Open HTTP connections")
    http_connections_closed: int = Field(default=0, description="Closed or refused because there were too many")
    http_requests_too_long: int = Field(
        default=0, description="Closed because of a request head, or of requests ahead of their turn"
    )
    http_clients_too_slow: int = Field(
        default=0, description="Closed because a request head or an unread response took too long"
    )
    http_waits_for_descriptors: int = Field(
        default=0, description="How often new connections had to wait for a free file descriptor"
    )
    http_handshakes_failed: int = Field(default=0, description="Closed because the TLS handshake failed")
    zmq_connections: int = Field(default=0, description="Open ZeroMQ connections of direct clients")
    zmq_connections_closed: int = Field(default=0, description="Closed because there were too many")
    zmq_messages_too_long: int = Field(default=0, description="Closed because of a message beyond the limits")
    mcp_result_bytes: int = Field(default=0, description="Bytes of results that MCP clients haven't read yet")
    mcp_results_dropped: int = Field(default=0, description="Results dropped because those in memory were too large")
    jobs_refused: int = Field(default=0, description="Jobs refused because too many were in flight")
    jobs_late: int = Field(default=0, description="Jobs that could have begun after their deadline only")


class StatsReport(Report):
    """Counters of a worker, in NorFab's format; those that only concern a broker are 0 without one."""

    schema_version: str = Field(default="1.0", description="Version of this format")
    collected_at: str = Field(description="Time of collection, ISO 8601 in UTC")
    name: str = Field(description="Name of the worker")
    role: str = Field(default="worker", description="Role of the process")
    status: str = Field(description="active, or stopping during shutdown")
    process: ProcessStats = Field(description="Resource usage of the process")
    messaging: MessagingStats = Field(description="ZeroMQ messages")
    service: str = Field(description="Service of the worker")
    broker: str = Field(description="Endpoint of the broker; in direct mode the worker's own")
    reconnects: int = Field(default=0, description="Reconnections to a broker")
    outbound_queue_depth: int = Field(default=0, description="Messages waiting to be sent")
    running_jobs: int = Field(default=0, description="Jobs running or waiting")
    jobs: JobsStats = Field(description="Jobs since the start")
    max_concurrent_jobs: int = Field(description="Maximum number of concurrent jobs")
    watchdog_runs: int = Field(default=0, description="How often the memory was compared with its threshold")
    keepalives_sent: int = Field(default=0, description="Keepalives sent to a broker")
    keepalives_received: int = Field(default=0, description="Keepalives received from a broker")
    limits: LimitsStats = Field(default_factory=LimitsStats, description="Limits on clients and how often they applied")
    sid_inventory_status: str = Field(default="completed", description="Whether the inventory is loaded")
