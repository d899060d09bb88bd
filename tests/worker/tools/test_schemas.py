"""Schemas that clients can't use are not published, and what is published has no invisible characters."""

from __future__ import annotations

from typing import Any

import pytest

from nfcli.models.errors import EntryError
from nfcli.worker.tools.schemas import input_schema, output_schema, plain_json

LOOP = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/loop"}]}
PARTS: list[tuple[Any, str]] = [
    ({"$dynamicRef": "#x"}, "a reference that doesn't resolve in it"),
    ({"$recursiveRef": "#"}, "a reference that doesn't resolve in it"),
    ({"$id": "https://other.example.com/"}, "a reference that doesn't resolve in it"),
    ({"$ref": "https://other.example.com/schema"}, "a reference that doesn't resolve in it"),
    ({"$ref": "#anchor"}, "a reference that doesn't resolve in it"),
    ({"$ref": "#/$defs/missing"}, "a reference that doesn't resolve in it"),
    ({"$ref": "#/$defs/loop"}, "a reference that leads back to itself"),
    ({"$ref": "#/x-text"}, "a part that is not a schema"),
    ({"$ref": "#/properties/hidden/default"}, "an unknown type"),
    ({"type": "any"}, "an unknown type"),
    ({"type": []}, "an unknown type"),
    ({"allOf": []}, "an invalid allOf"),
    ({"anyOf": {}}, "an invalid anyOf"),
    ({"oneOf": [7]}, "a part that is not a schema"),
    ({"not": 5}, "an invalid not"),
    ({"items": [{}]}, "an invalid items"),
    ({"properties": []}, "an invalid properties"),
    ({"patternProperties": {"a": 1}}, "a part that is not a schema"),
    ({"minimum": "3"}, "an invalid minimum"),
    ({"maximum": True}, "an invalid maximum"),
    ({"multipleOf": 0}, "an invalid multipleOf"),
    ({"minLength": -1}, "an invalid minLength"),
    ({"maxItems": 1.5}, "an invalid maxItems"),
    ({"uniqueItems": 1}, "an invalid uniqueItems"),
    ({"pattern": 5}, "an invalid pattern"),
    ({"description": {}}, "an invalid description"),
    ({"enum": "a"}, "an invalid enum"),
    ({"required": True}, "an invalid required"),
    ({"dependentRequired": {"a": 1}}, "an invalid dependentRequired"),
    ({"pattern": "a" * 20_001}, "more than 20000 characters of patterns"),
]


