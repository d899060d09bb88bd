"""Guardrails of a tool: rules that refuse calls by their arguments, and rules that filter results.

Everything here is thread-safe and blocks no longer than a `Budget` allows.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from ...models.inventory.tool_policy import TaskGuardrail, TaskResultGuardrail
from ...models.patterns.bounded import Budget, BudgetExceeded, compile_pattern, compile_template
from ...models.protocol.jobs import Result
from ...models.tasks.base import fold_name
from .texts import Path, clean_line, free_name, iter_scalars, map_scalars, scalar_texts

log = logging.getLogger(__name__)

# Time for all guardrails of one call together, and for all of one result.
CALL_SECONDS: Final = 0.25
RESULT_SECONDS: Final = 1.0

_PATH_CHARACTERS = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_WITHHELD = "withheld by a guardrail"
WORKER_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FIELDS = frozenset(Result.model_fields)
_FLAGS = frozenset({"failed", "dry_run"})
_LISTS = frozenset({"errors", "messages", "resources", "resources_failed"})


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

        A rule judges every argument whose name is a spelling of its field's: in other letter case, with `-` for `_`.
        A call that can't be checked within `CALL_SECONDS` is refused. May block that long, and for one more step of a
        search in a long text.
        """
        budget = Budget(CALL_SECONDS)
        given = _Arguments(arguments)
        for guard in self._guardrails:
            name = _line(guard.rule.field)
            try:
                if any(guard.matches(text, budget) for text in given.texts(guard.rule.field)):
                    return f"refused by a guardrail on {name}: {_line(guard.rule.message) or 'not allowed'}"
            except BudgetExceeded as error:
                return f"refused by a guardrail on {name}: checking it {error}"
            except (RecursionError, ValueError):  # nested too deeply, or a number with more digits than str() allows
                return f"refused by a guardrail on {name}: checking it is not possible"
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
                    return self._replace_results(results, message)
                filtered = guard.filter(filtered, tool, budget)
        except (BudgetExceeded, RecursionError, ValueError) as error:
            reason = str(error) if isinstance(error, BudgetExceeded) else "is not possible"
            log.warning("result of tool %s withheld: checking it %s", tool, reason)
            return self._replace_results(results, f"the result of tool {tool} was withheld: checking it {reason}")
        return filtered

    def filter_text(self, tool: str, text: str) -> str:
        """Return a text that leaves without a result, such as the reason of a failure, as it may be sent."""
        filtered = self.filter_results(tool, {"": {"result": text}})
        (entry,) = filtered.values()
        return str(entry["result"])

    def _replace_results(self, results: Mapping[str, Any], message: str) -> dict[str, Any]:
        """Return results that have `message` as their only value; names and UUIDs are checked on their own."""
        heads: dict[str, Any] = {worker: {"juuid": _juuid(entry)} for worker, entry in results.items()}
        try:
            budget = Budget(CALL_SECONDS)
            for guard in self._result_guardrails:
                heads = guard.filter(heads, "", budget)
        except (BudgetExceeded, RecursionError, ValueError):
            heads = {
                worker if WORKER_NAME.fullmatch(worker) else f"worker {number}": {}
                for number, worker in enumerate(results, start=1)
            }
        return {
            worker: Result(result=message, juuid=head.get("juuid")).model_dump(mode="json")
            for worker, head in heads.items()
        }


