"""The command tree: one pydantic model a command."""
