"""Validators for JSON Schemas of other services, within limits.

The schemas are other services', the values those of MCP clients, and both could make a validation last. Its time is
limited, regular expressions run as in `models/patterns`, and references never leave the schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from jsonschema import Draft4Validator, Draft6Validator, Draft7Validator, Draft201909Validator, Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from ...models.patterns.bounded import Budget, Pattern, PatternError, compile_pattern
from .schema_checks import DATA_KEYWORDS, DEFAULT_DIALECT, NAMED_SCHEMAS, dialect
from .texts import iter_mappings

_Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]

MAX_DEPTH = 100
"""How many keywords may be at work within each other. Compiled code resolves references: where Python's own limit is
reached in it, it raises what no handler of errors catches."""


@dataclass(slots=True)
class _Validation:
    """What is left of a validation's time, and how deep it is."""

    budget: Budget
    depth: int = 0


_validation: ContextVar[_Validation] = ContextVar("validation")


@dataclass(frozen=True)
class Problem:
    """Why a value isn't valid: where, by which keyword with which value, and the name it misses or doesn't allow."""

    path: tuple[str | int, ...]
    keyword: str
    wanted: Any
    name: str


class SchemaValidator:
    """Checks values against a schema that `schema_checks` accepts; thread-safe."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        has_patterns = any("patternProperties" in part for part in iter_mappings(schema))
        # A `$schema` within would bring the dialect's own keywords back, and for `unevaluated…` the library runs
        # patterns itself: both without limits.
        dropped = {"$schema", *(("unevaluatedItems", "unevaluatedProperties") if has_patterns else ())}
        self._validator = _VALIDATORS[dialect(schema)](_without(schema, dropped), registry=Registry())

    def problems(self, value: Any, limit: int, budget: Budget) -> list[Problem]:
        """Return up to `limit` problems of a value; none if it is valid.

        Raises:
            BudgetExceeded: checking takes too long.
            ArithmeticError, LookupError, RecursionError, TypeError, ValueError: checking is not possible.
        """
        _validation.set(_Validation(budget))
        return [_problem(error) for error in islice(self._validator.iter_errors(value), limit)]


def _problem(error: Any) -> Problem:
    name = ""
    if error.validator == "required":
        # The library reports each name by itself, in its text alone.
        name = next(each for each in error.validator_value if error.message == f"{each!r} is a required property")
    elif error.validator == "additionalProperties":
        name = next(_extra_properties(error.schema, error.instance))
    return Problem(tuple(error.absolute_path), str(error.validator), error.validator_value, name)


def _without(value: Any, dropped: set[str], *, has_names: bool = False) -> Any:
    """Return a copy of a schema without some keywords, `unevaluated…` last: what counts as evaluated is known then.

    `has_names`: the keys of `value` are names of properties or definitions, not keywords.
    """
    if isinstance(value, list):
        return [_without(each, dropped) for each in value]
    if not isinstance(value, dict):
        return value
    if has_names:
        # Of a property that is false the library's errors don't have the path.
        return {name: {"not": {}} if each is False else _without(each, dropped) for name, each in value.items()}
    kept = {
        key: each if key in DATA_KEYWORDS else _without(each, dropped, has_names=key in NAMED_SCHEMAS)
        for key, each in value.items()
        if key not in dropped
    }
    return dict(sorted(kept.items(), key=lambda item: item[0].startswith("unevaluated")))


def _limited(keyword: _Keyword, validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Run a keyword of a validator; each step of a validation is one, and each of its errors."""
    validation = _validation.get()
    validation.budget.seconds_left()
    if validation.depth == MAX_DEPTH:
        raise RecursionError
    validation.depth += 1
    try:
        for error in keyword(validator, value, instance, schema) or ():
            validation.budget.seconds_left()
            yield error
    finally:
        validation.depth -= 1


def _pattern_of(text: str) -> Pattern | None:
    """Return a compiled pattern, None for one that can't be run within limits."""
    try:
        return compile_pattern(text)
    except PatternError:
        return None


def _pattern(_validator: Any, text: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    pattern = _pattern_of(text) if isinstance(instance, str) else None
    if pattern is not None and not pattern.search(instance, _validation.get().budget):
        yield ValidationError("")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for text, subschema in patterns.items():
            pattern = _pattern_of(text)
            for name, value in instance.items():
                if pattern is not None and pattern.search(name, _validation.get().budget):
                    yield from validator.descend(value, subschema, path=name, schema_path=text)


def _additional_properties(validator: Any, rest: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for name in _extra_properties(schema, instance):
            if rest is False:
                yield ValidationError("")
                return
            yield from validator.descend(instance[name], rest, path=name)


def _extra_properties(schema: Any, instance: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names that neither `properties` nor `patternProperties` has; a pattern that can't run has any."""
    declared = schema.get("properties", {})
    patterns = [_pattern_of(text) for text in schema.get("patternProperties", ())]
    for name in instance:
        if name not in declared and not any(
            each is None or each.search(name, _validation.get().budget) for each in patterns
        ):
            yield name


def _unique_items(_validator: Any, is_unique: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if is_unique and isinstance(instance, list):
        texts = {json.dumps(_with_integers(item), sort_keys=True) for item in instance}
        if len(texts) < len(instance):
            yield ValidationError("")


def _with_integers(value: Any) -> Any:
    """Return a value whose equal numbers have one notation."""
    if isinstance(value, list):
        return [_with_integers(each) for each in value]
    if isinstance(value, dict):
        return {key: _with_integers(each) for key, each in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _validator_class(base: Any) -> Any:
    keywords: dict[str, Any] = dict(base.VALIDATORS)
    replaced = {
        "additionalProperties": _additional_properties,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "uniqueItems": _unique_items,
    }
    keywords.update({name: each for name, each in replaced.items() if name in keywords})
    return extend(base, {name: partial(_limited, keyword) for name, keyword in keywords.items()})


_VALIDATORS = {
    DEFAULT_DIALECT: _validator_class(Draft202012Validator),
    "https://json-schema.org/draft/2019-09/schema": _validator_class(Draft201909Validator),
    "http://json-schema.org/draft-07/schema": _validator_class(Draft7Validator),
    "http://json-schema.org/draft-06/schema": _validator_class(Draft6Validator),
    "http://json-schema.org/draft-04/schema": _validator_class(Draft4Validator),
}
