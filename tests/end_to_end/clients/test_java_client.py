"""The HTTP clients of a JDK and of curl, which ask to upgrade the connection to HTTP/2."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.worker.http.bearer import INVALID_CREDENTIALS
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, ServedWorker
from support.own_tools import OWN_TOOLS

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("McpPost.java")
SECONDS = 120.0
STATUS = "service_fastmcp__task_get_status"
ERAS = [HANDSHAKE_ERA, SINGLE_POST_ERA]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker."""
    with ServedWorker(tmp_path_factory.mktemp("served") / "tokens", auth_bearer={"issuer_url": None}) as served:
        yield served


def messages(worker: ServedWorker, era: str) -> list[bytes]:
    """Return the requests of a client of that era: its handshake, the list of tools, a call."""
    client = {"name": "java", "version": "1"}
    hello = {"protocolVersion": era, "capabilities": {}, "clientInfo": client}
    handshake = [worker.request("initialize", hello)] if era == HANDSHAKE_ERA else []
    call = {"name": STATUS, "arguments": {}}
    return [*handshake, worker.request("tools/list", era=era), worker.request("tools/call", call, era=era)]


def post_with_java(worker: ServedWorker, requests: list[bytes], token: str, *, is_chunked: bool) -> list[Any]:
    """Send requests with one `HttpClient`; return status, version, challenge and body of each response."""
    lines = []
    for request in requests:
        head, _, body = request.decode().partition("\r\n\r\n")
        own = ("mcp-", "content-type", "accept")
        headers = [line.partition(": ")[::2] for line in head.split("\r\n") if line.startswith(own)]
        headers.append(("authorization", f"Bearer {token}"))
        lines.append("\t".join([body, *(part for header in headers for part in header)]))
    command = ["java", "-XX:TieredStopAtLevel=1", "-Xmx128m", str(PROGRAM), worker.url, str(is_chunked).lower()]
    done = subprocess.run(
        command, input="\n".join(lines), capture_output=True, text=True, check=False, timeout=SECONDS, encoding="utf-8"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK")
@pytest.mark.parametrize("is_chunked", [False, True], ids=["content-length", "chunked"])
@pytest.mark.parametrize("era", ERAS)
def test_http_client_of_a_jdk_lists_and_calls(worker: ServedWorker, era: str, is_chunked: bool) -> None:
    """With its defaults, which ask for HTTP/2 in each request; the responses come in HTTP/1.1."""
    answers = post_with_java(worker, messages(worker, era), TOKEN, is_chunked=is_chunked)
    assert [answer[:3] for answer in answers] == [["200", "HTTP_1_1", ""]] * len(answers)
    listed, called = (json.loads(answer[3])["result"] for answer in answers[-2:])
    assert [tool["name"] for tool in listed["tools"]] == OWN_TOOLS
    assert called["structuredContent"]["w1"]["result"]["url"] == worker.url


@pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK")
def test_http_client_of_a_jdk_reads_why_it_is_refused(worker: ServedWorker) -> None:
    """It throws away a 401 without a challenge."""
    (answer,) = post_with_java(worker, [worker.request()], "wrong", is_chunked=False)
    assert answer[:3] == ["401", "HTTP_1_1", 'Bearer error="invalid_token"']
    assert INVALID_CREDENTIALS in answer[3]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("chunked", [(), ("--header", "transfer-encoding: chunked")], ids=["content-length", "chunked"])
@pytest.mark.parametrize("era", ERAS)
def test_curl_that_asks_for_http2_lists_the_tools(worker: ServedWorker, era: str, chunked: tuple[str, ...]) -> None:
    """As with `--http2` on plain HTTP."""
    head, _, body = worker.request("tools/list", era=era).decode().partition("\r\n\r\n")
    lines = [line for line in head.split("\r\n")[1:] if not line.startswith(("host", "content-length"))]
    headers = [part for line in lines for part in ("--header", line)]
    command = ["curl", "--silent", "--show-error", "--http2", "--max-time", "20", "--data", body, *headers, *chunked]
    done = subprocess.run([*command, worker.url], capture_output=True, text=True, check=True, timeout=SECONDS)
    assert [tool["name"] for tool in json.loads(done.stdout)["result"]["tools"]] == OWN_TOOLS
