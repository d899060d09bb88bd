"""MCP clients from npm: with a token they connect; without one they say what the manual says that they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nfcli.worker.http.public.oauth import DESCRIPTION as NO_OAUTH
from support.mcp.served_worker import TOKEN, ServedWorker

FOLDERS = os.environ.get("NFCLI_NPM_CLIENTS", "")
SECONDS = 120
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

pytestmark = pytest.mark.slow

Call = Callable[..., str]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker with one token."""
    with ServedWorker(tmp_path_factory.mktemp("served") / "tokens") as served:
        yield served


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Run a client in a home of its own; return what it prints. The test is skipped where the client isn't there."""

    def run(name: str, *words: str) -> str:
        program = shutil.which(name, path=FOLDERS)
        if program is None:
            pytest.skip(f"NFCLI_NPM_CLIENTS has no folder with {name}")
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "LC_ALL": "C.UTF-8",
            "NFCLI_TOKEN": TOKEN,
        }
        (tmp_path / "home").mkdir(exist_ok=True)
        done = subprocess.run(
            [program, *words],
            cwd=tmp_path,
            env=environ | {"GEMINI_CLI_TRUST_WORKSPACE": "true"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return _CODES.sub("", done.stdout)

    return run


def header(token: str) -> str:
    """Return the header with a token."""
    return f"Authorization: Bearer {token}"


def test_mcp_remote(call: Call, worker: ServedWorker) -> None:
    """It lists the tools, or prints that there is no OAuth."""
    words = (worker.url, "--transport", "http-only")
    listed = call("mcp-remote-client", *words, "--header", header(TOKEN))
    assert "Connected successfully!" in listed
    assert NO_OAUTH not in listed
    assert NO_OAUTH in call("mcp-remote-client", *words)
    assert NO_OAUTH in call("mcp-remote-client", *words, "--header", header("wrong"))


def test_claude_code(call: Call, worker: ServedWorker, tmp_path: Path) -> None:
    """Its list says that it is connected, or has failed; its log says why."""
    headers = {"good": ("--header", header(TOKEN)), "none": (), "wrong": ("--header", header("wrong"))}
    for name, words in headers.items():
        call("claude", "mcp", "add", "--transport", "http", name, worker.url, *words)
    states = dict(re.findall(r"^(\w+): .* - \S+ (.*)$", call("claude", "mcp", "list"), re.MULTILINE))
    assert states == {"good": "Connected", "none": "Failed to connect", "wrong": "Failed to connect"}
    logs = {name: "".join(each.read_text() for each in tmp_path.rglob(f"mcp-logs-{name}/*.jsonl")) for name in states}
    assert [NO_OAUTH in logs[name] for name in ("good", "none")] == [False, True]


def test_opencode(call: Call, worker: ServedWorker, tmp_path: Path) -> None:
    """Its list says that it is connected, has failed, or wants a login, which ends with the reason."""
    good = {"Authorization": "Bearer {env:NFCLI_TOKEN}"}
    servers = {
        "good": {"oauth": False, "headers": good},
        "failed": {"oauth": False},
        "login": {"headers": {"Authorization": "Bearer wrong"}},
    }
    servers = {name: {"type": "remote", "url": worker.url, **each} for name, each in servers.items()}
    (tmp_path / "opencode.json").write_text(json.dumps({"mcp": servers}))
    states = dict(re.findall(r"^●\s+\S (\w+) (.*)$", call("opencode", "mcp", "list"), re.MULTILINE))
    assert states == {"good": "connected", "failed": "failed", "login": "needs authentication"}
    assert NO_OAUTH in call("opencode", "mcp", "auth", "login")


def test_codex(call: Call, worker: ServedWorker) -> None:
    """It knows that a token is there; a login ends with words of its own."""
    call("codex", "mcp", "add", "good", "--url", worker.url, "--bearer-token-env-var", "NFCLI_TOKEN")
    call("codex", "mcp", "add", "none", "--url", worker.url)
    assert re.search(r"^good .*Bearer token *$", call("codex", "mcp", "list"), re.MULTILINE)
    assert "none published usable metadata" in call("codex", "mcp", "login", "none")


def test_gemini(call: Call, worker: ServedWorker) -> None:
    """Its list says connected or disconnected."""
    add = ("mcp", "add", "--transport", "http")
    call("gemini", *add, "-H", header(TOKEN), "good", worker.url)
    call("gemini", *add, "none", worker.url)
    listed = call("gemini", "mcp", "list")
    assert re.search(r"good: .* - Connected$", listed, re.MULTILINE)
    assert re.search(r"none: .* - Disconnected$", listed, re.MULTILINE)
