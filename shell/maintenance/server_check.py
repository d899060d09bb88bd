"""The check of a running worker's MCP server for `nfcli --check`: its health, and the certificate that it uses."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from ...models.certificates.summary import CertificateSummary, file_problems
from ...models.errors import CertificateError
from ...models.tasks.health import CheckResult


def check_server(url: str, files: Mapping[str, Path], *, seconds: float) -> list[CheckResult]:
    """Check the MCP server at `url`, which waits for up to `seconds`; `files` are those of `tls` in the inventory."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return [_health(url, HTTPConnection(parts.hostname or "", parts.port, timeout=seconds))]
    # Whoever has the port is asked: the certificate is compared with the file instead of being verified.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = HTTPSConnection(parts.hostname or "", parts.port, timeout=seconds, context=context)
    try:
        connection.connect()
        served = connection.sock.getpeercert(binary_form=True)
    except OSError as error:
        connection.close()
        return [_unhealthy(url, f"no TLS handshake: {_reason(error)}")]
    with closing(connection):
        certificate = _check_certificate(served, files)
        if "client_ca" in files:
            detail = f"{url} answers TLS handshakes; its health is only shown to clients with a certificate"
            return [*certificate, CheckResult(subject="MCP", detail=detail)]
        return [*certificate, _health(url, connection)]


def _check_certificate(served: bytes | None, files: Mapping[str, Path]) -> list[CheckResult]:
    """Compare the certificate that is in use with the one of the inventory."""
    if served is None or "certfile" not in files:
        return []
    path = files["certfile"]
    try:
        summary = CertificateSummary.from_pem(path.read_bytes())
    except CertificateError as error:
        return [CheckResult(subject="TLS", error=f"tls.certfile: {path} {error}")]
    except OSError as error:
        return [CheckResult(subject="TLS", error=f"tls.certfile: {path} can't be read: {error.strerror}")]
    problems = file_problems(files, summary)
    if served != summary.der:
        problems.append(f"the worker uses another certificate than {path} has: see its log for what it can't read")
    faults = [CheckResult(subject="TLS", error=problem) for problem in problems]
    return faults or [CheckResult(subject="TLS", detail=summary.describe())]


def _health(url: str, connection: HTTPConnection) -> CheckResult:
    try:
        with closing(connection):
            connection.request("GET", "/health")
            problem = f"status {connection.getresponse().status}"
    except (OSError, HTTPException) as error:
        problem = _reason(error)
    if problem == "status 200":
        return CheckResult(subject="MCP", detail=f"{url} answers")
    return _unhealthy(url, problem)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _unhealthy(url: str, problem: str) -> CheckResult:
    return CheckResult(subject="MCP", error=f"{url} is not healthy ({problem}): see the worker's log, or restart it")
