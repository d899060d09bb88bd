"""MCP clients in web pages, in a real browser: what pages of allowed origins reach, and those of others don't."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.worker.http.bearer import INVALID_CREDENTIALS
from support.mcp.browser import CHROMIUM, Pages
from support.mcp.called_tools import PING, Fabric
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, ServedWorker
from support.mcp.tool_entries import entry
from support.own_tools import OWN_TOOLS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason="needs Chromium"),
]

ALLOWED, OTHER = "app.example.com", "evil.example.com"
STATUS = "service_fastmcp__task_get_status"
# Fetches what `requests` says, one after the other, and reports status, challenge and body of each, or the error.
PAGE = b"""<!doctype html><meta charset="utf-8"><script type="module">
const requests = await (await fetch("/requests.json")).json();
const seen = [];
for (const [url, options] of requests) {
  try {
    const response = await fetch(url, options);
    seen.push([response.status, response.headers.get("www-authenticate"), await response.text()]);
  } catch (error) {
    seen.push(String(error));
  }
}
await fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
</script>"""

Browse = Callable[..., Any]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker to pages of one host."""
    folder = tmp_path_factory.mktemp("served") / "tokens"
    with ServedWorker(folder, allowed_origins=[f"http://{ALLOWED}:*"]) as served:
        yield served


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Return a function that lets a page of a host fetch; arguments: the host and the requests."""

    def run(host: str, *requests: tuple[str, dict[str, Any]]) -> Any:
        with Pages({"/page.html": PAGE, "/requests.json": json.dumps(requests).encode()}) as pages:
            return pages.opened(host, "/page.html", tmp_path)

    return run


def fetch(
    worker: ServedWorker, method: str, params: dict[str, Any] | None = None, *, era: str, **kwargs: Any
) -> tuple[str, dict[str, Any]]:
    """Return the arguments of JavaScript's `fetch` for an MCP request."""
    head, _, body = worker.request(method, params, era=era, **kwargs).decode().partition("\r\n\r\n")
    lines = [line.partition(": ")[::2] for line in head.split("\r\n")[1:]]
    headers = {name: value for name, value in lines if name not in {"host", "content-length"}}
    return worker.url, {"method": "POST", "headers": headers, "body": body}


def session(worker: ServedWorker, era: str, **kwargs: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the requests of a client: the handshake, where the era has one, the list of tools, a call."""
    hello = {"protocolVersion": era, "capabilities": {}, "clientInfo": {"name": "page", "version": "1"}}
    handshake = [fetch(worker, "initialize", hello, era=era, **kwargs)] if era == HANDSHAKE_ERA else []
    call = {"name": STATUS, "arguments": {}}
    return [
        *handshake,
        fetch(worker, "tools/list", era=era, **kwargs),
        fetch(worker, "tools/call", call, era=era, **kwargs),
    ]


@pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
@pytest.mark.parametrize("host", [ALLOWED, "localhost"])
def test_page_of_an_allowed_origin_connects_lists_and_calls(
    worker: ServedWorker, browse: Browse, host: str, era: str
) -> None:
    """Those of this machine may, too, as tokens are asked for."""
    *_, listed, called = browse(host, *session(worker, era))
    assert (listed[:2], called[:2]) == ([200, None], [200, None])
    assert [tool["name"] for tool in json.loads(listed[2])["result"]["tools"]] == OWN_TOOLS
    assert json.loads(called[2])["result"]["structuredContent"]["w1"]["result"]["url"] == worker.url


def test_page_of_an_allowed_origin_reads_refusals_and_metadata(worker: ServedWorker, browse: Browse) -> None:
    """With the challenge, so that it can say what to do."""
    metadata = worker.url.replace("/mcp", "/.well-known/oauth-protected-resource")
    register = worker.url.replace("/mcp", "/register")
    requests = [
        fetch(worker, "tools/list", era=HANDSHAKE_ERA, token="wrong"),
        (metadata, {"headers": {"mcp-protocol-version": HANDSHAKE_ERA}}),
        (register, {"method": "POST", "headers": {"content-type": "application/json"}, "body": "{}"}),
    ]
    refused, described, registered = browse(ALLOWED, *requests)
    assert (refused[0], "invalid_token" in refused[1], INVALID_CREDENTIALS in refused[2]) == (401, True, True)
    assert (described[0], json.loads(described[2])["resource"]) == (200, worker.url.removesuffix("/mcp"))
    assert "create-token" in json.loads(registered[2])["error_description"]


@pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
def test_page_of_another_origin_reaches_nothing(
    worker: ServedWorker, browse: Browse, era: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Although it has a token: the browser sends no more than the preflight."""
    worker.looked_up.clear()
    requests = session(worker, era)
    assert browse(OTHER, *requests) == ["TypeError: Failed to fetch"] * len(requests)
    assert worker.looked_up == []
    assert f"Origin 'http://{OTHER}:" in caplog.text


def test_page_of_another_origin_calls_nothing_without_a_preflight(tmp_path: Path, browse: Browse) -> None:
    """Without authentication: the requests that pages may send to anybody, and whose responses they can't read."""
    fabric = Fabric()
    with ServedWorker(tmp_path / "tokens", fabric=fabric, authentication_enabled=False) as open_worker:
        open_worker.worker.catalogue.replace("net", [entry()])
        call = {"name": PING, "arguments": {"target": "r1"}}
        url, options = fetch(open_worker, "tools/call", call, era=HANDSHAKE_ERA)
        simple = {"method": "POST", "mode": "no-cors", "body": options["body"]}
        requests = [(url, simple), (url, {**simple, "headers": {"content-type": "text/plain"}}), (url, options)]
        (_, _, no_text), (_, _, text), error = browse("localhost", *requests)
        assert (no_text, text, error, fabric.calls) == ("", "", "TypeError: Failed to fetch", [])
        assert open_worker.post("tools/call", call, token=None)[0] == 200
        assert len(fabric.calls) == 1
