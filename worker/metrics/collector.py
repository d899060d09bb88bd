"""What is read when metrics are: the state of a worker's parts, and the counts that they keep anyway."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from ..jobs.task_context import TaskContext

# By part and count of `TaskContext.counters`: the metric, and what it says.
_GAUGES = {
    ("http", "connections"): ("nfcli_http_connections", "Open HTTP connections"),
    ("messaging", "connections"): ("nfcli_zmq_connections", "Open ZeroMQ connections"),
    ("mcp", "result_bytes"): ("nfcli_mcp_result_bytes", "Bytes of results that MCP clients haven't read yet"),
    ("jobs", "running_jobs"): ("nfcli_jobs_in_flight", "Jobs over ZeroMQ that are queued or running"),
}
_COUNTERS = {
    ("http", "connections_closed"): (
        "nfcli_http_connections_closed",
        "HTTP connections closed or refused because there were too many",
    ),
    ("http", "requests_invalid"): ("nfcli_http_requests_invalid", "HTTP requests answered with 400: not HTTP"),
    ("http", "requests_too_long"): ("nfcli_http_requests_too_long", "HTTP connections closed because of long heads"),
    ("http", "clients_too_slow"): ("nfcli_http_clients_too_slow", "HTTP connections closed because of slow clients"),
    ("http", "handshakes_failed"): ("nfcli_http_handshakes_failed", "HTTP connections whose TLS handshake failed"),
    ("http", "waits_for_descriptors"): (
        "nfcli_http_waits_for_descriptors",
        "Waits before a connection was accepted, because the process had no file descriptor left",
    ),
    ("messaging", "connections_closed"): (
        "nfcli_zmq_connections_closed",
        "ZeroMQ connections closed or refused because there were too many",
    ),
    ("messaging", "messages_too_long"): ("nfcli_zmq_messages_too_long", "ZeroMQ messages refused for their length"),
    ("messaging", "sent"): ("nfcli_zmq_messages_sent", "ZeroMQ messages sent"),
    ("messaging", "received"): ("nfcli_zmq_messages_received", "ZeroMQ messages received"),
    ("messaging", "invalid"): ("nfcli_zmq_messages_invalid", "ZeroMQ messages that are not valid"),
    ("messaging", "denied"): ("nfcli_zmq_messages_denied", "ZeroMQ messages of clients that are not authorized"),
    ("messaging", "reconnects"): ("nfcli_broker_reconnects", "Reconnects to the broker"),
    ("mcp", "results_dropped"): ("nfcli_mcp_results_dropped", "Results dropped: those in memory were too large"),
    ("jobs", "refused_jobs"): ("nfcli_jobs_over_limits", "Jobs refused by limits on jobs in flight"),
}


class WorkerCollector(Collector):
    """The state of a worker, read without waiting for its parts."""

    def __init__(self, worker: TaskContext) -> None:
        self._worker = worker

    def describe(self) -> list[Metric]:
        """Return nothing: the names are fixed, so that registering reads no state."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        worker, store, catalogue = self._worker, self._worker.store, self._worker.catalogue
        build = InfoMetricFamily("nfcli_build", "Versions of nfcli and of what it is built on")
        versions = {package: version(package) for package in ("mcp", "uvicorn", "pyzmq")}
        build.add_metric((), {"version": version("nfcli"), "python": platform.python_version(), **versions})
        yield build
        identity = InfoMetricFamily("nfcli_worker", "The worker, and whether MCP requests need a token")
        authentication = "on" if worker.inventory.authentication_enabled else "off"
        identity.add_metric((), {"name": worker.name, "service": worker.service, "authentication": authentication})
        yield identity
        yield GaugeMetricFamily(
            "nfcli_start_time_seconds", "Start of the worker, in seconds since 1970", worker.started
        )
        yield GaugeMetricFamily("nfcli_stopping", "Whether the worker is stopping", float(worker.stopping.is_set()))
        yield GaugeMetricFamily("nfcli_tokens", "Unexpired tokens", len(store))
        yield GaugeMetricFamily("nfcli_users", "Users with unexpired tokens", len(store.usernames()))
        is_written = store.revocations.problem() is None
        yield GaugeMetricFamily("nfcli_token_store_writable", "Whether tokens can be written", float(is_written))
        yield GaugeMetricFamily("nfcli_tools", "Published MCP tools", len(catalogue.tools))
        yield GaugeMetricFamily("nfcli_prompts", "Published MCP prompts", len(catalogue.prompts))
        certificate = worker.certificate()
        if certificate is not None:
            text = "End of the TLS certificate, in seconds since 1970"
            yield GaugeMetricFamily("nfcli_certificate_end_seconds", text, certificate.ends.timestamp())
        yield from self._counts()

    def _counts(self) -> Iterator[Metric]:
        parts: Mapping[str, Mapping[str, int]] = {name: read() for name, read in self._worker.counters.items()}
        for (part, key), (name, description) in _GAUGES.items():
            if key in parts.get(part, ()):
                yield GaugeMetricFamily(name, description, parts[part][key])
        for (part, key), (name, description) in _COUNTERS.items():
            if key in parts.get(part, ()):
                yield CounterMetricFamily(name, description, parts[part][key])
