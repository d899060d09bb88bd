"""Token introspection (RFC 7662): a resource server asks about a token that it was sent.

It authenticates with a token of its own: as a bearer token, or with its user as the client id and the token as the
secret, by HTTP Basic or in the form. What it asks about is never a guess of the resource server, so that isn't counted.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_plus

from starlette.types import Receive, Scope, Send

from ....models.inventory.schema import WorkerInventory
from ....models.inventory.sections.introspection import ResourceServer
from ....models.tokens import BearerTokenRecord
from ...client_network import client_network
from ..authentication import check_lockout, delay_response, record_failure
from ..connections.protocol import mark_known
from ..forwarding.origin import RequestOrigin
from ..policy import AccessPolicy
from ..responses import JSON, NO_STORE, TOO_MANY_REQUESTS, Header, StaticResponse

log = logging.getLogger(__name__)

INTROSPECT_PATH = "/introspect"
SCOPE = "introspect"
MAX_FIELDS = 20
MAX_REMEMBERED = 1_000

_REMEMBERED_URLS = 64
_FORM = "application/x-www-form-urlencoded"


class Credentials(NamedTuple):
    """What a resource server authenticates with: a token, and its user unless that is None."""

    username: str | None
    token: str


class Form(NamedTuple):
    """The fields of a request's body; those that came more than once are in `repeated`."""

    fields: Mapping[str, str]
    repeated: frozenset[str]


def _error(status: int, error: str, description: str, *headers: Header, refusal: str = "") -> StaticResponse:
    """Return an error response in the form of OAuth (RFC 6749 section 5.2)."""
    body = json.dumps({"error": error, "error_description": description}).encode()
    return StaticResponse(status, body, (JSON, NO_STORE, *headers), refusal)


def _unauthenticated(refusal: str) -> StaticResponse:
    """Return the response to a server that hasn't authenticated: the same whatever is wrong."""
    return _error(
        401,
        "invalid_client",
        "send the token of a resource server, as a bearer token or with its user name as client id",
        (b"www-authenticate", b'Basic realm="introspection", charset="UTF-8"'),
        (b"www-authenticate", b"Bearer"),
        refusal=refusal,
    )


_NO_CREDENTIALS = _unauthenticated("no_token")
_WRONG_CREDENTIALS = _unauthenticated("invalid_token")
_NOT_PERMITTED = _error(
    403,
    "insufficient_scope",
    "tokens of this user may not ask about others: list it under auth_bearer.introspection in the worker's inventory",
    (b"www-authenticate", f'Bearer error="insufficient_scope", scope="{SCOPE}"'.encode()),
    refusal="insufficient_scope",
)
_POST_ONLY = _error(405, "invalid_request", "send a POST with the token in a form", (b"allow", b"POST"))
_NOT_A_FORM = _error(415, "invalid_request", f"send the token as {_FORM}")
_IN_URL = _error(400, "invalid_request", "send the token in the body: URLs are logged on their way")
_INVALID_FORM = _error(400, "invalid_request", f"the body is not a form of at most {MAX_FIELDS} fields in UTF-8")
_TWO_METHODS = _error(400, "invalid_request", "send the credentials in the header or in the form, not in both")
_ONE_TOKEN = _error(400, "invalid_request", "send one field token that is not empty")
_STORE_FAILED = _error(503, "temporarily_unavailable", "tokens cannot be checked at the moment; retry later")
_INACTIVE = StaticResponse(200, b'{"active": false}', (JSON, NO_STORE))


