"""The command tree: one pydantic model for each command."""
