"""A worker serves what it counts and measures to Prometheus, and nothing about users, tokens and addresses."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from nfcli.models.errors import WorkerStartError
from nfcli.models.protocol.jobs import JobRequest
from nfcli.worker.metrics.meters import MAX_NAMES, OTHER, UNKNOWN, Meters
from support.mcp.certificates import make_certificates
from support.mcp.measured_worker import MeasuredWorker, measured_worker
from support.mcp.served_worker import TOKEN
from support.tokens.token_store import store_token

WAIT_SECONDS = 10.0
GET_VERSION = "service_fastmcp__task_get_version"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredWorker]:
    """A worker with two tokens of one user, whose metrics a name may be used for."""
    folder = tmp_path_factory.mktemp("metrics")
    with measured_worker(folder, allowed_hosts=["mcp.example.com"]) as worker:
        store_token(worker.worker.context.store, "zoe", TOKEN, None)
        store_token(worker.worker.context.store, "zoe", "second-token", None)
        yield worker


def grown(measured: MeasuredWorker, before: dict[tuple[str, ...], float], *names: str) -> dict[tuple[str, ...], float]:
    """Return by how much the time series of these names have grown."""
    now = measured.samples()
    return {
        key: value - before.get(key, 0) for key, value in now.items() if key[0] in names and value != before.get(key, 0)
    }


def test_requests_are_counted_by_status_and_refusals_by_reason(measured: MeasuredWorker) -> None:
    """Whatever the method: a client can't add time series of its own."""
    before = measured.samples()
    assert measured.post()[0] == 200
    assert measured.post(token="wrong")[0] == 401
    assert measured.post(token=None)[0] == 401
    assert measured.post(headers=(("host", "evil.example"),))[0] == 421
    assert measured.post(headers=(("origin", "http://evil.example"),))[0] == 403
    assert measured.get("/health")[0] == 200
    assert measured.get("/nothing", method="PROPFIND")[0] == 404
    assert measured.send(b"BREW / HTTP/1.1\r\n\r\n")[0] == 400
    assert grown(
        measured, before, "nfcli_http_requests_total", "nfcli_http_refusals_total", "nfcli_http_requests_invalid_total"
    ) == {
        ("nfcli_http_requests_total", "POST", "200"): 1,
        ("nfcli_http_requests_total", "POST", "401"): 2,
        ("nfcli_http_requests_total", "POST", "421"): 1,
        ("nfcli_http_requests_total", "POST", "403"): 1,
        ("nfcli_http_requests_total", "GET", "200"): 1,
        ("nfcli_http_requests_total", OTHER, "404"): 1,
        ("nfcli_http_refusals_total", "invalid_token"): 1,
        ("nfcli_http_refusals_total", "no_token"): 1,
        ("nfcli_http_refusals_total", "host"): 1,
        ("nfcli_http_refusals_total", "origin"): 1,
        ("nfcli_http_refusals_total", "path"): 1,
        ("nfcli_http_requests_invalid_total",): 1,
    }


def test_tool_calls_are_counted_by_tool_and_outcome_and_measured(measured: MeasuredWorker) -> None:
    """The name of a tool that doesn't exist is no label."""
    before = measured.samples()
    for name in (GET_VERSION, GET_VERSION, "no_such_tool_1", "no_such_tool_2"):
        measured.post("tools/call", {"name": name, "arguments": {}})
    measured.post("tools/call", {"name": GET_VERSION, "arguments": {"unknown": 1}})
    assert grown(measured, before, "nfcli_tool_calls_total", "nfcli_tool_call_duration_seconds_count") == {
        ("nfcli_tool_calls_total", "ok", GET_VERSION): 2,
        ("nfcli_tool_calls_total", "failed", GET_VERSION): 1,
        ("nfcli_tool_calls_total", "unknown", UNKNOWN): 2,
        ("nfcli_tool_call_duration_seconds_count", GET_VERSION): 3,
        ("nfcli_tool_call_duration_seconds_count", UNKNOWN): 2,
    }


def test_jobs_are_counted_by_task_and_outcome_and_measured(measured: MeasuredWorker) -> None:
    """The name of a task that doesn't exist is no label either."""
    before = measured.samples()
    requests: list[dict[str, Any]] = [
        {"task": "echo"},
        {"task": "echo", "kwargs": {"raise_error": "no"}},
        {"task": "no_such_task"},
        {"task": "echo", "deadline": 1.0, "timeout": 1.0},
    ]
    for number, request in enumerate(requests):
        results: SimpleQueue[bytes] = SimpleQueue()
        measured.worker.executor.submit("client", f"job-{number}", JobRequest(**request), results.put)
        results.get(timeout=WAIT_SECONDS)
    assert grown(measured, before, "nfcli_jobs_total", "nfcli_job_duration_seconds_count") == {
        ("nfcli_jobs_total", "ok", "echo"): 1,
        ("nfcli_jobs_total", "failed", "echo"): 1,
        ("nfcli_jobs_total", "late", "echo"): 1,
        ("nfcli_jobs_total", "failed", UNKNOWN): 1,
        ("nfcli_job_duration_seconds_count", "echo"): 3,
        ("nfcli_job_duration_seconds_count", UNKNOWN): 1,
    }


