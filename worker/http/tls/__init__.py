"""TLS of the MCP server: certificates and their reloading, and the handshake of a connection."""
