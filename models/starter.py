"""The files that `--create-env` writes; they load unchanged, and every key that is commented out shows its default."""

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
# allowed_origins: ["https://app.example.com"]
"""
