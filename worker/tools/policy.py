"""Policy of MCP tools: which tasks become tools, which calls are refused, how results are filtered.

Everything here is thread-safe and blocks no longer than a `Budget` allows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final

from ...models.errors import InventoryError, ToolRuleError
from ...models.inventory.merging import Source
from ...models.inventory.tool_policy import (
    DeclaredGuardrails,
    PolicyRule,
    TaskGuardrail,
    TaskResultGuardrail,
    ToolsInventory,
)
from ...models.inventory.validation import validate
from ...models.patterns.bounded import Budget, BudgetExceeded, compile_pattern, compile_template
from ...models.protocol.jobs import Result
from ...models.tasks.auth import is_token_task
from .schemas import DATA_FIELDS

log = logging.getLogger(__name__)

# Time for all guardrails of one call together, and for all of one result.
CALL_SECONDS: Final = 0.25
RESULT_SECONDS: Final = 1.0

_ONLY_BY_NAME = "run_shell_cmd"
_NAME_CHARACTERS = 200
_LINE_CHARACTERS = 1_000


class ToolPolicy:
    """The policy of an inventory, by default that every task becomes a tool; names are case-sensitive."""

    def __init__(self, tools: ToolsInventory | None = None) -> None:
        self._tools = tools or ToolsInventory()

    def is_allowed(self, service: str, task: str) -> bool:
        """Return whether a task may be a tool: the first rule that matches decides, without one it may.

        Tasks that manage tokens never may. A task that runs shell commands may only by a rule that names it and its
        service.
        """
        if is_token_task(task):
            return False
        if task == _ONLY_BY_NAME:
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


class ToolGuardrails:
    """The guardrails of one tool: some refuse calls by their arguments, others filter results, in the given order."""

    def __init__(self, guardrails: Iterable[TaskGuardrail], result_guardrails: Iterable[TaskResultGuardrail]) -> None:
        self._guardrails = tuple(_Guardrail(rule) for rule in guardrails)
        self._result_guardrails = tuple(_ResultGuardrail(rule) for rule in result_guardrails)
        self.has_argument_rules = bool(self._guardrails)
        self.has_result_rules = bool(self._result_guardrails)

    def entries(self) -> dict[str, list[dict[str, Any]]]:
        """Return the guardrails as JSON; those of the inventory include service and task."""
        return {
            "guardrails": [guard.rule.model_dump(mode="json") for guard in self._guardrails],
            "result_guardrails": [
                guard.rule.model_dump(mode="json", exclude_none=True) for guard in self._result_guardrails
            ],
        }

    def check_arguments(self, arguments: Mapping[str, Any]) -> str | None:
        """Return why a call with these arguments is refused, in one line without their values, or None.

        A call that can't be checked within `CALL_SECONDS` is refused. May block that long, and for one more step of a
        search in a long text.
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
                if any(guard.matches(text, budget) for text in texts[name]):
                    return f"refused by a guardrail on {_line(name)}: {_line(guard.rule.message) or 'not allowed'}"
            except BudgetExceeded as error:
                return f"refused by a guardrail on {_line(name)}: checking it {error}"
            except (RecursionError, ValueError):  # nested too deeply, or a number with more digits than str() allows
                return f"refused by a guardrail on {_line(name)}: checking it is not possible"
        return None

    def filter_results(self, tool: str, results: Mapping[str, Any]) -> dict[str, Any]:
        """Return `{worker: Result}` as it may be sent to the client; `results` isn't changed.

        Every worker keeps its entry. An entry whose result is omitted or withheld has the job's UUID and a line that
        says so, with the tool's name. Results that can't be checked within `RESULT_SECONDS` are withheld.
        """
        budget = Budget(RESULT_SECONDS)
        filtered = dict(results)
        try:
            for guard in self._result_guardrails:
                message = guard.size_problem(tool, filtered)
                if message is not None:
                    log.warning("result of tool %s left out: it is too large", tool)
                    return _replace_results(results, message)
                filtered = {worker: guard.filter(entry, tool, budget) for worker, entry in filtered.items()}
        except (BudgetExceeded, RecursionError, ValueError) as error:
            reason = str(error) if isinstance(error, BudgetExceeded) else "is not possible"
            log.warning("result of tool %s withheld: checking it %s", tool, reason)
            return _replace_results(results, f"the result of tool {tool} was withheld: checking it {reason}")
        return filtered


class _Guardrail:
    """A compiled rule about an argument."""

    def __init__(self, rule: TaskGuardrail) -> None:
        self.rule = rule
        self._patterns = [compile_pattern(text) for text in rule.match] if rule.type == "regex" else []
        self._words = [text.casefold() for text in rule.match]

    def matches(self, text: str, budget: Budget) -> bool:
        if self.rule.type == "regex":
            return any(pattern.search(text, budget) for pattern in self._patterns)
        budget.seconds_left()
        folded = text.casefold()
        if self.rule.type == "equals":
            return folded in self._words
        return any(word in folded for word in self._words)


