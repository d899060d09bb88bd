"""Decide which tasks become MCP tools, which calls are refused and how results are filtered.

Nothing here blocks but for the time of a `Budget`, and everything may be called by several threads at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final

from ...models.errors import InventoryError, ToolRuleError
from ...models.inventory.merging import KeyPath, Source
from ...models.inventory.tool_policy import PolicyRule, TaskGuardrail, TaskResultGuardrail, TaskRules, ToolsInventory
from ...models.inventory.validation import validate
from ...models.patterns.bounded import Budget, BudgetExceeded, Pattern, Template, compile_pattern, compile_template
from ...models.protocol.jobs import Result
from ...models.tasks.auth import is_token_task

log = logging.getLogger(__name__)

# What all guardrails of a call, and all of a result, may take together.
CALL_SECONDS: Final = 0.25
RESULT_SECONDS: Final = 1.0

_ONLY_BY_NAME = "run_shell_cmd"
_GLOB = frozenset("*?[")
# The parts of a Result that can hold what a task came across.
_FIELDS = ("result", "diff", "errors", "messages")
_LISTS = ("errors", "messages")
_SHOWN_CHARACTERS = 200
_LINE_CHARACTERS = 1_000


class ToolRules:
    """The rules of an inventory. Services and tasks are told apart by letter case, as their names are.

    Args:
        tools: the inventory's `tools`, which has been checked.
    """

    def __init__(self, tools: ToolsInventory) -> None:
        self._tools = tools

    def is_allowed(self, service: str, task: str) -> bool:
        """Whether a task may be published, and called: what the first rule that matches says, yes without one.

        Never for tasks that manage tokens. A task that runs shell commands must be named, and so must its service, by
        the rule that allows it.
        """
        if is_token_task(task):
            return False
        if task == _ONLY_BY_NAME:
            return self.is_named(service, task)
        return self._rule(service, task).action == "allow"

    def is_named(self, service: str, task: str) -> bool:
        """Whether the first rule that matches allows a task by its own name and its service's, not by a glob."""
        rule = self._rule(service, task)
        is_exact = rule.service == service and not _GLOB & set(service) and task in rule.tasks
        return is_exact and rule.action == "allow"

    def _rule(self, service: str, task: str) -> PolicyRule:
        return next((rule for rule in self._tools.policy if _is_for(rule, service, task)), PolicyRule())

    def guards(self, service: str, task: str, mcp: Mapping[str, Any]) -> ToolGuards:
        """Return what guards a task's tool: the rules that the task brings along, then those of the inventory.

        Args:
            service: the task's service.
            task: its name.
            mcp: what the task says of itself, from its `list_tasks` entry; nothing in there is trusted.

        Raises:
            ToolRuleError: the task's own rules are none; the tool must then not be published.
        """
        own = TaskRules() if self._tools.disable_builtin_guardrails else _own_rules(service, task, mcp)
        tools = self._tools
        return ToolGuards(
            [*own.guardrails, *(rule for rule in tools.guardrails if _fits(rule.service, rule.task, service, task))],
            [
                *own.result_guardrails,
                *(rule for rule in tools.result_guardrails if _fits(rule.service, rule.task, service, task)),
            ],
        )


def _is_for(rule: PolicyRule, service: str, task: str) -> bool:
    return any(_fits(rule.service, name, service, task) for name in rule.tasks)


def _fits(service_glob: str, task_glob: str, service: str, task: str) -> bool:
    """Whether a task has these names; a glob also stands for itself, for names that have its characters in them."""
    return (service == service_glob or fnmatchcase(service, service_glob)) and (
        task == task_glob or fnmatchcase(task, task_glob)
    )


def _own_rules(service: str, task: str, mcp: Mapping[str, Any]) -> TaskRules:
    place = Source(f"task {_shown(task)} of service {_shown(service)}")

    def source(path: KeyPath) -> tuple[Source, KeyPath]:
        return place, ("mcp", *path)

    try:
        return validate(TaskRules, dict(mcp), source)
    except InventoryError as error:
        raise ToolRuleError(f"{str(error)[:_LINE_CHARACTERS]}: not published as a tool") from None