class _Arguments:
    """The arguments of a call, by the names that rules may use for them."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._values: dict[str, list[Any]] = {}
        for name, value in arguments.items():
            self._values.setdefault(fold_name(name), []).append(value)
        self._texts: dict[str, list[str]] = {}

    def texts(self, field: str) -> list[str]:
        """Return the texts that rules about a field compare with."""
        name = fold_name(field)
        if name not in self._texts:
            values = self._values.get(name, ())
            self._texts[name] = list(dict.fromkeys(text for value in values for text in _argument_texts(value)))
        return self._texts[name]


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

    def filter(self, results: dict[str, Any], tool: str, budget: Budget) -> dict[str, Any]:
        """Return `{worker: Result}` with matches replaced or withheld, also in what can't be a worker's name."""
        if self.rule.type == "limit":
            return results
        filtered: dict[str, Any] = {}
        for worker, entry in results.items():
            name = worker if WORKER_NAME.fullmatch(worker) else self._filter_name(worker, budget)
            # Not a Result: check all of it.
            checked = self._filter_entry(entry if isinstance(entry, dict) else {"result": entry}, tool, budget)
            filtered[name if name == worker else free_name(name, {**results, **filtered})] = checked
        return filtered

    def _filter_name(self, name: str, budget: Budget) -> str:
        if self.rule.type == "replace":
            return self._replace(name, budget, {})
        return _WITHHELD if self._matches(name, budget) else name

    def _filter_entry(self, entry: dict[str, Any], tool: str, budget: Budget) -> dict[str, Any]:
        filtered: dict[str, Any] = {}
        replace = partial(self._replace_scalar, budget=budget, known={})
        for key, value in entry.items():
            name = key if key in _FIELDS else self._filter_name(str(key), budget)
            if name != key:
                name = free_name(name, {**entry, **filtered})
            if key in _FLAGS and isinstance(value, bool):
                filtered[name] = value
            elif self.rule.type == "replace":
                filtered[name] = map_scalars(value, replace)
            else:
                filtered[name] = self._withhold(name, value, tool, budget)
        return filtered

    def _replace_scalar(self, item: Any, budget: Budget, known: dict[str, str]) -> Any:
        """Return a string with matches replaced; a number or boolean stays unless a notation of it has a match."""
        if isinstance(item, str):
            return self._replace(item, budget, known)
        changed = ((text, self._replace(text, budget, known)) for text in scalar_texts(item))
        return next((new for text, new in changed if new != text), item)

    def _replace(self, text: str, budget: Budget, known: dict[str, str]) -> str:
        # Keys and values repeat a lot within a result.
        found = known.get(text)
        if found is None:
            found = text
            for pattern, template in zip(self._patterns, self._templates, strict=True):
                found = pattern.replace(template, found, budget)
            known[text] = found
        return found

    def _matches(self, text: str, budget: Budget) -> bool:
        return any(pattern.search(text, budget) for pattern in self._patterns)

    def _withhold(self, key: str, value: Any, tool: str, budget: Budget) -> Any:
        """Return the value of a field, or the notice that replaces it where a pattern matches."""
        known: set[str] = set()
        for path, item in iter_scalars(value):
            for text in scalar_texts(item):
                if text not in known and self._matches(text, budget):
                    log.warning("guardrail withheld %s of the result of tool %s", clean_line(key), tool)
                    message = self.rule.message or self._notice(key, path, budget)
                    return [message] if key in _LISTS else message
                known.add(text)
        return value

    def _notice(self, key: str, path: Path, budget: Budget) -> str:
        """Return the default notice: the path to the match, as far as the path itself has none."""
        notice = f"{_WITHHELD}: {_format_path(key, path)}"
        return _WITHHELD if self._matches(notice, budget) else notice


def _format_path(field: str, path: Path) -> str:
    parts: list[str] = []
    while path is not None:
        path, part = path
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part}")
    return clean_line(field + "".join(reversed(parts)), None)[:_PATH_CHARACTERS]


def _juuid(entry: Any) -> str | None:
    juuid = entry.get("juuid") if isinstance(entry, dict) else None
    return juuid if isinstance(juuid, str) else None


def _argument_texts(value: Any) -> Iterator[str]:
    """Yield the texts to compare with a guardrail: of each scalar at any depth, and of each outermost mapping."""
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
            yield from scalar_texts(item)


def _line(text: str) -> str:
    return clean_line(_CONTROL.sub(" ", text), None)
