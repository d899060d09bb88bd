"""Arguments against the schema of their tool: what is refused, with which line, and how long that may take."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfcli.worker.tools.arguments import ArgumentSchema
from nfcli.worker.tools.schemas import input_schema
from nfcli.worker.tools.validators import MAX_DEPTH

SECRET = "s3cret"
ENDLESS = "(a|a)*[bc]"
ENDLESS_TEXT = "a" * 5_000
NUMBERS = range(30)


def published(properties: dict[str, Any] | None = None, *, seconds: float = 20, **keywords: Any) -> ArgumentSchema:
    """Return the published schema of a tool with these properties and other keywords."""
    schema = input_schema({"type": "object", "properties": properties or {}, **keywords})
    return ArgumentSchema(schema, seconds=seconds)


def chain(part: Any, end: Any) -> dict[str, Any]:
    """Return definitions of which each refers to the next one twice."""
    return {**{f"a{n}": part({"$ref": f"#/$defs/a{n + 1}"}) for n in NUMBERS}, f"a{len(NUMBERS)}": end}


@pytest.mark.parametrize(
    ("schema", "value", "rule"),
    [
        ({"type": "integer"}, "3", "must be integer"),
        ({"type": "integer"}, True, "must be integer"),
        ({"type": "integer"}, 3.5, "must be integer"),
        ({"type": ["integer", "null"]}, SECRET, "must be integer or null"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, SECRET, "must be integer or null"),
        ({"oneOf": [{"const": 1}, {"type": "null"}]}, SECRET, "must have one of the forms in the schema"),
        ({"enum": ["a", "b"]}, SECRET, "must be one of the values that the schema lists"),
        ({"const": "a"}, SECRET, "must be the value that the schema names"),
        ({"minimum": 3}, 2, "must be at least 3"),
        ({"maximum": 3.5}, 4, "must be at most 3.5"),
        ({"exclusiveMinimum": 3}, 3, "must be more than 3"),
        ({"exclusiveMaximum": 3}, 3, "must be less than 3"),
        ({"multipleOf": 5}, 3, "must be a multiple of 5"),
        ({"minLength": 7}, SECRET, "must have at least 7 characters"),
        ({"maxLength": 5}, SECRET, "must have at most 5 characters"),
        ({"pattern": "^[a-z]+$"}, SECRET, "must match the pattern of the schema"),
        ({"minItems": 2}, [SECRET], "must have at least 2 items"),
        ({"maxItems": 0}, [SECRET], "must have at most 0 items"),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], "must not have equal items"),
        ({"minProperties": 1}, {}, "must have at least 1 keys"),
        ({"maxProperties": 0}, {SECRET: 1}, "must have at most 0 keys"),
        ({"additionalProperties": False}, {SECRET: 1}, "must have no other keys than the schema's"),
        ({"unevaluatedProperties": False}, {SECRET: 1}, "must have no other keys than the schema's"),
        ({"propertyNames": {"maxLength": 3}}, {SECRET: 1}, "must have at most 3 characters"),
        ({"patternProperties": {"^s": {"type": "integer"}}}, {SECRET: SECRET}, "must be integer"),
        ({"not": {"type": "string"}}, SECRET, "must be as the schema says"),
        ({"$ref": "#/$defs/a%20b"}, SECRET, "must be integer"),
        (False, SECRET, "must be as the schema says"),
    ],
    ids=str,
)
def test_line_names_the_argument_and_its_rule_but_not_the_value(schema: Any, value: Any, rule: str) -> None:
    """Keys that the schema doesn't declare are part of the value."""
    checked = published({"count": schema}, **{"$defs": {"a b": {"type": "integer"}}})
    assert checked.problem({"count": value}) == f"argument count: {rule}"


def test_path_in_an_argument_has_declared_keys_only() -> None:
    """Indexes are shown; the rest of a path is a client's."""
    nested = {"type": "object", "properties": {"ports": {"items": {"type": "integer"}}}}
    checked = published({"device": {**nested, "additionalProperties": {"type": "integer"}}})
    assert checked.problem({"device": {"ports": [1, SECRET]}}) == "argument device.ports[1]: must be integer"
    assert checked.problem({"device": {SECRET: SECRET}}) == "argument device: must be integer"


def test_missing_and_unknown_arguments_are_named() -> None:
    """All on one line; invisible characters of a name are left out of it."""
    checked = published({"a": {}, "b": {}}, required=["a", "b"], additionalProperties=False)
    problem = checked.problem({"c\u200b\n": SECRET, "a": 1})
    assert problem is not None
    assert sorted(problem.split("; ")) == [
        "argument b: must be given",
        "argument c: no such argument, call tools/list for the arguments",
    ]
    assert checked.problem({"a": 1, "b": 2}) is None


