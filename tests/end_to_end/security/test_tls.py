"""HTTPS of a real worker: an environment with a private CA, renewal, `--check`, and what plain HTTP is warned about."""

from __future__ import annotations

import http.client
import ssl
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.mcp.certificates import trusting
from support.mcp.served_worker import McpAddress
from support.workers import EnvironmentFactory, NfcliRunner, WorkerRunner

pytestmark = pytest.mark.slow

WAIT_SECONDS = 20.0
EVERYWHERE = "0.0.0.0"  # noqa: S104  what is tested
PLAIN = (
    "tokens and results cross the network unencrypted: host 0.0.0.0 serves plain HTTP to other machines: "
    "set tls in the worker's inventory, or trusted_proxies if a proxy ends TLS"
)


@pytest.fixture
def tls_environment(nfcli: NfcliRunner, tmp_path: Path) -> Environment:
    """Create an environment with --create-env --tls, whose worker takes a free port."""
    folder = tmp_path / "lab"
    done = nfcli("--create-env", str(folder), "--tls", "--tls-name", "mcp.example.com")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"clients have to trust the CA in {folder}/tls/ca.crt" in done.stderr
    file = folder / "fastmcp" / f"{DEFAULT_WORKER}.yaml"
    file.write_text(file.read_text().replace("port: 8001", "port: 0"))
    return Environment(folder, folder / "inventory.yaml")


def served_certificate(url: str, context: ssl.SSLContext) -> bytes:
    """Return the certificate that a new connection gets; its names have to include the URL's."""
    parts = urlsplit(url)
    with closing(http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context)) as connection:
        connection.connect()
        return connection.sock.getpeercert(binary_form=True) or b""


def test_environment_with_tls_serves_checks_and_renews(
    nfcli: NfcliRunner, running_worker: WorkerRunner, tls_environment: Environment
) -> None:
    """By the two commands of the manual, without a restart."""
    stopped = nfcli("--check", environment=tls_environment).stdout
    assert f"ok    {DEFAULT_WORKER} TLS: certificate of localhost, 127.0.0.1, ::1" in stopped
    assert f"ok    {DEFAULT_WORKER} exposure: reachable from this machine over HTTPS, with a token\n" in stopped
    with running_worker(tls_environment) as worker:
        assert worker.url.startswith("https://127.0.0.1:")
        assert (
            nfcli(
                "-c",
                "fastmcp",
                "auth",
                "create-token",
                "username",
                "ann",
                "token",
                "t-1234567890",
                environment=tls_environment,
            ).returncode
            == 0
        )
        client = McpAddress()
        client.url, client.client_tls = worker.url, trusting(tls_environment.folder / "tls")
        assert client.post("ping", token="t-1234567890")[0] == 200
        before = served_certificate(worker.url, client.client_tls)
        running = nfcli("--check", environment=tls_environment)
        assert (running.returncode, f"MCP: {worker.url} answers\n" in running.stdout) == (0, True)
        renewed = nfcli("--renew-tls", environment=tls_environment)
        assert renewed.stderr.startswith("nfcli: certificate of localhost, 127.0.0.1, ::1")
        deadline = time.monotonic() + WAIT_SECONDS
        while served_certificate(worker.url, client.client_tls) == before:
            assert time.monotonic() < deadline
        assert nfcli("--check", environment=tls_environment).returncode == 0
        assert (
            '"certificate_expires": "20'
            in nfcli("-c", "show", "fastmcp", "status", "|", "json", environment=tls_environment).stdout
        )
    key = tls_environment.folder / "tls" / "server.key"
    key.unlink()
    failed = nfcli("-w", environment=tls_environment)
    assert failed.returncode == 1
    assert f"tls.keyfile: {key} doesn't exist: set it to the file, or create that\n" in failed.stderr


def test_plain_http_for_other_machines_is_a_warning_and_a_fault(
    nfcli: NfcliRunner, environment_factory: EnvironmentFactory
) -> None:
    """RFC 6750 section 5.3; once the worker starts and in --check, unless a proxy ends TLS."""
    exposed = environment_factory(host=EVERYWHERE, uvicorn={"ssl_certfile": "a.crt"})
    started = nfcli("show", "fastmcp", "status", environment=exposed)
    assert started.returncode == 0
    ignored = "the section uvicorn is not used, uvicorn.ssl_certfile has no effect: set tls.certfile"
    for warning in (PLAIN, ignored):
        assert started.stderr.count(f"worker {DEFAULT_WORKER}: warning: {warning}\n") == 1
        assert f"FAULT {DEFAULT_WORKER} exposure: {warning}\n" in nfcli("--check", environment=exposed).stdout
    behind_proxy = environment_factory(host=EVERYWHERE, trusted_proxies=["10.0.0.0/8"])
    assert "warning" not in nfcli("show", "fastmcp", "status", environment=behind_proxy).stderr
    assert (
        " exposure: reachable from other machines, with a token\n" in nfcli("--check", environment=behind_proxy).stdout
    )


def test_require_tls_refuses_to_start_over_plain_http(
    nfcli: NfcliRunner, environment_factory: EnvironmentFactory
) -> None:
    """With the same reason, and nothing is served."""
    failed = nfcli("-w", environment=environment_factory(host=EVERYWHERE, require_tls=True))
    assert failed.returncode == 1
    assert failed.stderr == f"nfcli: worker {DEFAULT_WORKER} can't start: require_tls is true and {PLAIN}\n"
