"""OAuth errors for MCP clients that, after a 401, look for an authorization server and register there.

Without these they show an empty error. The worker has no authorization server: its tokens are configured in clients.
"""

from __future__ import annotations

import json

from ..responses import JSON, NO_STORE, StaticResponse

REGISTRATION_PATH = "/register"
_WELL_KNOWN = ("oauth-authorization-server", "openid-configuration", "oauth-protected-resource")
# Where clients look that find no metadata of an authorization server (MCP 2025-03-26), or one only below the path.
PATHS = frozenset(
    {
        *(REGISTRATION_PATH, "/authorize", "/token"),
        *(f"/.well-known/{name}{path}" for name in _WELL_KNOWN for path in ("", "/mcp")),
        "/mcp/.well-known/openid-configuration",
    }
)
DESCRIPTION = (
    "this server has no OAuth: configure the header Authorization: Bearer TOKEN in the MCP client; its administrator "
    "makes a TOKEN with nfcli, fastmcp auth create-token username NAME"
)

# Not invalid_client or unauthorized_client, after which clients register again and again.
_BODY = json.dumps({"error": "access_denied", "error_description": DESCRIPTION}).encode()
_NOT_FOUND = StaticResponse(404, _BODY, (JSON, NO_STORE))
_REGISTRATION_REFUSED = StaticResponse(400, _BODY, (JSON, NO_STORE))  # RFC 7591 section 3.2.2


def oauth_error(method: str, path: str) -> StaticResponse | None:
    """Return the error for a request of the OAuth flow, None for any other path."""
    if path not in PATHS:
        return None
    return _REGISTRATION_REFUSED if (method, path) == ("POST", REGISTRATION_PATH) else _NOT_FOUND
