"""Rules for tools where there are none, for tests to override what they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class NoRules:
    """Rules where there are none: each task may be a tool, but for the one that runs commands; no tool has guards."""

    changes_results = False

    def is_allowed(self, service: str, task: str) -> bool:  # noqa: ARG002  where there are rules, they ask
        """Whether a task may be a tool."""
        return task != "run_shell_cmd"

    def is_named(self, service: str, task: str) -> bool:  # noqa: ARG002  the same
        """Whether a rule names a task."""
        return False

    def guards(self, service: str, task: str, mcp: Mapping[str, Any]) -> NoRules:  # noqa: ARG002  the same
        """Return that there are none."""
        return self

    def refusal(self, arguments: Mapping[str, Any]) -> str | None:  # noqa: ARG002  the same
        """Refuse nothing."""
        return None

    def apply(self, tool: str, results: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002  the same
        """Change nothing."""
        return dict(results)

    def entries(self) -> dict[str, list[dict[str, Any]]]:
        """Return that there are none."""
        return {}
