"""Policy of MCP tools: which tasks become tools, for whom, and with which guardrails. Thread-safe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...models.errors import InventoryError, ToolRuleError
from ...models.inventory.merging import Source
from ...models.inventory.tool_policy import DeclaredGuardrails, PolicyRule, ToolsInventory
from ...models.inventory.validation import validate
from ...models.patterns.globs import matches_glob
from ...models.tasks.auth import is_token_task
from ...models.tasks.base import fold_name
from .guardrails import ToolGuardrails

_ONLY_BY_NAME = "run_shell_cmd"
_NAME_CHARACTERS = 200
_LINE_CHARACTERS = 1_000


class ToolUser(NamedTuple):
    """The authenticated user of an MCP request, and the scopes of the token."""

    name: str
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _UserRule:
    """A rule for some users only: those that match one of the globs `users`, and have one of `scopes`."""

    users: tuple[str, ...] | None
    scopes: tuple[str, ...] | None
    allows: bool

    def applies_to(self, user: ToolUser) -> bool:
        is_named = self.users is None or any(matches_glob(glob, user.name) for glob in self.users)
        return is_named and (self.scopes is None or not user.scopes.isdisjoint(self.scopes))


@dataclass(frozen=True)
class ToolAccess:
    """Who may use a tool: the first of `rules` that applies to a user decides, without one `default` does."""

    rules: tuple[_UserRule, ...] = ()
    default: bool = True

    def allows(self, user: ToolUser | None) -> bool:
        """Return whether a user may; None is everybody where there is no authentication."""
        if user is None:
            return self.default
        return next((rule.allows for rule in self.rules if rule.applies_to(user)), self.default)

    @property
    def is_for_nobody(self) -> bool:
        """Whether no rule allows it to anybody."""
        return not self.default and not any(rule.allows for rule in self.rules)


_NOBODY = ToolAccess(default=False)


class ToolPolicy:
    """The policy of an inventory, by default that every task becomes a tool; names are case-sensitive."""

    def __init__(self, tools: ToolsInventory | None = None) -> None:
        self._tools = tools or ToolsInventory()

    def access(self, service: str, task: str, *, is_only_by_name: bool = False) -> ToolAccess:
        """Return who may use a task as a tool: the first rule that matches decides, without one everybody may.

        Nobody may use tasks that manage tokens, whatever the spelling of their names. One that runs shell commands, and
        each one where `is_only_by_name`, may be used by a rule alone that names it and its service.
        """
        if is_token_task(task):
            return _NOBODY
        is_only_by_name = is_only_by_name or fold_name(task) == _ONLY_BY_NAME
        rules: list[_UserRule] = []
        default = not is_only_by_name
        for rule in self._rules(service, task):
            allows = rule.action == "allow" and (not is_only_by_name or _names(rule, service, task))
            if rule.users is None and rule.scopes is None:
                default = allows
                break
            rules.append(_UserRule(rule.users, rule.scopes, allows))
        is_same_for_all = all(rule.allows == default for rule in rules)
        return ToolAccess(() if is_same_for_all else tuple(rules), default)

    def is_named(self, service: str, task: str) -> bool:
        """Return whether a rule that decides allows a task by its name and its service's, not by a glob."""
        return not self.access(service, task, is_only_by_name=True).is_for_nobody

    def _rules(self, service: str, task: str) -> Iterator[PolicyRule]:
        for rule in self._tools.policy:
            if any(_matches(rule.service, name, service, task) for name in rule.tasks):
                yield rule

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


def _names(rule: PolicyRule, service: str, task: str) -> bool:
    """Return whether a rule names a service and a task literally."""
    return rule.service == service and not set("*?[") & set(service) and task in rule.tasks


def _matches(service_glob: str, task_glob: str, service: str, task: str) -> bool:
    return matches_glob(service_glob, service) and matches_glob(task_glob, task)


def _declared(service: str, task: str, mcp: Mapping[str, Any]) -> DeclaredGuardrails:
    place = Source(f"task {task[:_NAME_CHARACTERS]!r} of service {service[:_NAME_CHARACTERS]!r}", ("mcp",))
    try:
        return validate(DeclaredGuardrails, dict(mcp), place)
    except InventoryError as error:
        raise ToolRuleError(f"{str(error)[:_LINE_CHARACTERS]}: not published as a tool") from None
