"""The web UI of the MCP inspector in a real browser, in its direct mode: the page itself is the MCP client."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.worker.http.public.oauth import DESCRIPTION as NO_OAUTH
from support.mcp.browser import CHROMIUM, Pages
from support.mcp.served_worker import TOKEN, ServedWorker
from support.own_tools import OWN_TOOLS

FOLDER = os.environ.get("NFCLI_INSPECTOR", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason="needs Chromium"),
    pytest.mark.skipif(not FOLDER, reason="NFCLI_INSPECTOR names no folder with the inspector's web UI"),
]

ALLOWED, OTHER = "app.example.com", "evil.example.com"
VERSION = "service_fastmcp__task_get_version"
# Clicks as a person would, and reports what the page shows after each step.
DRIVER = """
const text = () => document.body.innerText;
const named = (name) => [...document.querySelectorAll("button, span")].find((each) => each.textContent.trim() === name);
const shown = (wanted) => wanted.some((each) => text().split("\\n").some((line) => line.startsWith(each)));
const steps = %s;
const seen = [];
async function until(find, what) {
  const end = Date.now() + 60000;
  for (let found = find(); ; found = find()) {
    if (found) return found;
    if (Date.now() > end) throw new Error(`no ${what} in:\\n${text()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
try {
  for (const [name, wanted] of steps) {
    (await until(() => named(name), name)).click();
    await until(() => shown(wanted), wanted);
    seen.push(text());
  }
} catch (error) {
  seen.push(String(error));
}
await fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker to pages of one host."""
    folder = tmp_path_factory.mktemp("served") / "tokens"
    with ServedWorker(folder, allowed_origins=[f"http://{ALLOWED}:*"]) as served:
        yield served


def inspect(worker: ServedWorker, host: str, profile: Path, *steps: tuple[str, list[str]], token: str = TOKEN) -> Any:
    """Open the inspector at a host; for each step click what has that name, and wait for a line that begins so.

    Return the page's text after each step; the last is an error if a step failed.
    """
    folder = Path(FOLDER)
    files = {f"/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    settings = {
        "lastConnectionType": "direct",
        "lastTransportType": "streamable-http",
        "lastSseUrl": worker.url,
        "lastCustomHeaders": json.dumps([{"name": "Authorization", "value": f"Bearer {token}", "enabled": True}]),
    }
    start = f"Object.assign(localStorage, {json.dumps(settings)}); location.replace('/index.html');"
    driver = b'<script type="module" src="/driver.js"></script></body>'
    files |= {
        "/start.html": f"<!doctype html><script>{start}</script>".encode(),
        "/driver.js": (DRIVER % json.dumps(steps)).encode(),
        "/index.html": files["/index.html"].replace(b"</body>", driver),
    }
    with Pages(files) as pages:
        return pages.opened(host, "/start.html", profile)


def test_inspector_connects_lists_and_calls(worker: ServedWorker, tmp_path: Path) -> None:
    """It finds the result valid, and the same as its text."""
    connected, listed, _, called = inspect(
        worker,
        ALLOWED,
        tmp_path,
        ("Connect", ["Connected"]),
        ("List Tools", OWN_TOOLS[-1:]),
        (VERSION, ["Run Tool"]),
        ("Run Tool", ["Tool Result"]),
    )
    assert "w1" in connected.splitlines()
    assert [line for line in listed.splitlines() if line.startswith("service_")] == OWN_TOOLS
    assert "Tool Result: Success" in called
    assert "Valid according to output schema" in called
    assert "Structured content matches text block" in called


def test_inspector_of_another_origin_does_not_connect(worker: ServedWorker, tmp_path: Path) -> None:
    """Although it has a token: the worker never sees it."""
    worker.looked_up.clear()
    (refused,) = inspect(worker, OTHER, tmp_path, ("Connect", ["Connection Error"]))
    assert "List Tools" not in refused
    assert worker.looked_up == []


def test_inspector_with_a_wrong_token_says_what_to_do(worker: ServedWorker, tmp_path: Path) -> None:
    """It tries to register with OAuth, and shows why that is in vain."""
    (refused,) = inspect(worker, ALLOWED, tmp_path, ("Connect", ["Connection failed"]), token="wrong")
    assert "List Tools" not in refused
    assert NO_OAUTH in refused
