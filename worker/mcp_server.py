"""The MCP server: the tasks that are tools, served statelessly over streamable HTTP behind the gate.

The SDK serves both protocol eras: 2025-11-25 and older, which begin with `initialize`, and 2026-07-28, where each POST
stands for itself. There are no sessions and no streams, so nothing outlives the token it came with.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware, get_access_token
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, RequireAuthMiddleware
from mcp.server.auth.routes import build_resource_metadata_url
from mcp.server.auth.settings import AuthSettings
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.auth import ProtectedResourceMetadata
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from starlette.authentication import AuthCredentials

from ..models.service import ToolEntry
from .answers import JSON, Answer, Challenges
from .context import WorkerContext
from .gate import HEALTH_PATH, MAX_BODY_BYTES, App, Caller, Gate, Policy
from .guesses import GuessLimit
from .names import host_names, origin_names
from .plain_errors import PlainErrors
from .running import RunningRequests
from .service_tasks import tool_entries, tool_specs
from .verifier import DiskcacheBearerTokenVerifier

log = logging.getLogger(__name__)

_Context = ServerRequestContext[Any, Any]


def build_app(worker: WorkerContext) -> Gate:
    """Return the complete ASGI application of a worker; `worker.url` must be set by the time its lifespan starts."""
    # It logs a line at INFO for every request.
    logging.getLogger("mcp.server.streamable_http").setLevel(logging.WARNING)
    server = _make_server(worker)
    requests = RunningRequests()

    @asynccontextmanager
    async def running() -> AsyncIterator[tuple[Policy, App]]:
        policy = _policy(worker)
        manager = StreamableHTTPSessionManager(
            server,
            json_response=True,
            stateless=True,
            security_settings=TransportSecuritySettings(
                allowed_hosts=policy.hosts.patterns(), allowed_origins=policy.origins.patterns()
            ),
            max_request_body_size=MAX_BODY_BYTES,
        )
        async with manager.run():
            with requests.listening(worker.store.on_revoked, policy.is_live):
                yield policy, _endpoint(worker, manager)

    return Gate(running, requests)


def _endpoint(worker: WorkerContext, manager: StreamableHTTPSessionManager) -> App:
    """Return the SDK's application; with authentication it lets nobody in whom the gate hasn't named."""
    app = PlainErrors(StreamableHTTPASGIApp(manager))
    if not worker.inventory.authentication_enabled:
        return app
    scopes = list(worker.inventory.auth_bearer.required_scopes)
    return AuthContextMiddleware(RequireAuthMiddleware(app, scopes))


def _policy(worker: WorkerContext) -> Policy:
    inventory = worker.inventory
    hosts, origins = host_names(inventory, worker.url), origin_names(inventory, worker.url)
    if not inventory.authentication_enabled:
        return Policy(worker.name, hosts, origins)
    bearer = inventory.auth_bearer
    documents, metadata_url = {HEALTH_PATH: Answer(200)}, None
    settings = _auth_settings(worker)
    if settings is not None and settings.resource_server_url is not None:
        metadata_url = build_resource_metadata_url(settings.resource_server_url)
        documents[metadata_url.path or ""] = _metadata(settings)
    _, resource = bearer.metadata_urls(worker.url)
    verifier = DiskcacheBearerTokenVerifier(worker.store, bearer.token_scopes, resource)
    limit = bearer.max_wrong_tokens_per_minute
    return Policy(
        worker.name,
        hosts,
        origins,
        authenticate=_authentication(verifier),
        is_live=lambda token: worker.store.lookup(token) is not None,
        guesses=GuessLimit(limit) if limit else None,
        on_refused=lambda address, reason, token: worker.audit.refused(address, reason, token=token),
        challenges=Challenges(bearer.required_scopes, None if metadata_url is None else str(metadata_url)),
        required_scopes=bearer.required_scopes,
        documents=documents,
    )


def _authentication(verifier: DiskcacheBearerTokenVerifier) -> Callable[[str], Caller | None]:
    def authenticate(token: str) -> Caller | None:
        access = verifier.find(token)
        if access is None:
            return None
        entries = {"user": AuthenticatedUser(access), "auth": AuthCredentials(access.scopes)}
        return Caller(token, frozenset(access.scopes), entries)

    return authenticate


def _auth_settings(worker: WorkerContext) -> AuthSettings | None:
    """Return what is published of the worker's authentication; None where the inventory says to publish nothing."""
    issuer, resource = worker.inventory.auth_bearer.metadata_urls(worker.url)
    if issuer is None or resource is None:
        return None
    return AuthSettings.model_validate(
        {
            "issuer_url": issuer,
            "resource_server_url": resource,
            "required_scopes": list(worker.inventory.auth_bearer.required_scopes),
            # Tokens are kept by this worker alone, so each one's resource is this one.
            "validate_token_resource": True,
        }
    )


def _metadata(settings: AuthSettings) -> Answer:
    """Return the protected-resource metadata (RFC 9728)."""
    metadata = ProtectedResourceMetadata.model_validate(
        {
            "resource": settings.resource_server_url,
            "authorization_servers": [settings.issuer_url],
            "scopes_supported": settings.required_scopes or None,
        }
    )
    return Answer(200, metadata.model_dump_json(by_alias=True, exclude_none=True).encode(), (JSON,))


def _make_server(worker: WorkerContext) -> Server[Any]:
    specs = tool_specs(worker)
    entries = {entry.name: entry for entry in tool_entries(worker)}
    listed = ListToolsResult(tools=[_tool(entry) for entry in entries.values()])

    async def list_tools(_context: _Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return listed

    async def call_tool(_context: _Context, params: CallToolRequestParams) -> CallToolResult:
        spec = specs.get(params.name)
        if spec is None:
            raise MCPError(INVALID_PARAMS, f"unknown tool {params.name[:64]!r}: tools/list names those there are")
        return await _call(worker, spec.name, params.arguments or {})

    def input_schema(name: str) -> dict[str, Any] | None:
        return entries[name].inputSchema if name in entries else None

    server: Server[Any] = Server(
        worker.name,
        version=version("nfcli"),
        title=f"nfcli worker {worker.name}",
        get_tool_input_schema=input_schema,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    # OpenTelemetry's span takes 4 % of each request, and nothing here exports spans.
    server.middleware.clear()
    return server


def _tool(entry: ToolEntry) -> Tool:
    return Tool(
        name=entry.name,
        description=entry.description,
        input_schema=entry.inputSchema,
        output_schema=entry.outputSchema,
        annotations=ToolAnnotations.model_validate(entry.annotations),
    )


async def _call(worker: WorkerContext, task: str, arguments: dict[str, Any]) -> CallToolResult:
    """Run a task in a thread; a call that is cancelled is left alone there and its result thrown away."""
    access = get_access_token()
    log.info("MCP client %r calls %s", access.client_id if access else "(unauthenticated)", task)
    run = partial(worker.registry.run, worker, task, arguments)
    result = await anyio.to_thread.run_sync(run, abandon_on_cancel=True)
    structured = {worker.name: result.model_dump(mode="json")}
    return CallToolResult(
        content=[TextContent(type="text", text=json.dumps(structured, ensure_ascii=False))],
        structured_content=structured,
        is_error=result.failed,
    )
