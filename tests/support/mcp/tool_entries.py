"""Entries of `list_tasks`, as other services send them."""

from __future__ import annotations

from typing import Any

RESULT = {
    "$defs": {"Kind": {"enum": ["a", "b"], "type": "string"}},
    "title": "BoolResult",
    "type": "object",
    "properties": {"result": {"type": "boolean", "default": False}, "status": {"$ref": "#/$defs/Kind"}},
    "required": ["result"],
    "additionalProperties": False,
}


PROMPT = {
    "name": "look",
    "title": "Look",
    "description": "Look at it",
    "arguments": [{"name": "device", "description": "Which", "required": True}],
    "messages": [{"role": "user", "content": {"type": "text", "text": "Look at {{ device }}"}}],
}


def entry(name: object = "ping", **changes: Any) -> dict[str, Any]:
    """Return the `list_tasks` entry of a task."""
    return {
        "name": name,
        "description": "\n        Ping devices.\n\n        All of them.\n        ",
        "inputSchema": {"type": "object", "properties": {"target": {"type": "string"}}, "required": ["target"]},
        "outputSchema": RESULT,
        "fastapi": False,
        "mcp": {"annotations": {"title": "Ping", "readOnlyHint": True}},
        "agent": {},
        **changes,
    }
