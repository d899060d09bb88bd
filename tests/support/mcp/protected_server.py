"""An MCP server of the SDK that knows nothing of authentication, on a free port of loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Mapping
from typing import Any, Self

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

from support.mcp.served_worker import WAIT_SECONDS


class ProtectedServer:
    """Serves tools over streamable HTTP: `whoami`, the headers of its request, and `steps`, which reports progress.

    `steps` reports once and waits for `may_end`. `app_options` are those of `MCPServer`.
    """

    def __init__(self, **app_options: Any) -> None:
        self.may_end = threading.Event()
        server = MCPServer("plain", **app_options)
        server.tool()(whoami)
        server.tool()(self.steps)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(server.streamable_http_app(), log_level="error", ws="none", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="protected server")

    async def steps(self, ctx: Context) -> str:
        """Report a step, and wait."""
        await ctx.report_progress(1, 2, "begun")
        await asyncio.to_thread(self.may_end.wait, WAIT_SECONDS)
        return "done"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_end.set()
        self._server.should_exit = True
        self._thread.join(WAIT_SECONDS)
        self._socket.close()


async def whoami(ctx: Context) -> dict[str, str]:
    """Return the request's headers."""
    headers: Mapping[str, str] = ctx.headers or {}
    return dict(headers)