class ToolGuards:
    """What guards one tool.

    Args:
        guardrails: refuse calls.
        result_guardrails: act on results, in this order.
    """

    def __init__(self, guardrails: Iterable[TaskGuardrail], result_guardrails: Iterable[TaskResultGuardrail]) -> None:
        self._guardrails = tuple(_Guardrail(rule) for rule in guardrails)
        self._result_guardrails = tuple(_ResultGuardrail(rule) for rule in result_guardrails)

    @property
    def changes_results(self) -> bool:
        """Whether results may leave in another shape than the task gave them."""
        return bool(self._result_guardrails)

    def entries(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rules, JSON types only; those of the inventory say which service and task they are for."""
        return {
            "guardrails": [guard.rule.model_dump(mode="json") for guard in self._guardrails],
            "result_guardrails": [
                guard.rule.model_dump(mode="json", exclude_none=True) for guard in self._result_guardrails
            ],
        }

    def refusal(self, arguments: Mapping[str, Any]) -> str | None:
        """Return why a call with these arguments is refused, in one line without their values; None: it isn't.

        What can't be checked within `CALL_SECONDS` is refused. Takes that long at most, and what one step of a search
        in a long text takes on top.
        """
        budget = Budget(CALL_SECONDS)
        texts: dict[str, list[str]] = {}
        for guard in self._guardrails:
            name = guard.rule.field
            if name not in arguments:
                continue
            try:
                if name not in texts:
                    texts[name] = list(dict.fromkeys(_argument_texts(arguments[name])))
                if any(guard.refuses(text, budget) for text in texts[name]):
                    return f"refused by a guardrail on {_line(name)}: {_line(guard.rule.message) or 'not allowed'}"
            except BudgetExceeded as error:
                return f"refused by a guardrail on {_line(name)}: checking it {error}"
            except (RecursionError, ValueError):  # nested without end, a number of more digits than Python writes
                return f"refused by a guardrail on {_line(name)}: checking it is not possible"
        return None

    def apply(self, tool: str, results: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of `results`, each worker's `Result` as a mapping, may leave; `results` stay as they are.

        Every worker keeps its place. Of one whose result is left out or withheld, only the job's UUID is kept beside
        the line that says so. What can't be checked within `RESULT_SECONDS` is withheld.

        Args:
            tool: the tool's name, for these lines.
            results: what the workers answered, JSON types only.
        """
        budget = Budget(RESULT_SECONDS)
        delivered = dict(results)
        try:
            for guard in self._result_guardrails:
                message = guard.size_problem(tool, delivered)
                if message is not None:
                    log.warning("a guardrail left the result of tool %s out: it is too large", tool)
                    return _replaced(results, message)
                delivered = {worker: guard.changed(entry, tool, budget) for worker, entry in delivered.items()}
        except (BudgetExceeded, RecursionError, ValueError) as error:
            reason = str(error) if isinstance(error, BudgetExceeded) else "is not possible"
            log.warning("the result of tool %s was withheld: checking it %s", tool, reason)
            return _replaced(results, f"the result of tool {tool} was withheld: checking it {reason}")
        return delivered


class _Guardrail:
    """A rule that refuses calls, ready to be applied."""

    def __init__(self, rule: TaskGuardrail) -> None:
        self.rule = rule
        self._patterns = [compile_pattern(text) for text in rule.match] if rule.type == "regex" else []
        self._words = [text.casefold() for text in rule.match]

    def refuses(self, text: str, budget: Budget) -> bool:
        if self.rule.type == "regex":
            return any(pattern.search(text, budget) for pattern in self._patterns)
        budget.seconds_left()
        folded = text.casefold()
        if self.rule.type == "equals":
            return folded in self._words
        return any(word in folded for word in self._words)


class _ResultGuardrail:
    """A rule that acts on results, ready to be applied."""

    def __init__(self, rule: TaskResultGuardrail) -> None:
        self.rule = rule
        texts = rule.match or ()
        self._patterns: list[Pattern] = [compile_pattern(text) for text in texts]
        self._templates: list[Template] = (
            [] if rule.replace is None else [compile_template(text, rule.replace) for text in texts]
        )

    def size_problem(self, tool: str, results: Mapping[str, Any]) -> str | None:
        """Return what to say instead of results that are too large for a limit, None where they aren't."""
        if self.rule.limit is None:
            return None
        text = json.dumps(results, separators=(",", ":"), ensure_ascii=False, default=str)
        size = len(text.encode("utf-8", "surrogatepass"))
        if size <= self.rule.limit:
            return None
        said = f"the result of tool {tool} was left out: it has {size} bytes, {self.rule.limit} are allowed"
        return self.rule.message or said

    def changed(self, entry: Any, tool: str, budget: Budget) -> Any:
        """Return one worker's result as this rule lets it leave."""
        if self.rule.type == "limit":
            return entry
        if not isinstance(entry, dict):  # no Result: nothing in it is known to be harmless
            return self.changed({"result": entry}, tool, budget)
        if self.rule.type == "replace":
            replace = partial(self._replace, budget=budget, known={})
            return {key: _mapped(value, replace) if key in _FIELDS else value for key, value in entry.items()}
        changed = {key: self._withheld(key, value, tool, budget) for key, value in entry.items() if key in _FIELDS}
        return {**entry, **changed}

    def _replace(self, text: str, budget: Budget, known: dict[str, str]) -> str:
        # The same keys and values stand in a result again and again.
        found = known.get(text)
        if found is None:
            found = text
            for pattern, template in zip(self._patterns, self._templates, strict=True):
                found = pattern.replace(template, found, budget)
            known[text] = found
        return found

    def _withheld(self, key: str, value: Any, tool: str, budget: Budget) -> Any:
        known: set[str] = set()
        for path, text in _leaves(value):
            if text not in known and any(pattern.search(text, budget) for pattern in self._patterns):
                log.warning("a guardrail withheld a part of the result of tool %s: %s", tool, key)
                message = self.rule.message or f"withheld by a guardrail: {_path(key, path)}"
                return [message] if key in _LISTS else message
            known.add(text)
        return value


# A way down into a value: the way to what it is in, and the key or number there; None is the value itself.
_Way = tuple[Any, str | int] | None


def _leaves(value: Any) -> Iterator[tuple[_Way, str]]:
    """Yield each text in a value, keys included, and the way to it; to the mapping, for a key."""
    stack: list[tuple[_Way, Any]] = [(None, value)]
    while stack:
        way, item = stack.pop()
        if isinstance(item, str):
            yield way, item
        elif isinstance(item, dict):
            yield from ((way, str(key)) for key in item)
            stack.extend(((way, str(key)), item[key]) for key in reversed(item))
        elif isinstance(item, (list, tuple)):
            stack.extend(((way, index), item[index]) for index in range(len(item) - 1, -1, -1))


def _path(field: str, way: _Way) -> str:
    parts: list[str] = []
    while way is not None:
        way, part = way
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part}")
    return _line(field + "".join(reversed(parts)))[:_SHOWN_CHARACTERS]


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return `value` with all its texts changed, keys included; keys that become the same get a number."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [_mapped(item, change) for item in value]
    if not isinstance(value, dict):
        return value
    changed: dict[str, Any] = {}
    for key, item in value.items():
        name = base = change(str(key))
        number = 1
        while name in changed:
            number += 1
            name = f"{base} ({number})"
        changed[name] = _mapped(item, change)
    return changed