@dataclass(frozen=True)
class Introspection:
    """Answers resource servers. Belongs to the server's loop.

    `lookup` returns the record of a live token and raises where the store fails; every token has all `scopes`. The
    first of `servers` that has a user counts. `issuer` and `resource` are the worker's URLs, None where none is
    published. `policy` has the limit of wrong tokens and `on_rejected`.

    A locked-out address may go on with credentials that were accepted before: otherwise one client on the resource
    server's machine could have all its users refused. Others get 429 there even if they are right, so that the limit
    holds for guesses. `accepted` remembers the credentials.
    """

    lookup: Callable[[str], BearerTokenRecord | None]
    servers: Sequence[ResourceServer]
    scopes: Sequence[str]
    issuer: str | None
    resource: str | None
    policy: AccessPolicy
    accepted: dict[str, None] = field(default_factory=dict)

    def check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> StaticResponse | Introspection:
        """Return the response to a request whose body need not be read, else this object, which serves it."""
        credentials = _from_header(headers)
        is_form = _media_type(headers) == _FORM
        if credentials:
            found = self._authenticate(scope, credentials)
            if isinstance(found, StaticResponse):
                return found
        elif credentials is not None or scope["method"] != "POST" or not is_form:
            return _NO_CREDENTIALS if credentials is None else _WRONG_CREDENTIALS
        if scope["method"] != "POST":
            return _POST_ONLY
        return self if is_form else _NOT_A_FORM

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that has not been rejected; its body is the next message."""
        message = await receive()
        response = self._respond(scope, message.get("body", b""))
        if response.status == TOO_MANY_REQUESTS:
            await delay_response()
        await response.send(send)

    def _respond(self, scope: Scope, body: bytes) -> StaticResponse:
        credentials = _from_header(dict(scope["headers"]))
        form = _parse_form(body)
        if form is None:
            return _INVALID_FORM if credentials else _NO_CREDENTIALS
        if credentials is None:
            credentials = _from_form(form)
            if credentials is None:
                return _NO_CREDENTIALS
        elif "client_secret" in form.fields:
            return _TWO_METHODS
        # Also those of the header, once more: they may have been deleted while the body came.
        server = self._authenticate(scope, credentials)
        if isinstance(server, StaticResponse):
            return server
        if scope["query_string"]:
            return _IN_URL
        token = form.fields.get("token", "")
        return _ONE_TOKEN if not token or "token" in form.repeated else self._answer(server, token)

    def _authenticate(self, scope: Scope, credentials: Sequence[Credentials]) -> ResourceServer | StaticResponse:
        """Return the resource server whose credentials these are, by the first that is right; else what rejects it."""
        try:
            record = next(filter(None, map(self._find, credentials)), None)
        except Exception as error:  # noqa: BLE001  not a rejection
            return _store_failed(error)
        lockout = check_lockout(self.policy, client_network(_address(scope)))
        if lockout is not None and (record is None or record.token not in self.accepted):
            return self._reject(scope, "too many wrong tokens", credentials[0].token, lockout)
        if record is None:
            return self._reject(scope, "wrong token", credentials[0].token)
        server = next((server for server in self.servers if server.has(record.username)), None)
        if server is None:
            return self._reject(scope, "insufficient scope", record.token, _NOT_PERMITTED)
        self._remember(record.token)
        mark_known(scope)
        return server

    def _find(self, credentials: Credentials) -> BearerTokenRecord | None:
        record = self.lookup(credentials.token)
        return record if record is not None and credentials.username in {None, record.username} else None

    def _remember(self, token: str) -> None:
        self.accepted.pop(token, None)
        self.accepted[token] = None
        if len(self.accepted) > MAX_REMEMBERED:
            del self.accepted[next(iter(self.accepted))]

    def _reject(
        self, scope: Scope, reason: str, token: str, response: StaticResponse = _WRONG_CREDENTIALS
    ) -> StaticResponse:
        """Record a refused resource server, count it if its token is wrong, and return the response."""
        address = _address(scope)
        network = client_network(address)
        self.policy.on_rejected(address, reason, token)
        if response is not _WRONG_CREDENTIALS:
            return response
        record_failure(self.policy, network, token)
        return check_lockout(self.policy, network) or response

    def _answer(self, server: ResourceServer, token: str) -> StaticResponse:
        """Return what is known of a token (RFC 7662 section 2.2)."""
        try:
            record = self.lookup(token)
        except Exception as error:  # noqa: BLE001  a token that can't be checked is not inactive
            return _store_failed(error)
        if record is None:
            return _INACTIVE
        audience = server.resources or ((self.resource,) if self.resource is not None else ())
        claims = {
            "active": True,
            "scope": " ".join(self.scopes),
            "client_id": record.username,
            "username": record.username,
            "sub": record.username,
            "token_type": "Bearer",
            # Whole seconds; rounded up, as no server may refuse as expired what is active.
            "exp": None if record.expires is None else -int(-record.expires // 1),
            "iat": int(record.created),
            "aud": audience[0] if len(audience) == 1 else audience or None,
            "iss": self.issuer,
        }
        body = json.dumps({name: value for name, value in claims.items() if value is not None})
        return StaticResponse(200, body.encode(), (JSON, NO_STORE))


def introspection_at(
    url: str, inventory: WorkerInventory, lookup: Callable[[str], BearerTokenRecord | None], policy: AccessPolicy
) -> Callable[[RequestOrigin], Introspection] | None:
    """Return what answers resource servers of a worker at `url`, by where a request came from; None if none may ask.

    Through a proxy, issuer and resource are named by the URL used there, as in the worker's metadata.
    """
    bearer = inventory.auth_bearer
    if not inventory.authentication_enabled or not bearer.introspection:
        return None
    accepted: dict[str, None] = {}

    @lru_cache(_REMEMBERED_URLS)
    def at_url(base_url: str) -> Introspection:
        issuer, resource = bearer.metadata_urls(base_url)
        return Introspection(lookup, bearer.introspection, bearer.token_scopes, issuer, resource, policy, accepted)

    return lambda origin: at_url(origin.base_url if origin.proxy else url)


def _from_header(headers: Mapping[bytes, bytes]) -> list[Credentials] | None:
    """Return the credentials that the Authorization header may mean; empty if it has none, None without the header."""
    value = headers.get(b"authorization")
    if value is None:
        return None
    scheme, _, text = value.decode("latin-1").partition(" ")
    text = text.strip(" \t")
    if scheme.lower() == "bearer":
        return [Credentials(None, text)] if text else []
    return _from_basic(text) if scheme.lower() == "basic" else []


def _from_basic(text: str) -> list[Credentials]:
    """Return what HTTP Basic may mean: id and secret as they are, or encoded as RFC 6749 section 2.3.1 wants it."""
    try:
        username, colon, token = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return []
    if not colon or not token:
        return []
    plain, encoded = Credentials(username, token), Credentials(unquote_plus(username), unquote_plus(token))
    return [plain] if plain == encoded else [plain, encoded]


def _from_form(form: Form) -> list[Credentials] | None:
    """Return the credentials in a form, None without any."""
    username, token = form.fields.get("client_id"), form.fields.get("client_secret")
    if not token or username is None or form.repeated & {"client_id", "client_secret"}:
        return None
    return [Credentials(username, token)]


def _parse_form(body: bytes) -> Form | None:
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        return None
    names = [name for name, _ in pairs]
    return Form(dict(pairs), frozenset(name for name in names if names.count(name) > 1))


def _media_type(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip(" \t").lower()


def _address(scope: Scope) -> str:
    peer = scope.get("client")
    return str(peer[0]) if peer else ""


def _store_failed(error: Exception) -> StaticResponse:
    log.error("cannot check tokens: %s", type(error).__name__)
    return _STORE_FAILED
