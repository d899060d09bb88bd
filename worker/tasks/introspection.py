"""Read-only introspection tasks, and the harmless ones that every NorFab worker has."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ...models.errors import TaskError
from ...models.tasks.base import TaskInput
from ...models.tasks.introspection import (
    EchoInput,
    EchoReport,
    JobsStats,
    LimitsStats,
    ListTasksInput,
    MessagingStats,
    StatsReport,
    StatusReport,
    TaskEntry,
    WorkerDirectories,
    WorkerSecurity,
    WorkerStatusReport,
)
from ..jobs.lane_threads import THREADS
from ..jobs.task import read_only_hints, task
from ..jobs.task_context import TaskContext
from .process_stats import process_stats

PACKAGES = ("nfcli", "mcp", "uvicorn", "starlette", "pydantic", "pyzmq", "diskcache")


@task(result=StatusReport, mcp=read_only_hints("Get Status"), is_read=True)
def get_status(worker: TaskContext, _arguments: TaskInput) -> dict[str, Any]:
    """Return the worker's addresses and uptime, whether it requires bearer tokens, and numbers of tokens and tools."""
    http = _counters(worker, "http")
    certificate = worker.certificate()
    return StatusReport(
        name=worker.name,
        service=worker.service,
        status=_state(worker),
        url=worker.url,
        endpoint=worker.endpoint,
        metrics_url=worker.metrics_url,
        authentication_enabled=worker.inventory.authentication_enabled,
        tokens_count=len(worker.store),
        tokens_digest=f"{worker.store.digest():064x}",
        fleet_key=worker.store.hasher.key_id,
        users_count=len(worker.store.usernames()),
        tools_count=len(worker.catalogue.tools),
        prompts_count=len(worker.catalogue.prompts),
        relays=worker.catalogue.relays(),
        version=version("nfcli"),
        pid=os.getpid(),
        started=_utc_text(worker.started),
        uptime_seconds=_uptime_seconds(worker),
        disk=worker.store.revocations.problem() or "ok",
        certificate_expires=None if certificate is None else certificate.ends.isoformat(),
        http_connections=http.get("connections", 0),
        http_connections_closed=http.get("connections_closed", 0),
    ).model_dump()


@task(result=dict[str, str], mcp=read_only_hints("Get Version"), is_read=True)
def get_version(_worker: TaskContext, _arguments: TaskInput) -> dict[str, str]:
    """Return the versions of nfcli, its main libraries and Python, and the platform."""
    versions = {package: _version(package) for package in PACKAGES}
    return {**versions, "python": platform.python_version(), "platform": sys.platform}


@task(result=dict[str, Any], mcp=read_only_hints("Get Inventory"), is_read=True)
def get_inventory(worker: TaskContext, _arguments: TaskInput) -> dict[str, Any]:
    """Return the worker's configuration, secrets as `***`; MCP clients and other workers get no rules, no free text."""
    return worker.inventory.redacted(for_tools=worker.is_relayed)


@task(result=list[str], mcp=False, restricted=True, is_read=True)
def token_users(worker: TaskContext, _arguments: TaskInput) -> list[str]:
    """List the names of users who have a live token, for completion at the prompt; shows no token."""
    return worker.store.usernames()


@task(arguments=ListTasksInput, result=list[TaskEntry] | list[str], mcp=False, is_read=True)
def list_tasks(worker: TaskContext, arguments: ListTasksInput) -> list[dict[str, Any]] | list[str]:
    """List the worker's tasks, or the one of that name, with descriptions and JSON Schemas, or names only."""
    specs = list(worker.registry) if arguments.name is None else [worker.registry.get(arguments.name)]
    return [spec.name for spec in specs] if arguments.brief else [spec.entry() for spec in specs]


