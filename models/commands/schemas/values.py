"""Convert text as it is typed into the JSON value that a task's schema asks for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ...fields import quote_value
from ..base import ValueType
from .documents import (
    ANY,
    MAX_CHOICES,
    MAX_DEPTH,
    NULL,
    Schema,
    Variant,
    alternatives,
    holds_secret,
    kinds,
    listed_values,
    value_text,
)

PATTERN_SECONDS = 0.2
_LISTED_CHOICES = 20
_CHOICE_CHARACTERS = 256
_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,300}\.?[0-9]{0,300}|\.[0-9]{1,300})(?:[eE][+-]?[0-9]{1,3})?")
_LIMITS: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda value, limit: value >= limit, "{limit} or more"),
    "maximum": (lambda value, limit: value <= limit, "{limit} or less"),
    "exclusiveMinimum": (lambda value, limit: value > limit, "more than {limit}"),
    "exclusiveMaximum": (lambda value, limit: value < limit, "less than {limit}"),
}
_WORDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "JSON"}
_BLANK = re.compile(r"\s")
_NO_VALUE = object()


class TypedValue(ValueType):
    """What may be typed for one argument of a task.

    `types` are the JSON types that its schema accepts, in the schema's order and without null, empty for any.

    Args:
        variants: the argument's schemas, one for each version of the task; a value may be of any.
        is_secret: values are not quoted in messages.
    """

    def __init__(self, variants: Sequence[Variant], *, is_secret: bool = False, depth: int = 0) -> None:
        parts = [part for schema, root in variants for part in alternatives(schema, root)]
        schemas = [part for part, _ in parts if isinstance(part, Mapping)]
        found = list(dict.fromkeys(kind for part in schemas for kind in kinds(part)))
        self.accepts_null = not found or NULL in found or ANY in found
        self.types = () if ANY in found else tuple(kind for kind in found if kind != NULL)
        self.is_secret = is_secret or (depth == 0 and holds_secret(variants))
        self._values = _listed(schemas)
        self.choices = tuple(map(value_text, self._values))
        others = [part for part in schemas if kinds(part) != [NULL]]
        self._rules: Schema = others[0] if len(others) == 1 and len(self.types) == 1 else {}
        arrays = [(part.get("items", {}), root) for part, root in parts if _is_array(part)]
        self._item = TypedValue(arrays, is_secret=True, depth=depth + 1) if arrays and depth < MAX_DEPTH else None
        self.is_list = "array" in self.types and self._item is not None and not self._has_nested_items()
        if self.is_list and self._item is not None and not self.choices:
            self.choices = self._item.choices
        self.is_switch = self.types == ("boolean",) and not self._values
        self.words = self._describe()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Have pydantic convert with `convert`."""
        return core_schema.no_info_plain_validator_function(self._convert_typed)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return a JSON Schema of the values, without what is nested in them."""
        found: dict[str, Any] = {"enum": list(self._values)} if self._values else {}
        types = [*self.types, *([NULL] if self.accepts_null and self.types else [])]
        return found | ({"type": types[0] if len(types) == 1 else types} if types else {})

    def convert(self, text: str) -> Any:
        """Return the value of a text.

        Raises:
            PydanticCustomError: the text is no such value; says what is expected, and quotes it unless it is a secret.
        """
        value = self._find(text)
        if value is _NO_VALUE:
            raise self._error(text, f"must be {self.words}")
        if problem := self._problem(value):
            raise self._error(text, problem)
        return value

    def _convert_typed(self, value: Any) -> Any:
        return self.convert(value) if isinstance(value, str) else value

    def _find(self, text: str) -> Any:
        if self._values:
            return self._choose(text)
        if text == NULL and self.accepts_null and self.types and "string" not in self.types:
            return None
        if not self.types:
            return _parse_json(text, default=text)
        found = (self._convert_to(kind, text) for kind in self._ordered_types())
        return next((value for value in found if value is not _NO_VALUE), _NO_VALUE)

    def _ordered_types(self) -> list[str]:
        """Return the types in the order in which a text is tried: any text is a string, so others come before."""
        earlier = [kind for kind in ("object", "boolean") if kind in self.types and "string" in self.types]
        return [*earlier, *(kind for kind in self.types if kind not in earlier)]

    def _convert_to(self, kind: str, text: str) -> Any:
        if kind == "string":
            # A list is the better reading of what is one in JSON, where the schema accepts lists as well.
            as_list = _parse_json(text, list) if "array" in self.types else _NO_VALUE
            return text if as_list is _NO_VALUE else as_list
        if kind == "boolean":
            return {"true": True, "false": False}.get(text.lower(), _NO_VALUE)
        if kind == "integer":
            return int(text) if _INTEGER.fullmatch(text) else _NO_VALUE
        if kind == "number":
            return _number(text)
        return self._split(text) if kind == "array" else _parse_json(text, dict)

    def _split(self, text: str) -> Any:
        as_list = _parse_json(text, list)
        if as_list is not _NO_VALUE or self._has_nested_items() or self._item is None or text.startswith("["):
            return as_list
        if "string" in self.types and _BLANK.search(text):
            return _NO_VALUE  # `vlan 1,2` and the lines of a configuration are one text
        parts = text.splitlines() if "\n" in text else [part.strip() for part in text.split(",")]
        items = [self._item._find(part) for part in parts]  # noqa: SLF001  the class's own
        return _NO_VALUE if _NO_VALUE in items else items

    def _choose(self, text: str) -> Any:
        chosen = [value for value in self._values if value_text(value) == text]
        return chosen[0] if chosen else _NO_VALUE

    def _has_nested_items(self) -> bool:
        return self._item is not None and bool({"object", "array"} & set(self._item.types))

    def _describe(self) -> str:
        if self._values:
            shown = [f"'{value[:_CHOICE_CHARACTERS]}'" for value in self.choices[:_LISTED_CHOICES]]
            more = [f"one of {len(self.choices) - len(shown)} others"] if len(self.choices) > len(shown) else []
            return " or ".join(part for part in (", ".join([*shown, *more][:-1]), [*shown, *more][-1]) if part)
        if not self.types:
            return "JSON or text"
        named = {kind: _WORDS.get(kind, kind) for kind in self.types}
        if "array" in named:
            named["array"] = f"{self._item_words()} separated by commas" if self.is_list else "a list in JSON"
        return " or ".join(dict.fromkeys(named.values()))

    def _item_words(self) -> str:
        kinds_of_items = self._item.types if self._item is not None and not self._item.choices else ()
        plural = {"string": "texts", "integer": "whole numbers", "number": "numbers"}
        return plural.get(kinds_of_items[0] if len(kinds_of_items) == 1 else "", "values")

    def _problem(self, value: Any) -> str:
        """Return the rule of the schema that a value breaks, empty if none."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            limits = ((self._rules.get(key), *rule) for key, rule in _LIMITS.items())
            broken = (words.format(limit=limit) for limit, holds, words in limits if _breaks(limit, holds, value))
            return next((f"must be {words}" for words in broken), "")
        if isinstance(value, str):
            return self._text_problem(value)
        if isinstance(value, list):
            return _count_problem(len(value), self._rules.get("minItems"), self._rules.get("maxItems"), "items")
        return ""

    def _text_problem(self, text: str) -> str:
        limits = self._rules.get("minLength"), self._rules.get("maxLength")
        problem = _count_problem(len(text), *limits, "characters")
        pattern = self._rules.get("pattern")
        return problem or (
            "" if not isinstance(pattern, str) or _may_match(pattern, text) else "must match its pattern"
        )

    def _error(self, text: str, problem: str) -> PydanticCustomError:
        # As values of the context: braces in them must stay.
        if self.is_secret:
            return PydanticCustomError("task_argument", "{problem}", {"problem": problem})
        return PydanticCustomError(
            "task_argument", "{problem}, got {value}", {"problem": problem, "value": _quote(text)}
        )


