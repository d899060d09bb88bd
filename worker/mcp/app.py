"""The MCP server: the tasks that are tools, served statelessly over streamable HTTP behind the gate.

The SDK serves both protocol eras: 2025-11-25 and older, which begin with `initialize`, and 2026-07-28, where each POST
stands for itself. There are no sessions. Where the tools can change there are streams that tell so; the gate ends them
with their token, so that nothing outlives it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, RequireAuthMiddleware
from mcp.server.auth.routes import build_resource_metadata_url
from mcp.server.auth.settings import AuthSettings
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.auth import ProtectedResourceMetadata
from starlette.authentication import AuthCredentials

from ..fabric.client import FabricClient
from ..http.active_requests import RunningRequests
from ..http.allowed_hosts import host_names, origin_names
from ..http.exchange import MAX_BODY_BYTES, App
from ..http.middleware import HEALTH_PATH, Caller, Gate, Policy
from ..http.rate_limit import GuessLimit
from ..http.responses import JSON, Answer, Challenges
from ..http.token_verifier import DiskcacheBearerTokenVerifier
from ..jobs.task_context import TaskContext
from .handlers import make_server
from .notifications import ListChanges
from .plain_errors import PlainErrors

log = logging.getLogger(__name__)


def build_app(worker: TaskContext, fabric: FabricClient | None = None) -> Gate:
    """Return the complete ASGI application of a worker.

    `worker.url` must be set by the time the application's lifespan starts.

    Args:
        worker: whose tools and tokens they are.
        fabric: sends jobs to the other services of the fabric; None: there are none, and lists of tools never change.
    """
    # It logs a line at INFO for every request.
    logging.getLogger("mcp.server.streamable_http").setLevel(logging.WARNING)
    changes = None if fabric is None else ListChanges()
    server = make_server(worker, changes, fabric)
    requests = RunningRequests()

    @asynccontextmanager
    async def running() -> AsyncIterator[tuple[Policy, App]]:
        policy = _policy(worker)
        if changes is not None:
            policy = replace(policy, streams=_guarded(worker, changes), end_streams=changes.close)
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
            with ExitStack() as followed:
                followed.enter_context(requests.listening(worker.store.on_revoked, policy.is_live))
                if changes is not None:
                    followed.enter_context(changes.following(worker.catalogue))
                yield policy, _guarded(worker, PlainErrors(StreamableHTTPASGIApp(manager)))

    return Gate(running, requests)


def _guarded(worker: TaskContext, app: App) -> App:
    """Return an application that with authentication lets nobody in whom the gate hasn't named."""
    if not worker.inventory.authentication_enabled:
        return app
    scopes = list(worker.inventory.auth_bearer.required_scopes)
    return AuthContextMiddleware(RequireAuthMiddleware(app, scopes))


def _policy(worker: TaskContext) -> Policy:
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


def _auth_settings(worker: TaskContext) -> AuthSettings | None:
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