def test_the_state_of_the_worker_and_its_disk_are_measured(measured: MeasuredWorker) -> None:
    """Tokens, users, connections, versions, and how long the database and the audit trail take."""
    samples = measured.samples()
    assert samples["nfcli_tokens",] == 2
    assert samples["nfcli_users",] == 1
    assert samples["nfcli_stopping",] == 0
    assert samples["nfcli_token_store_writable",] == 1
    assert samples["nfcli_http_connections",] >= 0
    assert samples["nfcli_zmq_connections",] == 0
    assert samples["nfcli_tools",] == len(measured.worker.context.catalogue.tools)
    assert samples["nfcli_token_store_operation_seconds_count",] >= 2
    assert ("nfcli_worker_info", "on", "fastmcp-worker-1", "fastmcp") in samples
    assert [key for key in samples if key[0] == "nfcli_build_info"]
    before = measured.samples()
    store = measured.worker.context.store
    measured.worker.context.audit.write(operation="list", actor="ann")
    store_token(store, "zoe", "third-token", 1)
    store.delete(token="third-token", before_commit=None)
    names = ("nfcli_audit_write_seconds_count", "nfcli_token_store_operation_seconds_count")
    assert grown(measured, before, *names) == {(names[0],): 1, (names[1],): 2}


def test_metrics_have_no_names_of_users_no_tokens_and_no_addresses(measured: MeasuredWorker) -> None:
    """Whoever reaches the port may read them."""
    measured.post(token="another-wrong-token")
    measured.post("tools/call", {"name": "zoe", "arguments": {"token": TOKEN}})
    text = measured.scrape()
    for secret in (TOKEN, "second-token", "another-wrong-token", "zoe", "127.0.0.1"):
        assert secret not in text


def test_only_metrics_are_served_at_their_address(measured: MeasuredWorker) -> None:
    """MCP isn't, and they are not served at the address of MCP."""
    status, headers, body = measured.metrics.get("/mcp")
    assert (status, headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert body == b"only /metrics is served at this address\n"
    status, headers, body = measured.metrics.get("/metrics", method="POST")
    assert (status, headers["allow"], body) == (405, "GET, HEAD", b"send a GET\n")
    assert measured.get("/metrics")[0] == 404
    status, headers, body = measured.metrics.get("/metrics", method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["content-type"].startswith("text/plain; version=")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("10.244.0.5:9464", 200),
        ("[::1]:9464", 200),
        ("localhost:9464", 200),
        ("mcp.example.com:9464", 421),
        ("mcp.example.com", 200),
        ("evil.example:9464", 421),
        ("10.0.0.1.evil.example", 421),
    ],
)
def test_pages_of_a_browser_cannot_read_metrics_by_rebinding(measured: MeasuredWorker, host: str, status: int) -> None:
    """A name has to be allowed; an address means itself."""
    assert measured.metrics.send(f"GET /metrics HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())[0] == status


def test_names_that_a_reload_allows_are_accepted(measured: MeasuredWorker) -> None:
    """As by the MCP server."""
    worker, inventory = measured.worker, measured.worker.inventory
    request = b"GET /metrics HTTP/1.1\r\nhost: new.example.com\r\n\r\n"
    assert measured.metrics.send(request)[0] == 421
    for hosts, status in ((("new.example.com",), 200), (inventory.allowed_hosts, 421)):
        assert worker.metrics is not None
        worker.metrics.allow_hosts(inventory.model_copy(update={"allowed_hosts": hosts}))
        assert measured.metrics.send(request)[0] == status


def test_the_format_is_what_the_scraper_accepts(measured: MeasuredWorker) -> None:
    """OpenMetrics ends with a line that says so."""
    assert measured.scrape("accept: application/openmetrics-text;version=1.0.0").endswith("# EOF\n")
    assert not measured.scrape("accept: text/plain;version=0.0.4").endswith("# EOF\n")


def test_the_number_of_time_series_has_a_bound() -> None:
    """Services of a fabric may publish any number of tools, one after the other."""
    meters = Meters()
    for number in range(MAX_NAMES + 5):
        meters.tool_call(f"tool-{number}", "ok", 0.1)
    count = meters.registry.get_sample_value
    assert count("nfcli_tool_calls_total", {"tool": "tool-0", "outcome": "ok"}) == 1
    assert count("nfcli_tool_calls_total", {"tool": OTHER, "outcome": "ok"}) == 5
    assert count("nfcli_tool_calls_total", {"tool": f"tool-{MAX_NAMES}", "outcome": "ok"}) is None


def test_a_taken_port_is_an_error_that_names_the_metrics(tmp_path: Path) -> None:
    """The worker doesn't start without them: nobody would notice."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(WorkerStartError, match=f"^metrics: port {port} on 127.0.0.1 is already in use"),
            measured_worker(tmp_path, metrics={"port": port}),
        ):
            pass


def test_a_worker_without_metrics_does_not_load_what_they_need(tmp_path: Path) -> None:
    """It would start later and be larger."""
    with measured_worker(tmp_path, metrics=None) as worker:
        assert worker.metrics.url == ""
    program = "import sys, nfcli.worker.process; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False, timeout=60).returncode == 0


def test_the_end_of_the_certificate_is_a_metric_and_metrics_are_served_without_tls(tmp_path: Path) -> None:
    """Prometheus would have to trust the certificate of each worker."""
    tls = make_certificates(tmp_path)
    with measured_worker(tmp_path, tls=tls) as worker:
        assert worker.url.startswith("https://")
        assert worker.metrics.url.startswith("http://")
        certificate = worker.worker.context.certificate()
        assert certificate is not None
        assert worker.samples()["nfcli_certificate_end_seconds",] == certificate.ends.timestamp()