def _quote(text: str) -> str:
    return repr(quote_value(text)) if text.isprintable() and text else quote_value(text)


def _is_array(part: object) -> bool:
    return isinstance(part, Mapping) and "array" in kinds(part)


def _listed(schemas: Sequence[Schema]) -> list[Any]:
    """Return the values that the schemas list; none if one of them, null aside, accepts others."""
    found: dict[tuple[type, str], Any] = {}
    for part in schemas:
        values = listed_values(part)
        if not values and kinds(part) != [NULL]:
            return []
        found |= {(type(value), value_text(value)): value for value in values}
    scalars = [value for value in found.values() if _is_choice(value)]
    return scalars[:MAX_CHOICES] if len(scalars) == len(found) else []


def _is_choice(value: Any) -> bool:
    text = value_text(value) if not isinstance(value, dict | list) else ""
    return 0 < len(text) <= _CHOICE_CHARACTERS and text.isprintable()


def _breaks(limit: object, holds: Callable[[Any, Any], bool], value: float) -> bool:
    is_number = isinstance(limit, int | float) and not isinstance(limit, bool) and math.isfinite(limit)
    return is_number and not holds(value, limit)


def _count_problem(count: int, least: object, most: object, what: str) -> str:
    if type(least) is int and count < least:
        return f"must have {least} or more {what}"
    return f"must have at most {most} {what}" if type(most) is int and count > most else ""


def _may_match(pattern: str, text: str) -> bool:
    """Whether a foreign pattern matches; true where it can't be used or takes too long, as the worker will tell."""
    from ...patterns.bounded import Budget, BudgetExceeded, PatternError, compile_pattern  # noqa: PLC0415  loads regex

    try:
        return compile_pattern(pattern).search(text, Budget(PATTERN_SECONDS))
    except (PatternError, BudgetExceeded):
        return True


def _parse_json(text: str, kind: type | None = None, default: Any = _NO_VALUE) -> Any:
    """Return what a JSON text holds; `default` if it is not JSON, or holds something else than `kind`."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return default
    return default if kind is not None and not isinstance(value, kind) else value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _number(text: str) -> Any:
    if _INTEGER.fullmatch(text):
        return int(text)
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else _NO_VALUE
