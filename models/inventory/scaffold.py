"""The files that `--create-env` writes. They load unchanged; each key that is commented out shows its default."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..environment.paths import DEFAULT_WORKER, INVENTORY_NAME, Environment
from ..environment.private_files import make_private_folder, open_private
from ..environment.trusted_files import verify_trusted
from ..errors import EnvironmentFolderError

STARTER_INVENTORY = """\
# nfcli environment: which workers there are and which of them run on this machine.
# The whole format: man page inventory

# Worker name, or a glob such as fastmcp-*, to the files that configure it. Files are merged in order, later ones win.
# A mapping may stand in place of a file name. Paths are relative to this file.
workers:
  fastmcp-worker-1:
    - fastmcp/fastmcp-worker-1.yaml

# What runs on this machine.
topology:
  workers:
    - fastmcp-worker-1
"""

STARTER_WORKER = """\
# Values may be taken from the environment, or from a file .env beside inventory.yaml:
# port: ${MCP_PORT:-8001}
service: fastmcp

# Where MCP clients connect: http://127.0.0.1:8001/mcp. Port 0 picks a free one, show fastmcp status tells which.
host: "127.0.0.1"
port: 8001

# Every MCP request needs a bearer token: fastmcp auth create-token username NAME
authentication_enabled: true

auth_bearer:
  # Lifetime in seconds of a token that is stored without expire; null means it never expires.
  token_ttl: null
  # Scopes a request must carry, and the scopes that every token stored here carries (the same, unless given).
  required_scopes: []
  # token_scopes: []

# Further names that this worker is reached by, for instance behind a proxy. All others are refused.
# allowed_hosts: [mcp.example.com]
# trusted_proxies: [127.0.0.1]
# allowed_origins: ["https://app.example.com"]
"""

_NO_HOSTS = "# allowed_hosts: [mcp.example.com]"

STARTER_TLS = """
# HTTPS with a certificate of a private CA: clients have to trust tls/ca.crt (man page mcp-clients). When the files
# change, running workers use the new ones. nfcli --renew-tls makes a new certificate.
tls:
  certfile: tls/server.crt
  keyfile: tls/server.key
"""


def create_environment(folder: Path, tls_names: Sequence[str] | None = None) -> Environment:
    """Write a commented inventory with one worker, authentication on, into `folder`, creating that if missing.

    Unless `tls_names` is None the worker serves HTTPS, by a certificate of a new CA for this machine's names and these,
    which clients may use in URLs.

    Raises:
        EnvironmentFolderError: one of the files exists already, other users could replace the folder (nothing is
            changed then), or a file can't be written.
        CertificateError: a name is not valid; nothing is changed then.
    """
    if tls_names is not None:
        from ..certificates import authority  # noqa: PLC0415  takes 0.1 s, which only TLS needs

        authority.verify_names(tls_names)
    try:
        folder = folder.expanduser().absolute()
        verify_trusted(folder)
        folder = folder.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, ~ of an unknown user
        reason = error.strerror if isinstance(error, OSError) else error
        raise EnvironmentFolderError(f"folder {folder} can't be created: {reason}") from error
    inventory_file = folder / INVENTORY_NAME
    worker_file = folder / "fastmcp" / f"{DEFAULT_WORKER}.yaml"
    tls_folder = folder / "tls"
    for file in (inventory_file, worker_file, *([] if tls_names is None else [tls_folder])):
        if os.path.lexists(file):
            raise EnvironmentFolderError(f"{file} exists already: nothing was changed, name another folder")
    make_private_folder(folder, parents=True, verify=False)
    make_private_folder(worker_file.parent, verify=False)
    worker = STARTER_WORKER
    if tls_names is not None:
        worker = worker.replace("http://127.0.0.1", "https://localhost") + STARTER_TLS
        if tls_names:
            worker = worker.replace(_NO_HOSTS, f"allowed_hosts: {json.dumps([*_as_hosts(tls_names)])}")
        try:
            authority.create_authority(tls_folder, [*authority.local_names(), *tls_names])
        except OSError as error:
            raise EnvironmentFolderError(
                f"{error.filename or tls_folder} can't be written: {error.strerror}"
            ) from error
    for file, text in ((worker_file, worker), (inventory_file, STARTER_INVENTORY)):
        try:
            with open_private(file, "x") as stream:
                stream.write(text)
        except OSError as error:
            raise EnvironmentFolderError(f"{file} can't be written: {error.strerror}") from error
    return Environment(folder=folder, inventory_file=inventory_file)


def _as_hosts(names: Iterable[str]) -> Iterator[str]:
    """Yield names of a certificate as they are in URLs: addresses of IPv6 in brackets."""
    for name in dict.fromkeys(names):
        try:
            yield f"[{name}]" if ipaddress.ip_address(name).version == 6 else name  # noqa: PLR2004
        except ValueError:
            yield name