def _replaced(results: Mapping[str, Any], message: str) -> dict[str, Any]:
    """Return results that say nothing but `message`."""
    said = Result(result=message)
    return {
        worker: said.model_copy(update={"juuid": _juuid(entry)}).model_dump(mode="json")
        for worker, entry in results.items()
    }


def _juuid(entry: Any) -> str | None:
    juuid = entry.get("juuid") if isinstance(entry, dict) else None
    return juuid if isinstance(juuid, str) else None


def _argument_texts(value: Any) -> Iterator[str]:
    """Yield the texts that an argument stands for: of each scalar in it, at any depth, and of mappings as a whole.

    Values are written as JSON shows them and as Python does; a whole number with a point also without one, because a
    task that expects a whole number takes it for that.
    """
    stack = [(value, False)]
    while stack:
        item, is_inside = stack.pop()
        if isinstance(item, (list, tuple)):
            stack.extend((each, is_inside) for each in item)
        elif isinstance(item, Mapping):
            if not is_inside:
                yield str(item)
            stack.extend((each, True) for pair in item.items() for each in pair)
        elif item is not None:
            yield str(item)
            if isinstance(item, bool):
                yield str(item).lower()
            elif isinstance(item, float) and item.is_integer():
                yield str(int(item))


def _line(text: str) -> str:
    """Return a text in one line, without characters that a terminal acts on."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _shown(name: str) -> str:
    return repr(name[:_SHOWN_CHARACTERS])
