"""The floor under MCP requests: the SDK's own server as it comes, without authentication, in a process of its own.

Serves without sessions and answers in JSON, as a worker does. Says on stdout where, and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn
import uvloop
from mcp.server.mcpserver import MCPServer


async def _serve() -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # connections wait until it serves
    app = MCPServer("floor", log_level="ERROR").streamable_http_app(json_response=True, stateless_http=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    serving = asyncio.create_task(server.serve([listener]))
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    # What uvicorn's own `run` takes where it is installed.
    uvloop.run(_serve())
