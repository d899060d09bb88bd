"""The inventory's `tls`, and keys of the reserved section `uvicorn` that only look as if they had an effect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ..types import Kind, refusal, summarize
from .base import InventorySection

_MAX_PATH_CHARACTERS = 4096

# Keys of `uvicorn` that have a key of nfcli's own; `uvicorn` itself is reserved and not used.
_OWN_KEYS = {
    "ssl": "tls",
    "ssl_certfile": "tls.certfile",
    "ssl_keyfile": "tls.keyfile",
    "ssl_ca_certs": "tls.client_ca",
    "ssl_cert_reqs": "tls.client_ca",
    "host": "host",
    "port": "port",
    "proxy_headers": "trusted_proxies",
    "forwarded_allow_ips": "trusted_proxies",
}


def _parse_file_name(value: Any) -> Path:
    if not isinstance(value, (str, Path)) or not str(value) or len(str(value)) > _MAX_PATH_CHARACTERS:
        raise refusal(f"must be the name of a file, got {summarize(value)}")
    if not str(value).isprintable():
        raise refusal("must be the name of a file without control characters")
    return Path(value)


FileName = Annotated[Path, BeforeValidator(_parse_file_name)]


class TlsInventory(InventorySection):
    """TLS of the MCP server. File names are relative to the inventory."""

    certfile: Annotated[FileName, Kind("name of a file")] = Field(
        description="The server's certificate in PEM format, followed by those of intermediate CAs"
    )
    keyfile: Annotated[FileName | None, Kind("name of a file", "certfile")] = Field(
        default=None, description="The certificate's private key in PEM format, not encrypted"
    )
    client_ca: Annotated[FileName | None, Kind("name of a file or null")] = Field(
        default=None,
        description="Certificates in PEM format of the CAs that clients need a certificate of, besides their token; "
        "null: clients need none",
    )

    def files(self, folder: Path) -> dict[str, Path]:
        """Return the files by their keys, relative ones below the inventory's `folder`."""
        named = {"certfile": self.certfile, "keyfile": self.keyfile, "client_ca": self.client_ca}
        return {key: folder / path for key, path in named.items() if path is not None}


def reserved_key_warnings(section: Mapping[str, Any]) -> list[str]:
    """Return a line for the keys of the section `uvicorn` that look as if they had an effect."""
    found = [key for key in section if isinstance(key, str) and (key in _OWN_KEYS or key.startswith("ssl_"))]
    if not found:
        return []
    names = ", ".join(f"uvicorn.{key}" for key in found[:4])
    remedy = ", ".join(dict.fromkeys(_OWN_KEYS.get(key, "tls") for key in found))
    return [f"the section uvicorn is not used, {names} {'has' if len(found) == 1 else 'have'} no effect: set {remedy}"]
