"""A worker's MCP server behind a real uvicorn on a free port, in a thread with its own loop."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Self
from urllib.parse import urlsplit

from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.audit.actor import http_actor
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.http.listener import HttpListener
from nfcli.worker.http.middleware import RequestMiddleware
from nfcli.worker.http.public.readiness import Readiness
from nfcli.worker.http.server import HttpServer, new_event_loop
from nfcli.worker.http.tls.certificates import ServerCertificate
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.mcp.app import build_app
from nfcli.worker.mcp.reply_streams import Pace
from nfcli.worker.mcp.result_budget import ResultBudget
from nfcli.worker.tasks import auth as auth_tasks
from nfcli.worker.tasks import introspection as service_tasks
from nfcli.worker.tasks import tools as tool_tasks
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy
from support.task_context import task_context
from support.tokens.token_store import store_token

START = 1_780_000_000.25
WAIT_SECONDS = 10.0
TOKEN = "secret-token"
HANDSHAKE_ERA, SINGLE_POST_ERA = "2025-11-25", "2026-07-28"


class McpAddress:
    """The `url` of an MCP server, and requests to it as clients of both protocol eras send them.

    `wait_seconds` is how long a connection waits for the next bytes, `client_tls` the context of connections to an
    https URL.
    """

    url: str
    wait_seconds = WAIT_SECONDS
    client_tls: ssl.SSLContext | None = None

    def connect(self, source: str | None = None) -> socket.socket:
        """Open a connection without sending anything, from `source`, an address of this machine, if given."""
        parts = urlsplit(self.url)
        address = (parts.hostname or "", parts.port or 0)
        connection = socket.create_connection(
            address, timeout=self.wait_seconds, source_address=(source, 0) if source else None
        )
        if self.client_tls is None:
            return connection
        return self.client_tls.wrap_socket(connection, server_hostname=parts.hostname)

    def send(self, request: bytes, source: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """Send bytes over a new connection; return status, headers and body of the response."""
        with self.connect(source) as connection:
            connection.sendall(request)
            return read_response(connection, request.split(b" ")[0].decode())

    def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Request a path; `headers` are lines besides Host."""
        lines = [f"{method} {path} HTTP/1.1", f"host: {urlsplit(self.url).netloc}", *headers, "", ""]
        return self.send("\r\n".join(lines).encode("latin-1"))

    def post(
        self, method: str = "tools/list", *args: Any, source: str | None = None, **kwargs: Any
    ) -> tuple[int, dict[str, str], Any]:
        """Post a JSON-RPC request made by `request`; return status, headers and the JSON body.

        Of a reply that came as a stream, since it took long, that is its last event.
        """
        status, received, text = self.send(self.request(method, *args, **kwargs), source)
        if received.get("content-type", "").startswith("text/event-stream"):
            text = text.rpartition(b"data: ")[2]
        return status, received, json.loads(text) if text else None

    def request(
        self,
        method: str = "tools/list",
        params: dict[str, Any] | None = None,
        *,
        era: str = HANDSHAKE_ERA,
        token: str | None = TOKEN,
        path: str = "/mcp",
        headers: tuple[tuple[str, str], ...] = (),
        request_id: int | str | None = 1,
    ) -> bytes:
        """Return a JSON-RPC request as a client of that era sends it, or a notification with `request_id` None.

        `headers` replace all usual ones of the same names.
        """
        usual = {**_usual_headers(self, era, method, params), **({"authorization": f"Bearer {token}"} if token else {})}
        named = {name.lower() for name, _ in headers}
        chosen = [*((name, value) for name, value in usual.items() if name not in named), *headers]
        body = _body(era, method, params, request_id)
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in chosen)]
        return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode("latin-1") + body


