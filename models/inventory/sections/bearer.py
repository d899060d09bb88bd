"""The section `auth_bearer`: bearer tokens of one worker."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from ...fields import Duration
from ..types import Flag, HttpUrl, Kind, Scopes, WrongTokenLimit, parse_list
from .base import InventorySection
from .introspection import ResourceServer


class AuthBearer(InventorySection):
    """Bearer tokens of one worker. `token_ttl` is in seconds."""

    token_ttl: Annotated[Duration | None, Kind("whole seconds from 1, 12h, 30d, or null")] = Field(
        default=None, description="Lifetime of a token that is stored without expire; null: it never expires"
    )
    issuer_url: Annotated[HttpUrl | None, Kind("URL or null", "the worker's URL")] = Field(
        default=None,
        description="Issuer named in the protected-resource metadata; an explicit null publishes no metadata",
    )
    resource_server_url: Annotated[HttpUrl | None, Kind("URL or null", "the worker's URL")] = Field(
        default=None,
        description="Resource named in the protected-resource metadata; an explicit null publishes no metadata",
    )
    required_scopes: Annotated[Scopes, Kind("list of scopes")] = Field(
        default=(), description="Scopes that a request must carry; without them it gets 403 insufficient_scope"
    )
    token_scopes: Annotated[Scopes, Kind("list of scopes", "required_scopes")] = Field(
        default_factory=lambda data: data.get("required_scopes", ()),
        description="Scopes that every token stored here carries",
    )
    max_wrong_tokens_per_minute: Annotated[WrongTokenLimit, Kind("whole number from 0, or null")] = Field(
        default=10,
        description="Wrong tokens that an address may send within a minute; after more, its requests with a token get "
        "429. 0 or null sets no limit. Behind a reverse proxy all clients share one address, unless trusted_proxies "
        "names the proxy",
    )
    forward_auth: Annotated[Flag, Kind("true or false")] = Field(
        default=False,
        description="Whether reverse proxies in front of other servers may ask at /verify who sent a request: see man "
        "page other-servers",
    )
    introspection: Annotated[
        tuple[ResourceServer, ...], BeforeValidator(parse_list), Kind("list of mappings", "none")
    ] = Field(
        default=(),
        description="Resource servers that may ask about tokens at /introspect; the first entry that has a user "
        "counts: see man page other-servers",
    )

    def metadata_urls(self, worker_url: str) -> tuple[str | None, str | None]:
        """Return issuer and resource URL to publish; None publishes nothing.

        `worker_url` is any URL of the worker: its scheme, host and port replace a URL that isn't set.
        """
        parts = urlsplit(worker_url)
        base = f"{parts.scheme}://{parts.netloc}"
        return (
            self.issuer_url if "issuer_url" in self.model_fields_set else base,
            self.resource_server_url if "resource_server_url" in self.model_fields_set else base,
        )