@task(arguments=EchoInput, result=EchoReport, mcp=False)
def echo(worker: TaskContext, arguments: EchoInput) -> dict[str, Any]:
    """Return the arguments, after `sleep` seconds if given, or fail if `raise_error` is given."""
    if arguments.sleep:
        worker.stopping.wait(arguments.sleep)
    if arguments.raise_error:
        is_text = isinstance(arguments.raise_error, str)
        raise TaskError(arguments.raise_error if is_text else f"echo was asked to fail: {arguments.raise_error}")
    return EchoReport(
        juuid=worker.uuid or None,
        client_address=None if worker.jobs is None else worker.jobs.client_name(worker.client_key),
        timeout=worker.timeout,
        task="echo",
        kwargs=arguments.model_extra or {},
    ).model_dump()


@task(result=WorkerStatusReport, mcp=False, is_read=True)
def get_worker_status(worker: TaskContext, _arguments: TaskInput) -> dict[str, Any]:
    """Return the worker's identity, folders and key files."""
    environment, broker = worker.environment, worker.broker
    key = None if broker is None else broker.key
    return WorkerStatusReport(
        name=worker.name,
        service=worker.service,
        status=_state(worker),
        broker=worker.endpoint,
        directories=WorkerDirectories(
            base_dir=str(environment.folder),
            public_keys_dir=str(environment.clients_folder),
            private_keys_dir=str(environment.keys_folder),
        ),
        security=WorkerSecurity(
            worker_private_key_file=str(environment.keys_folder / f"{worker.name}.key_secret"),
            broker_public_key_file=None if key is None else key.source,
            zmq_auth=broker is None or key is not None,
        ),
    ).model_dump()


@task(result=StatsReport, mcp=False, is_read=True)
def get_stats(worker: TaskContext, _arguments: TaskInput) -> dict[str, Any]:
    """Return the process's resource usage and the numbers of messages and jobs."""
    messages, jobs = _counters(worker, "messaging"), _counters(worker, "jobs")
    running, total = jobs.get("running_jobs", 0), jobs.get("total_jobs", 0)
    return StatsReport(
        collected_at=_utc_text(worker.clock()),
        name=worker.name,
        status=_state(worker),
        process=process_stats(_uptime_seconds(worker)),
        messaging=MessagingStats(
            sent=messages.get("sent", 0),
            received=messages.get("received", 0),
            send_failures=messages.get("dropped", 0),
            receive_failures=messages.get("invalid", 0) + messages.get("denied", 0),
        ),
        service=worker.service,
        broker=worker.endpoint,
        reconnects=messages.get("reconnects", 0),
        keepalives_sent=messages.get("keepalives_sent", 0),
        keepalives_received=messages.get("keepalives_received", 0),
        running_jobs=running,
        jobs=JobsStats(total_jobs=total, jobs_by_status={"PENDING": running, "COMPLETED": total - running}),
        max_concurrent_jobs=THREADS,
        watchdog_runs=0 if worker.watchdog is None else worker.watchdog.runs,
        limits=_limits(worker),
    ).model_dump()


def _state(worker: TaskContext) -> str:
    return "stopping" if worker.stopping.is_set() else "active"


def _limits(worker: TaskContext) -> LimitsStats:
    http, mcp, messages, jobs = (_counters(worker, part) for part in ("http", "mcp", "messaging", "jobs"))
    return LimitsStats(
        http_connections=http.get("connections", 0),
        http_connections_closed=http.get("connections_closed", 0),
        http_requests_too_long=http.get("requests_too_long", 0),
        http_clients_too_slow=http.get("clients_too_slow", 0),
        http_handshakes_failed=http.get("handshakes_failed", 0),
        http_waits_for_descriptors=http.get("waits_for_descriptors", 0),
        zmq_connections=messages.get("connections", 0),
        zmq_connections_closed=messages.get("connections_closed", 0),
        zmq_messages_too_long=messages.get("messages_too_long", 0),
        mcp_result_bytes=mcp.get("result_bytes", 0),
        mcp_results_dropped=mcp.get("results_dropped", 0),
        jobs_refused=jobs.get("refused_jobs", 0),
        jobs_late=jobs.get("late_jobs", 0),
    )


def _counters(worker: TaskContext, part: str) -> dict[str, int]:
    read = worker.counters.get(part)
    return {} if read is None else read()


def _uptime_seconds(worker: TaskContext) -> float:
    return round(max(0.0, worker.clock() - worker.started), 3)


def _utc_text(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