IN_PLACE = ("not", "if", "then", "else")
OTHER_SCHEMAS = (
    *("additionalItems", "additionalProperties", "contains", "contentSchema", "items", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
NAMED = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")


def with_part(part: Any) -> dict[str, Any]:
    """Return a schema that has `part` for one property, and what its reference leads to."""
    hidden = {"default": {"type": "bogus"}}
    return {"type": "object", "properties": {"a": part, "hidden": hidden}, "$defs": {"loop": LOOP}, "x-text": "x"}


@pytest.mark.parametrize(("part", "reason"), PARTS, ids=[str(part)[:40] for part, _ in PARTS])
def test_schema_that_clients_cannot_use_is_refused(part: Any, reason: str) -> None:
    """At any depth, and also where only a reference leads to it."""
    for schema in (part, {"anyOf": [{"items": part}]}, {"additionalProperties": part}):
        with pytest.raises(EntryError, match=f"^inputSchema has {reason}$"):
            input_schema(with_part(schema))


@pytest.mark.parametrize("keyword", [*IN_PLACE, *OTHER_SCHEMAS, *LISTS, *NAMED])
def test_schemas_under_every_keyword_are_checked(keyword: str) -> None:
    """What clients compile must be valid wherever it stands."""
    wrong = {"type": "any"}
    part: Any = [wrong] if keyword in LISTS else {"a": wrong} if keyword in NAMED else wrong
    with pytest.raises(EntryError, match=r"^inputSchema has an unknown type$"):
        input_schema(with_part({keyword: part}))


@pytest.mark.parametrize("keyword", [*IN_PLACE, "allOf", "anyOf", "oneOf"])
def test_reference_that_leads_back_by_any_keyword_is_refused(keyword: str) -> None:
    """Without a step into the value no client would come to an end."""
    back = {"$ref": "#/properties/a"}
    with pytest.raises(EntryError, match=r"^inputSchema has a reference that leads back to itself$"):
        input_schema(with_part({keyword: [back] if keyword in LISTS else back}))


@pytest.mark.parametrize("end", ["", "#"])
@pytest.mark.parametrize(
    "dialect",
    [
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-06/schema",
        "http://json-schema.org/draft-04/schema",
    ],
)
def test_known_dialects_are_published(dialect: str, end: str) -> None:
    """With an empty fragment too."""
    published = input_schema({"$schema": dialect + end, "type": "object", "properties": {"a": {"type": "string"}}})
    assert published["properties"] == {"a": {"type": "string"}}


def test_unknown_dialect_is_refused() -> None:
    """Clients would read it as the usual one."""
    with pytest.raises(EntryError, match="unknown \\$schema"):
        input_schema({"type": "object", "$schema": "https://example.com/dialect"})


@pytest.mark.parametrize("part", [part for part, _ in PARTS], ids=[str(part)[:40] for part, _ in PARTS])
def test_unusable_schema_of_results_is_replaced(part: Any) -> None:
    """By one that accepts every value."""
    schema = output_schema({**with_part(part), "properties": {"result": part}, "type": "object"})
    assert schema["additionalProperties"]["properties"]["result"] == {}


def test_recursive_schema_of_a_tree_is_published() -> None:
    """Its reference leads back to it only through a step into the value."""
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    schema = {"type": "object", "properties": {"tree": {"$ref": "#/$defs/tree"}}, "$defs": {"tree": tree}}
    assert input_schema(schema) == schema


def result_of(value: Any, **definitions: Any) -> Any:
    """Return the published schema of a task's value, whose `Result` has these definitions."""
    given = {"type": "object", "properties": {"result": value}, "$defs": definitions}
    return output_schema(given, "w1")["properties"]["w1"]["properties"]["result"]


def test_schema_of_results_has_no_references() -> None:
    """What they lead to stands in their places; one client drops `$defs` and then lists no tools."""
    point = {"title": "Point", "type": "object", "properties": {"title": {"title": "Title", "type": "string"}}}
    line = {"type": "array", "items": {"$ref": "#/$defs/point"}, "maxItems": 2}
    value = {"anyOf": [{"$ref": "#/$defs/line", "description": "From, to"}, {"type": "null"}], "title": "Line"}
    plain = {"type": "object", "properties": {"title": {"type": "string"}}}
    assert result_of(value, point=point, line=line) == {
        "anyOf": [{"type": "array", "items": plain, "maxItems": 2, "description": "From, to"}, {"type": "null"}]
    }


def test_keywords_beside_a_reference_apply_as_well() -> None:
    """Both have to hold."""
    value = {"$ref": "#/$defs/count", "minimum": 3, "properties": {"$ref": {"const": "$ref"}}}
    assert result_of(value, count={"type": "integer", "minimum": 1}) == {
        "anyOf": [
            {
                "minimum": 3,
                "properties": {"$ref": {"const": "$ref"}},
                "allOf": [{"type": "integer", "minimum": 1}],
            },
            {"type": "null"},
        ]
    }


def test_schema_of_results_without_an_end_accepts_every_value() -> None:
    """A tree, and what would become too long."""
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    assert result_of({"$ref": "#/$defs/tree"}, tree=tree) == {}
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    assert result_of({"$ref": "#/$defs/d0"}, **doubling, d30={"type": "string"}) == {}
    long = {"type": "object", "properties": {"x" * 1_000: {"type": "string"}}}
    assert result_of({"anyOf": [{"$ref": "#/$defs/long"}] * 100}, long=long) == {}
    deep = {f"d{n}": {"items": {"$ref": f"#/$defs/d{n + 1}"}} for n in range(100)}
    assert result_of({"$ref": "#/$defs/d0"}, **deep, d100={"type": "string"}) == {}


@pytest.mark.parametrize("is_loose", [False, True])
def test_schema_of_results_is_lean(is_loose: bool) -> None:
    """What callers need, as tools and their lists are read by models; guardrails may change all but `failed`."""
    lines = {} if is_loose else {"type": "array", "items": {"type": "string"}}
    value = {"type": "object", "properties": {"result": {"type": "string", "title": "Result"}, "juuid": {}}}
    assert output_schema(value, is_loose=is_loose) == {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {
                "result": {} if is_loose else {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "failed": {"type": "boolean"},
                "errors": lines,
                "messages": lines,
            },
        },
    }


def test_own_arguments_have_no_references() -> None:
    """Of this worker's tasks, plugins included; those of a tree keep theirs."""
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/b"}},
        "required": ["a"],
        "$defs": {"b": {"enum": ["x"], "title": "B"}},
    }
    assert input_schema(schema, is_own=True) == {
        "type": "object",
        "properties": {"a": {"enum": ["x"]}},
        "required": ["a"],
    }
    tree = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/b"}},
        "$defs": {"b": {"items": {"$ref": "#/$defs/b"}}},
    }
    assert input_schema(tree, is_own=True) == tree


def test_keywords_in_data_are_data() -> None:
    """Values of enum, const and the like, names of properties and unknown keywords may be anything."""
    schema = {
        "type": "object",
        "properties": {"$id": {"enum": [{"$ref": 7}]}, "type": {"const": {"type": "x"}, "x-more": {"type": "any"}}},
    }
    assert input_schema(schema) == schema


def test_strings_and_keys_lose_invisible_characters() -> None:
    """Everywhere in a schema; references lead where they did."""
    hidden = "\U000e0041\u202e\u200b\x1b"
    schema = {
        "type": "object",
        "title": f"T{hidden}",
        "properties": {
            f"a{hidden}": {"description": f"d{hidden}", "enum": [f"v{hidden}"], "default": f"v{hidden}"},
            "b": {"$ref": f"#/$defs/c{hidden}"},
        },
        "$defs": {f"c{hidden}": {"const": {f"k{hidden}": [f"x{hidden}"]}, "examples": [f"e{hidden}"]}},
    }
    assert input_schema(schema) == {
        "type": "object",
        "title": "T",
        "properties": {"a": {"description": "d", "enum": ["v"], "default": "v"}, "b": {"$ref": "#/$defs/c"}},
        "$defs": {"c": {"const": {"k": ["x"]}, "examples": ["e"]}},
    }


def test_keys_that_look_alike_are_refused() -> None:
    """One of them would be lost."""
    with pytest.raises(EntryError, match="keys that differ in invisible characters alone"):
        plain_json({"a": {"b": 1, "b\u200b": 2}}, "annotations")