class ServedWorker(McpAddress):
    """A worker named `w1` with one token, `secret-token` of `automation`.

    `now` is its clock, which a test may set; `looked_up` are the tokens that were looked up in the store.

    Args:
        folder: folder of the token database.
        fabric: runs jobs of other services; None: direct mode.
        policy: which tasks become tools; None: the inventory's.
        tasks: modules of tasks besides the worker's own.
        pace: when replies become streams; None: as usual.
        results: the bound on results; None: the usual one.
        grace_seconds: how long active requests may go on when the `with` block ends.
        settings: keys of the worker's inventory; by default authentication is on, and the port a free one of loopback.
    """

    def __init__(
        self,
        folder: Path,
        *tasks: ModuleType,
        grace_seconds: float = 0.1,
        fabric: Any = None,
        policy: ToolPolicy | None = None,
        pace: Pace | None = None,
        results: ResultBudget | None = None,
        **settings: Any,
    ) -> None:
        configured = {"service": "fastmcp", "port": 0, "authentication_enabled": True, **settings}
        inventory = WorkerInventory.model_validate(configured)
        self.now = START
        self.grace_seconds = grace_seconds
        self._pace = pace
        self._results = results
        self.store = TokenStore(folder, clock=lambda: self.now, ticks=lambda: 0.0)
        store_token(self.store, "automation", TOKEN, None)
        self.audit = AuditTrail(folder.parent / "audit-w1.jsonl", bytes(32), clock=lambda: self.now)
        self.looked_up: list[str] = []
        self._looked_up_more = threading.Condition()
        self._watch_lookups(self.store.lookup)
        registry = TaskRegistry(auth_tasks, service_tasks, tool_tasks, *tasks)
        own = [spec.entry() for spec in registry]
        self.worker = task_context(
            environment=Environment(folder.parent, None),
            inventory=inventory,
            registry=registry,
            store=self.store,
            audit=self.audit,
            endpoint="ipc:///w1.ipc",
            clock=lambda: self.now,
            started=START,
            catalogue=ToolCatalogue("w1", "fastmcp", own, policy or ToolPolicy(inventory.tools)),
        )
        listener = HttpListener.bind(inventory)
        self.url = self.worker.url = listener.url
        self.fabric = fabric
        app = self._build_app(fabric)
        self.certificate = ServerCertificate.of(inventory, folder.parent)
        self.http = HttpServer(app, listener, on_stop=app.close_streams, certificate=self.certificate)
        self._stop_requested = asyncio.Event()
        self._runner = asyncio.Runner(loop_factory=new_event_loop)
        self._thread = threading.Thread(target=self._run, name="served worker")

    def _build_app(self, fabric: Any) -> RequestMiddleware:
        return build_app(
            self.worker.name,
            self.url,
            self.worker.inventory,
            store=self.store,
            catalogue=self.worker.catalogue,
            run_task=self.worker.run_tool,
            read_arguments=self.worker.registry.read_arguments,
            run_job=None if fabric is None else partial(fabric.run_job, timeout=self.worker.inventory.tools.timeout),
            pace=self._pace,
            results=self._results,
            on_rejected=lambda address, reason, token: self.audit.refused(http_actor(address), reason, token=token),
            readiness=Readiness(
                lambda: self.store.revocations.problem(is_thorough=True), is_stopping=self.worker.stopping.is_set
            ),
        )

    def _watch_lookups(self, lookup: Callable[[str], BearerTokenRecord | None]) -> None:
        def watched(token: str) -> BearerTokenRecord | None:
            found = lookup(token)
            with self._looked_up_more:
                self.looked_up.append(token)
                self._looked_up_more.notify_all()
            return found

        self.store.lookup = watched  # type: ignore[method-assign]

    def _run(self) -> None:
        with self._runner as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        serving = asyncio.create_task(self.http.serve())
        await self._stop_requested.wait()
        await self.http.stop(self.grace_seconds)
        await serving

    def __enter__(self) -> Self:
        self._runner.get_loop()  # created here: two threads must not create it
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop the server and wait until it has ended."""
        if self._thread.is_alive():
            self._runner.get_loop().call_soon_threadsafe(self._stop_requested.set)
            self._thread.join(WAIT_SECONDS)
            assert not self._thread.is_alive()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.store.close()
        self.audit.close()

    def stall(self, connection: socket.socket) -> None:
        """Send requests without reading the responses, until the server has to wait before it sends more of them."""
        pause, enough = threading.Event(), 0
        while not self._is_stalled():
            connection.sendall(self.request() * 8)
            enough += 2 * 8  # a token is looked up when its request comes, and when the response begins
            for _ in range(int(WAIT_SECONDS * 100)):
                if len(self.looked_up) >= enough or self._is_stalled():
                    break
                pause.wait(0.01)  # leaves the processor to the server

    def _is_stalled(self) -> bool:
        flows = [getattr(each, "flow", None) for each in list(self.http.connections)]  # none during a TLS handshake
        return any(flow is not None and flow.write_paused for flow in flows)

    def wait_for_lookups(self, count: int) -> None:
        """Wait until the store has looked up tokens `count` times more."""
        with self._looked_up_more:
            enough = len(self.looked_up) + count
            assert self._looked_up_more.wait_for(lambda: len(self.looked_up) >= enough, WAIT_SECONDS)


def _usual_headers(worker: McpAddress, era: str, method: str, params: dict[str, Any] | None) -> dict[str, str]:
    usual = {
        "host": urlsplit(worker.url).netloc,
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": era,
    }
    if era == SINGLE_POST_ERA:
        usual["mcp-method"] = method
        if params and "name" in params:
            usual["mcp-name"] = params["name"]
    return usual


def _body(era: str, method: str, params: dict[str, Any] | None, request_id: int | str | None) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": dict(params or {})}
    if request_id is None:
        del message["id"]
    if era == SINGLE_POST_ERA:
        message["params"]["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": era,
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
            **message["params"].get("_meta", {}),
        }
    return json.dumps(message).encode()


def read_response(connection: socket.socket, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
    """Return status, headers (names in lower case, without Date) and body of the response to `method`."""
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders() if name.lower() != "date"}
        return response.status, headers, response.read()
    finally:
        response.close()


def read_statuses(connection: socket.socket, count: int) -> list[int]:
    """Return the statuses of so many responses to pipelined requests."""
    received = b""
    while received.count(b"HTTP/1.1 ") < count:
        part = connection.recv(65_536)
        assert part
        received += part
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)]


Serve = Callable[..., ServedWorker]
