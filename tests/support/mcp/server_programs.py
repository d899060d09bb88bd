"""MCP servers of the manual as processes of their own, and what a client of them sees."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from support.fabric.worker import eventually
from support.mcp.proxies import listens
from support.mcp.served_worker import HANDSHAKE_ERA, WAIT_SECONDS, McpAddress

FASTMCP_PYTHON = os.environ.get("NFCLI_FASTMCP_PYTHON", "")
NO_FASTMCP = "NFCLI_FASTMCP_PYTHON names no Python with FastMCP"
ATTEMPTS = 3
START_SECONDS = 60.0


class ServerProgram(McpAddress):
    """An MCP server on a port of loopback."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/mcp"

    def whoami(self, token: str, era: str) -> Any:
        """Call the tool `whoami` with the SDK's client; return its text."""

        async def run() -> Any:
            headers = {"Authorization": f"Bearer {token}"}
            async with (
                httpx2.AsyncClient(headers=headers, trust_env=False) as http,
                Client(
                    streamable_http_client(self.url, http_client=http), mode="legacy" if era == HANDSHAKE_ERA else era
                ) as client,
            ):
                (content,) = (await client.call_tool("whoami", {})).content
                return content.model_dump()["text"]

        return asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))


@contextmanager
def run_server(
    command: Sequence[str], folder: Path, text: str, changes: Mapping[str, str], **environ: str
) -> Iterator[ServerProgram]:
    """Run a program of the manual that serves port 9000, on a free one; `changes` replace what is in its text.

    It is the last word of the command, and runs in the folder.
    """
    for _ in range(ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        adapted = text
        for old, new in {**changes, "9000": str(port)}.items():
            assert old in adapted
            adapted = adapted.replace(old, new)
        file = folder / "server.py"
        file.write_text(adapted)
        with (folder / "server.log").open("w") as log:
            process = subprocess.Popen(
                [*command, file.name], cwd=folder, env={**os.environ, **environ}, stdout=log, stderr=log
            )
        try:
            if _serves(process, port):
                yield ServerProgram(port)
                return
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)
    pytest.fail((folder / "server.log").read_text())


def _serves(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a process accepts connections, or has ended; return whether it serves."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if eventually(lambda: listens(port) or process.poll() is not None):
            break
    return process.poll() is None
