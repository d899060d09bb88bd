"""What a worker counts and measures while it serves metrics; no label has a user's name, a token or an address.

Importing this module takes 0.2 s: a worker that serves no metrics does without it.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

MAX_NAMES = 500
"""Tools, and tasks, that have time series of their own; services that come and go may bring any number of names."""
OTHER = "(other)"
UNKNOWN = "(unknown)"

# Seconds. A call may be answered from memory, or wait for a job of minutes; a write waits for the disk.
_CALL_BUCKETS = (0.005, 0.025, 0.1, 0.25, 1, 2.5, 10, 30, 60, 120, 300, 600)
_DISK_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "DELETE"})

_MeterT = TypeVar("_MeterT", Counter, Histogram)


class Meters:
    """The counters and histograms of one worker, in `registry`. Any thread may call any method.

    The name of a tool or task is empty for one that doesn't exist: clients must not be able to add time series.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = _Series(
            Counter("nfcli_http_requests", "HTTP requests answered", ("method", "status"), registry=registry)
        )
        self._refusals = _Series(
            Counter("nfcli_http_refusals", "HTTP requests refused before MCP", ("reason",), registry=registry)
        )
        self._calls = _Series(
            Counter("nfcli_tool_calls", "Tool calls of MCP clients", ("tool", "outcome"), registry=registry)
        )
        self._call_seconds = _Series(
            Histogram(
                "nfcli_tool_call_duration_seconds",
                "Duration of tool calls",
                ("tool",),
                buckets=_CALL_BUCKETS,
                registry=registry,
            )
        )
        self._jobs = _Series(Counter("nfcli_jobs", "Jobs over ZeroMQ", ("task", "outcome"), registry=registry))
        self._job_seconds = _Series(
            Histogram(
                "nfcli_job_duration_seconds",
                "Duration of jobs over ZeroMQ, from their start",
                ("task",),
                buckets=_CALL_BUCKETS,
                registry=registry,
            )
        )
        self._store = Histogram(
            "nfcli_token_store_operation_seconds",
            "Duration of reads and changes of the token database on disk, waiting included",
            buckets=_DISK_BUCKETS,
            registry=registry,
        )
        self._audit = Histogram(
            "nfcli_audit_write_seconds",
            "Duration of writes to the audit trail, waiting included",
            buckets=_DISK_BUCKETS,
            registry=registry,
        )
        self.store_operation = self._store.observe
        self.audit_write = self._audit.observe
        self._tools, self._tasks = _Names(), _Names()

    def response(self, method: str, status: int, refusal: str) -> None:
        """Count the response to a request; `refusal` is the reason of one that was refused, else empty."""
        self._requests.of(method if method in _METHODS else OTHER, str(status)).inc()
        if refusal:
            self._refusals.of(refusal).inc()

    def tool_call(self, tool: str, outcome: str, seconds: float) -> None:
        """Count a tool call: `ok`, `failed`, `refused`, `cancelled` or `unknown`."""
        name = self._tools.bounded(tool)
        self._calls.of(name, outcome).inc()
        self._call_seconds.of(name).observe(seconds)

    def job(self, task: str, outcome: str, seconds: float) -> None:
        """Count a job: `ok`, `failed`, `refused` or `late`."""
        name = self._tasks.bounded(task)
        self._jobs.of(name, outcome).inc()
        self._job_seconds.of(name).observe(seconds)


class _Series(Generic[_MeterT]):
    """The time series of one metric by their labels; finds one in a fraction of the time that `labels` takes."""

    def __init__(self, metric: _MeterT) -> None:
        self._metric: _MeterT = metric
        self._found: dict[tuple[str, ...], _MeterT] = {}

    def of(self, *labels: str) -> _MeterT:
        found = self._found.get(labels)
        if found is None:
            found = self._found[labels] = self._metric.labels(*labels)
        return found


class _Names:
    """The values of a label, `MAX_NAMES` at most."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def bounded(self, name: str) -> str:
        """Return the value for a name."""
        if name in self._known:
            return name
        if not name:
            return UNKNOWN
        with self._lock:
            if len(self._known) >= MAX_NAMES:
                return OTHER
            self._known.add(name)
        return name
