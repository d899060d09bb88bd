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
