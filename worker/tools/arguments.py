"""Validation of a call's arguments against the published schema of its tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ...models.patterns.bounded import Budget, BudgetExceeded
from ...models.tasks.base import fold_name
from .schemas import JOB_ARGUMENT
from .texts import clean_line, iter_mappings

if TYPE_CHECKING:
    from .validators import Problem, SchemaValidator

VALIDATION_SECONDS: Final = 1.0
MAX_PROBLEMS = 5
_NAME_CHARACTERS = 64

_RULES = {
    "additionalProperties": "must have no other keys than the schema's",
    "const": "must be the value that the schema names",
    "enum": "must be one of the values that the schema lists",
    "exclusiveMaximum": "must be less than {}",
    "exclusiveMinimum": "must be more than {}",
    "maxItems": "must have at most {} items",
    "maxLength": "must have at most {} characters",
    "maxProperties": "must have at most {} keys",
    "maximum": "must be at most {}",
    "minItems": "must have at least {} items",
    "minLength": "must have at least {} characters",
    "minProperties": "must have at least {} keys",
    "minimum": "must be at least {}",
    "multipleOf": "must be a multiple of {}",
    "pattern": "must match the pattern of the schema",
    "unevaluatedProperties": "must have no other keys than the schema's",
    "uniqueItems": "must not have equal items",
}


class ArgumentSchema:
    """The published schema of a tool's arguments; thread-safe. `names` are those that it declares.

    What checks arguments is made for the first call, and kept: listed tools are many, called ones few. Checking those
    of one call takes `seconds` at most, and one more step of a search in a long text.
    """

    def __init__(self, schema: Mapping[str, Any], *, seconds: float = VALIDATION_SECONDS) -> None:
        self._schema = schema
        self._seconds = seconds
        self.names = frozenset(schema.get("properties", {}))

    def with_other_names(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return arguments by all names that their fields may have, for rules that judge them.

        An argument that the schema doesn't declare may be the service's other name for a field that the call doesn't
        give: it is there under the names of all those too.
        """
        given = {fold_name(name) for name in arguments}
        declared = {fold_name(name) for name in self.names}
        others = [value for name, value in arguments.items() if fold_name(name) not in declared]
        if not others:
            return arguments
        return {**{name: others for name in self.names if fold_name(name) not in given}, **arguments}

    def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """Return why arguments aren't valid, or None: one line that names each argument and its rule, but no value.

        Arguments that can't be checked in time aren't valid. Patterns that Python's `re` or
        `models/patterns` refuse aren't checked: the service does that itself.
        """
        for name in arguments:
            if fold_name(name) == JOB_ARGUMENT and name not in self.names:
                return f"argument {name}: can't be given, the service sets it"
        validator = self._validator
        try:
            problems = validator.problems(dict(arguments), MAX_PROBLEMS, Budget(self._seconds))
        except BudgetExceeded as error:
            return f"the arguments were refused: checking them {error}"
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
            return "the arguments were refused: checking them is not possible"
        return "; ".join(dict.fromkeys(map(self._describe, problems))) or None

    @cached_property
    def _validator(self) -> SchemaValidator:
        # Saves workers 0.13 s of their start, and those without other services' tools for good.
        from .validators import SchemaValidator  # noqa: PLC0415

        return SchemaValidator(self._schema)

    @cached_property
    def _declared(self) -> frozenset[str]:
        return self.names | {name for part in iter_mappings(self._schema) for name in part.get("properties", ())}

    def _describe(self, problem: Problem) -> str:
        path, rule = list(problem.path), _rule(problem)
        if problem.keyword == "required":
            path.append(problem.name)
            rule = "must be given"
        elif problem.keyword == "additionalProperties" and not path:
            path.append(problem.name)
            rule = "no such argument, call tools/list for the arguments"
        # Keys that no schema names are part of the value.
        shown = str(path[0]) if path else ""
        for part in path[1:]:
            if isinstance(part, str) and part not in self._declared:
                break
            shown += f"[{part}]" if isinstance(part, int) else f".{part}"
        return f"argument {clean_line(shown, _NAME_CHARACTERS)}: {rule}" if shown else f"the arguments: {rule}"


def _rule(problem: Problem) -> str:
    if problem.keyword == "type":
        return f"must be {_alternatives([problem.wanted])}"
    if problem.keyword in {"anyOf", "oneOf"}:
        kinds = [each.get("type") if isinstance(each, dict) else None for each in problem.wanted]
        return f"must be {_alternatives(kinds)}" if all(kinds) else "must have one of the forms in the schema"
    text = _RULES.get(problem.keyword, "must be as the schema says")
    return text.format(json.dumps(problem.wanted)) if "{}" in text else text


def _alternatives(kinds: list[Any]) -> str:
    names = [name for kind in kinds for name in (kind if isinstance(kind, list) else [kind])]
    return " or ".join(dict.fromkeys(names))
