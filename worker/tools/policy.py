"""Policy of MCP tools: which tasks become tools, and with which guardrails. Thread-safe."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from ...models.errors import InventoryError, ToolRuleError
from ...models.inventory.merging import Source
from ...models.inventory.tool_policy import DeclaredGuardrails, PolicyRule, ToolsInventory
from ...models.inventory.validation import validate
from ...models.tasks.auth import is_token_task
from ...models.tasks.base import fold_name
from .guardrails import ToolGuardrails

_ONLY_BY_NAME = "run_shell_cmd"
_NAME_CHARACTERS = 200
_LINE_CHARACTERS = 1_000


class ToolPolicy:
    """The policy of an inventory, by default that every task becomes a tool; names are case-sensitive."""

    def __init__(self, tools: ToolsInventory | None = None) -> None:
        self._tools = tools or ToolsInventory()

    def is_allowed(self, service: str, task: str) -> bool:
        """Return whether a task may be a tool: the first rule that matches decides, without one it may.

        Tasks that manage tokens never may, whatever the spelling of their names. A task that runs shell commands may
        only by a rule that names it and its service.
        """
        if is_token_task(task):
            return False
        if fold_name(task) == _ONLY_BY_NAME:
            return self.is_named(service, task)
        return self._rule(service, task).action == "allow"

    def is_named(self, service: str, task: str) -> bool:
        """Return whether the first rule that matches allows a task by its name and its service's, not by a glob."""
        rule = self._rule(service, task)
        is_exact = rule.service == service and not set("*?[") & set(service) and task in rule.tasks
        return is_exact and rule.action == "allow"

    def _rule(self, service: str, task: str) -> PolicyRule:
        rules = self._tools.policy
        return next(
            (rule for rule in rules if any(_matches(rule.service, name, service, task) for name in rule.tasks)),
            PolicyRule(),
        )

    def guardrails(self, service: str, task: str, mcp: Mapping[str, Any]) -> ToolGuardrails:
        """Return the guardrails of a task's tool: those that its untrusted `mcp` declares, then the inventory's.

        Raises:
            ToolRuleError: a guardrail that the task declares is not valid; the tool must not be published.
        """
        tools = self._tools
        own = DeclaredGuardrails() if tools.disable_builtin_guardrails else _declared(service, task, mcp)
        return ToolGuardrails(
            [*own.guardrails, *(rule for rule in tools.guardrails if _matches(rule.service, rule.task, service, task))],
            [
                *own.result_guardrails,
                *(rule for rule in tools.result_guardrails if _matches(rule.service, rule.task, service, task)),
            ],
        )


def _matches(service_glob: str, task_glob: str, service: str, task: str) -> bool:
    """Return whether both globs match; a glob also matches itself literally, for names that contain its characters."""
    return (service == service_glob or fnmatchcase(service, service_glob)) and (
        task == task_glob or fnmatchcase(task, task_glob)
    )


def _declared(service: str, task: str, mcp: Mapping[str, Any]) -> DeclaredGuardrails:
    place = Source(f"task {task[:_NAME_CHARACTERS]!r} of service {service[:_NAME_CHARACTERS]!r}", ("mcp",))
    try:
        return validate(DeclaredGuardrails, dict(mcp), place)
    except InventoryError as error:
        raise ToolRuleError(f"{str(error)[:_LINE_CHARACTERS]}: not published as a tool") from None
