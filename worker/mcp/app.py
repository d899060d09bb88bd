"""The MCP application: a worker's tools and prompts over stateless streamable HTTP, behind the request middleware.

The SDK serves both protocol eras: 2025-11-25 and older, which begin with `initialize`, and 2026-07-28, where each POST
is self-contained. Only clients of the first that can be asked get session ids, and nothing is kept for them. Where the
tools can change there are notification streams; the middleware ends them with their token, so that nothing outlives it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import RequireAuthMiddleware
from mcp.server.auth.routes import build_resource_metadata_url
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.auth import ProtectedResourceMetadata
from starlette.types import ASGIApp

from ...models.inventory.schema import WorkerInventory
from ...models.inventory.sections.bearer import AuthBearer
from ..http.active_requests import ActiveRequests
from ..http.allowed_hosts import host_patterns, origin_patterns, sharing_patterns
from ..http.bearer import DiskcacheBearerTokenVerifier, TokenLookup, bearer_scheme
from ..http.forwarding.origin import TrustedProxies
from ..http.middleware import RequestMiddleware
from ..http.policy import AccessPolicy
from ..http.public.readiness import Readiness
from ..http.rate_limit import FailedAuthLimiter
from ..http.request_cycle import MAX_BODY_BYTES
from ..http.responses import JSON, StaticResponse
from ..http.verification.introspection import introspection_at
from ..tools.catalogue import ToolCatalogue
from ..tools.definitions import ReadArguments
from .handlers import make_server
from .messages import MessageApp
from .notifications import ListChangeNotifier
from .questions.asking_calls import AskingCalls
from .questions.sessions import ClientSessions, QuestionApp
from .reply_streams import Pace, ReplyStreams
from .result_budget import ResultBudget, ResultBudgetApp
from .running_calls import CancellationApp
from .tool_calls import OnCall, RunJob, RunTask, ToolCalls
from .user_limits import UserLimits

_REMEMBERED_URLS = 64


def build_app(
    name: str,
    url: str,
    inventory: WorkerInventory,
    *,
    store: TokenLookup,
    catalogue: ToolCatalogue,
    run_task: RunTask,
    run_job: RunJob | None,
    read_arguments: ReadArguments,
    on_rejected: Callable[[str, str, str], object],
    readiness: Readiness,
    on_call: OnCall | None = None,
    proxies: TrustedProxies | None = None,
    pace: Pace | None = None,
    results: ResultBudget | None = None,
    session_key: bytes | None = None,
) -> RequestMiddleware:
    """Return the complete ASGI application of the worker `name`, whose MCP endpoint has the URL `url`.

    `run_task` runs a task of the worker itself, `read_arguments` returns what it would get, `run_job` runs one of other
    services; it is None without a broker, where the tools never change. `on_rejected` is called with address, reason
    and token of requests that authentication rejects, `on_call` after each tool call; `readiness` answers probes;
    `proxies`, `pace` and `results` replace the usual ones. Session ids are valid at all workers with one `session_key`.
    """
    notifier = None if run_job is None else ListChangeNotifier()
    asking = AskingCalls((requests := ActiveRequests()).track)
    calls = ToolCalls(
        name,
        catalogue,
        run_task=run_task,
        asking=asking,
        read_arguments=read_arguments,
        run_job=run_job,
        timeout=inventory.tools.timeout,
        limits=UserLimits(inventory.limits),
        on_call=on_call,
    )
    policy = replace(_access_policy(name, url, inventory, proxies, notifier), readiness=readiness)
    policy = _with_bearer_tokens(policy, url, inventory, store, on_rejected)
    manager = _session_manager(make_server(name, catalogue, calls, notifier))
    watches = [partial(requests.watch, store.on_revoked, policy.is_live)]
    watches += [partial(notifier.watch, catalogue)] if notifier is not None else []
    sessions = ClientSessions(secrets.token_bytes(32) if session_key is None else session_key)
    mcp = QuestionApp(CancellationApp(StreamableHTTPASGIApp(manager), calls.running), sessions, asking.questions)
    served = ReplyStreams(MessageApp(mcp), pace)
    app = _require_authentication(ResultBudgetApp(served, results or ResultBudget()), inventory)
    introspection = introspection_at(url, inventory, store.lookup, policy)
    lifespan, close = partial(_lifespan, manager, watches, asking), partial(_close_streams, asking, notifier)
    return RequestMiddleware(app, policy, requests, lifespan, close, introspection=introspection)


@asynccontextmanager
async def _lifespan(
    manager: StreamableHTTPSessionManager,
    watches: Iterable[Callable[[], AbstractContextManager[None]]],
    asking: AskingCalls,
) -> AsyncIterator[None]:
    async with manager.run(), AsyncExitStack() as entered:
        for watch in watches:
            entered.enter_context(watch())
        entered.push_async_callback(asking.close)
        yield


def _close_streams(asking: AskingCalls, notifier: ListChangeNotifier | None) -> None:
    asking.end_questions()
    if notifier is not None:
        notifier.close()


def _access_policy(
    name: str,
    url: str,
    inventory: WorkerInventory,
    proxies: TrustedProxies | None,
    notifier: ListChangeNotifier | None,
) -> AccessPolicy:
    """Return the policy without authentication."""
    return AccessPolicy(
        name,
        host_patterns(inventory, url),
        origin_patterns(inventory, url),
        shared_with=sharing_patterns(inventory, url),
        stream_app=None if notifier is None else _require_authentication(notifier, inventory),
        proxies=TrustedProxies(inventory.trusted_proxies) if proxies is None else proxies,
    )


def _session_manager(server: Server[Any]) -> StreamableHTTPSessionManager:
    # It logs a line at INFO for every request.
    logging.getLogger("mcp.server.streamable_http").setLevel(logging.WARNING)
    return StreamableHTTPSessionManager(
        server,
        json_response=True,
        stateless=True,
        # The middleware has checked Host and Origin; the SDK knows one notation of a host only.
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        max_request_body_size=MAX_BODY_BYTES,
    )


def _require_authentication(app: ASGIApp, inventory: WorkerInventory) -> ASGIApp:
    """Return an application that, with authentication, rejects callers that the middleware has not authenticated."""
    if not inventory.authentication_enabled:
        return app
    return AuthContextMiddleware(RequireAuthMiddleware(app, list(inventory.auth_bearer.required_scopes)))


def _with_bearer_tokens(
    policy: AccessPolicy,
    url: str,
    inventory: WorkerInventory,
    store: TokenLookup,
    on_rejected: Callable[[str, str, str], object],
) -> AccessPolicy:
    """Return a policy that requires the tokens of a store, unless the inventory wants none.

    Through a proxy, its metadata names the URL used there.
    """
    if not inventory.authentication_enabled:
        return policy
    bearer = inventory.auth_bearer
    limit = bearer.max_wrong_tokens_per_minute
    policy = replace(
        policy,
        required_scopes=bearer.required_scopes,
        is_live=lambda token: store.lookup(token) is not None,
        limiter=FailedAuthLimiter(limit) if limit else None,
        on_rejected=on_rejected,
    )

    @lru_cache(_REMEMBERED_URLS)
    def at_url(base_url: str) -> AccessPolicy:
        issuer, resource = bearer.metadata_urls(base_url)
        own = _with_metadata(policy, bearer, (issuer, resource), store)
        if not bearer.forward_auth:
            return own
        # A proxy's URL that isn't the worker's is that of the other server.
        protected = _with_metadata(policy, bearer, (issuer, base_url if resource is not None else None), store)
        is_own = f"{url}/".startswith(f"{base_url}/") or f"{resource}/".startswith(f"{base_url}/")
        first, second = (protected, own) if is_own else (own, protected)
        return replace(own, documents={**first.documents, **second.documents}, forward_auth=protected)

    direct = at_url(url)
    if direct.forward_auth is not None:
        # Which server a request is for that came through no proxy is not known.
        direct = replace(direct, forward_auth=_with_metadata(policy, bearer, (None, None), store))
    return replace(direct, at_url=at_url)


def _with_metadata(
    policy: AccessPolicy, bearer: AuthBearer, urls: tuple[str | None, str | None], store: TokenLookup
) -> AccessPolicy:
    """Return a policy whose scheme and metadata document name an issuer and a resource by their URLs, unless None."""
    documents, metadata_url = dict(policy.documents), None
    issuer, resource = urls
    if issuer is not None and resource is not None:
        scopes = list(bearer.required_scopes) or None
        metadata = ProtectedResourceMetadata.model_validate(  # RFC 9728
            {"resource": resource, "authorization_servers": [issuer], "scopes_supported": scopes}
        )
        location = build_resource_metadata_url(metadata.resource)
        metadata_url = str(location)
        body = metadata.model_dump_json(by_alias=True, exclude_none=True).encode()
        documents[location.path or ""] = StaticResponse(200, body, (JSON,))
    verifier = DiskcacheBearerTokenVerifier(store, bearer.token_scopes, resource)
    scheme = bearer_scheme(verifier.authenticate, bearer.required_scopes, metadata_url)
    return replace(policy, schemes=(scheme,), documents=documents)
