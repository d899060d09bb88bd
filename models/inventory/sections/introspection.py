"""The entries of `auth_bearer.introspection`: which resource servers may ask about tokens."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from ..types import HttpUrl, Kind, invalid_value, parse_list, parse_text, refusal
from .base import InventorySection

_MAX_GLOB_CHARACTERS = 256


def _parse_glob(value: Any) -> str:
    text = parse_text(value)
    if not 1 <= len(text) <= _MAX_GLOB_CHARACTERS or not text.isprintable():
        raise invalid_value(f"must be a user name or a glob, 1 to {_MAX_GLOB_CHARACTERS} printable characters", value)
    return text


def _not_empty(globs: tuple[str, ...]) -> tuple[str, ...]:
    if not globs:
        raise refusal("must name at least one user, whose token the resource server sends")
    return globs


UserGlobs = Annotated[
    tuple[Annotated[str, BeforeValidator(_parse_glob)], ...], BeforeValidator(parse_list), AfterValidator(_not_empty)
]
Resources = Annotated[tuple[HttpUrl, ...], BeforeValidator(parse_list)]


class ResourceServer(InventorySection):
    """Servers that may ask about tokens, and what tokens are valid for there."""

    users: Annotated[UserGlobs, Kind("list of user names and globs")] = Field(
        description="Users whose tokens resource servers send as their own credentials to ask at /introspect; * and ? "
        "stand for any characters"
    )
    resources: Annotated[Resources, Kind("list of URLs", "resource_server_url")] = Field(
        default=(), description="URLs of these servers, which answers name as the audience of a token"
    )

    def has(self, username: str) -> bool:
        """Whether tokens of a user are credentials of these servers."""
        return any(fnmatchcase(username, glob) for glob in self.users)
