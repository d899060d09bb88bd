"""MCP: application, handlers, tool calls, notifications."""