class _ResultGuardrail:
    """A compiled rule about results."""

    def __init__(self, rule: TaskResultGuardrail) -> None:
        self.rule = rule
        texts, replacement = rule.match or (), rule.replace
        self._patterns = [compile_pattern(text) for text in texts]
        self._templates = [] if replacement is None else [compile_template(text, replacement) for text in texts]

    def size_problem(self, tool: str, results: Mapping[str, Any]) -> str | None:
        """Return the text that replaces results larger than the rule's limit, or None."""
        if self.rule.limit is None:
            return None
        text = json.dumps(results, separators=(",", ":"), ensure_ascii=False, default=str)
        size = len(text.encode("utf-8", "surrogatepass"))
        if size <= self.rule.limit:
            return None
        return self.rule.message or (
            f"the result of tool {tool} was left out: it has {size} bytes, {self.rule.limit} are allowed"
        )

    def filter(self, entry: Any, tool: str, budget: Budget) -> Any:
        """Return one worker's result with matches replaced or withheld."""
        if self.rule.type == "limit":
            return entry
        if not isinstance(entry, dict):  # not a Result: check all of it
            return self.filter({"result": entry}, tool, budget)
        if self.rule.type == "replace":
            replace = partial(self._replace, budget=budget, known={})
            return {key: map_strings(value, replace) if key in DATA_FIELDS else value for key, value in entry.items()}
        checked = {key: self._withhold(key, value, tool, budget) for key, value in entry.items() if key in DATA_FIELDS}
        return {**entry, **checked}

    def _replace(self, text: str, budget: Budget, known: dict[str, str]) -> str:
        # Keys and values repeat a lot within a result.
        found = known.get(text)
        if found is None:
            found = text
            for pattern, template in zip(self._patterns, self._templates, strict=True):
                found = pattern.replace(template, found, budget)
            known[text] = found
        return found

    def _withhold(self, key: str, value: Any, tool: str, budget: Budget) -> Any:
        """Return the value of a field, or the notice that replaces it where a pattern matches."""
        known: set[str] = set()
        for path, text in iter_strings(value):
            if text not in known and any(pattern.search(text, budget) for pattern in self._patterns):
                log.warning("guardrail withheld %s of the result of tool %s", key, tool)
                message = self.rule.message or f"withheld by a guardrail: {_format_path(key, path)}"
                return [message] if key in {"errors", "messages"} else message
            known.add(text)
        return value


# Path to an item of a nested value: the path to its container, and its key or index there; None for the value itself.
# Linked, because a tuple for each item would cost a copy a level.
Path = tuple[Any, str | int] | None


def iter_strings(value: Any) -> Iterator[tuple[Path, str]]:
    """Yield each string in a nested value, keys included, with its path; a key has the path of its mapping."""
    stack: list[tuple[Path, Any]] = [(None, value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, str):
            yield path, item
        elif isinstance(item, dict):
            yield from ((path, str(key)) for key in item)
            stack.extend(((path, str(key)), item[key]) for key in reversed(item))
        elif isinstance(item, (list, tuple)):
            stack.extend(((path, index), item[index]) for index in range(len(item) - 1, -1, -1))


def _format_path(field: str, path: Path) -> str:
    parts: list[str] = []
    while path is not None:
        path, part = path
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part}")
    return _line(field + "".join(reversed(parts)))[:_NAME_CHARACTERS]


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Return a nested value with all strings changed, keys included; keys that become equal get a number."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [map_strings(item, change) for item in value]
    if not isinstance(value, dict):
        return value
    changed: dict[str, Any] = {}
    for key, item in value.items():
        name = base = change(str(key))
        number = 1
        while name in changed:
            number += 1
            name = f"{base} ({number})"
        changed[name] = map_strings(item, change)
    return changed


def _replace_results(results: Mapping[str, Any], message: str) -> dict[str, Any]:
    """Return results that have `message` as their only value."""
    return {
        worker: Result(result=message, juuid=_juuid(entry)).model_dump(mode="json") for worker, entry in results.items()
    }


def _juuid(entry: Any) -> str | None:
    juuid = entry.get("juuid") if isinstance(entry, dict) else None
    return juuid if isinstance(juuid, str) else None


def _argument_texts(value: Any) -> Iterator[str]:
    """Yield the texts to compare with a guardrail: of each scalar at any depth, and of each outermost mapping.

    Booleans are written as in JSON and as in Python. An integral float is written with and without its fraction,
    because a task that expects an integer accepts it.
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
    """Return a text on one line without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