@pytest.mark.parametrize("name", ["job", "Job", "JOB"])
def test_argument_job_is_the_service_s_own(name: str) -> None:
    """Workers of NorFab pass the job itself by that name; a tool whose schema declares another spelling has its own."""
    assert published({"target": {}}).problem({name: SECRET}) == f"argument {name}: can't be given, the service sets it"
    assert published({"Job": {}}).problem({"Job": 1}) is None


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 3.0),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ({"pattern": r"^\p{L}+$"}, "9"),
        ({"patternProperties": {r"\p{L}": False}, "additionalProperties": False}, {"a": 1}),
        ({"patternProperties": {"^a": {}}, "unevaluatedProperties": False}, {"b": 1}),
        ({"format": "email"}, "no address"),
        ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}]),
        ({"enum": [1.0]}, 1),
    ],
    ids=str,
)
def test_arguments_within_the_schema_pass(schema: Any, value: Any) -> None:
    """What can't be checked within limits is left to the service, and so are formats."""
    assert published({"count": schema}).problem({"count": value}) is None


def test_properties_named_like_keywords_are_checked() -> None:
    """They are names, wherever a keyword of that name would be dropped."""
    names = ("$schema", "unevaluatedItems", "enum", "properties")
    checked = published({name: {"type": "integer"} for name in names}, patternProperties={}, additionalProperties=False)
    for name in names:
        assert checked.problem({name: "1"}) == f"argument {name}: must be integer"
        assert checked.problem({name: 1}) is None


def test_older_dialects_have_their_own_rules() -> None:
    """In draft 4 an exclusive minimum is a flag."""
    draft = {"$schema": "http://json-schema.org/draft-04/schema#"}
    checked = published({"count": {"minimum": 3, "exclusiveMinimum": True}}, **draft)
    assert checked.problem({"count": 3}) is not None
    assert checked.problem({"count": 4}) is None


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": ENDLESS}, ENDLESS_TEXT),
        ({"patternProperties": {ENDLESS: {}}}, {ENDLESS_TEXT: 1}),
        ({"patternProperties": {ENDLESS: {}}, "additionalProperties": False}, {ENDLESS_TEXT: 1}),
        ({"patternProperties": {ENDLESS: {}}, "unevaluatedProperties": False}, {ENDLESS_TEXT: 1}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "pattern": ENDLESS}, ENDLESS_TEXT),
        ({"propertyNames": {"pattern": ENDLESS}}, {ENDLESS_TEXT: 1}),
        ({"$ref": "#/$defs/a0", "$defs": chain(lambda ref: {"allOf": [ref, ref]}, True)}, 1),
        ({"anyOf": [{"allOf": [False] * 5_000}]}, ["y" * 10] * 20_000),
        ({"items": {"type": "integer"}}, list(range(200_000))),
        (
            {
                "unevaluatedProperties": False,
                "dependentSchemas": {"x": {"$ref": "#/$defs/a0"}},
                "$defs": chain(lambda ref: {"dependentSchemas": {"x": ref, "y": ref}}, True),
            },
            {"x": 1, "y": 1},
        ),
    ],
    ids=[
        "pattern",
        "names",
        "other names",
        "unevaluated",
        "dialect",
        "own names",
        "references",
        "errors",
        "items",
        "dependent",
    ],
)
def test_arguments_that_take_too_long_to_check_are_refused(schema: dict[str, Any], value: Any) -> None:
    """Whatever a service's schema and a client's value do together."""
    definitions = schema.pop("$defs", {})
    checked = published({"x": schema}, seconds=0.05, **{"$defs": definitions})
    started = time.monotonic()
    assert checked.problem({"x": value}) == "the arguments were refused: checking them took longer than 0.05 s"
    assert time.monotonic() - started < 10


def test_arguments_that_cannot_be_checked_are_refused() -> None:
    """They are nested too deeply, or have a number with more digits than Python writes."""
    tree = {"type": "object", "properties": {"a": {"$ref": "#/$defs/tree"}}}
    checked = published({"x": {"$ref": "#/$defs/tree"}, "n": {"multipleOf": 7}}, **{"$defs": {"tree": tree}})
    nested: Any = {}
    for _ in range(MAX_DEPTH // 2 - 2):
        nested = {"a": nested}
    assert checked.problem({"x": nested}) is None
    for _ in range(10_000):
        nested = {"a": nested}
    for arguments in ({"x": nested}, {"x": nested["a"]}, {"n": 10**5_000}):
        assert checked.problem(arguments) == "the arguments were refused: checking them is not possible"
    while nested:  # taken apart by hand: Python's own way down would be too deep
        nested = nested.pop("a")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("a") | st.just(SECRET), inner, max_size=2),
    max_leaves=8,
)
_keywords = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["integer", "string", "object", "array", "null"]),
        "enum": st.lists(_json, max_size=2),
        "properties": st.dictionaries(st.just("a"), st.just({"type": "integer"}), max_size=1),
        "additionalProperties": st.booleans(),
        "items": st.just({"type": "integer"}),
        "uniqueItems": st.booleans(),
        "minimum": st.integers(-3, 3),
        "pattern": st.sampled_from(["^a", "s3"]),
    },
)


@settings(max_examples=200, deadline=None)
@given(_keywords, _json)
def test_no_line_has_a_value(schema: dict[str, Any], value: Any) -> None:
    """Property: whatever doesn't fit, the line names the argument, and no part of its value."""
    problem = published({"x": schema}).problem({"x": value})
    assert problem is None or (problem.startswith("argument x") and SECRET not in problem and "\n" not in problem)
