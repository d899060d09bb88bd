"""Text as it is typed, converted into what the JSON Schema of an argument asks for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from nfcli.models.commands.schemas.documents import holds_secret, is_secret_name, kinds, plain_line
from nfcli.models.commands.schemas.values import TypedValue

NULL = {"type": "null"}
TEXT, WHOLE, OBJECT = {"type": "string"}, {"type": "integer"}, {"type": "object"}
TEXTS = {"type": "array", "items": TEXT}


def value(schema: object, root: dict[str, Any] | None = None) -> TypedValue:
    """Return what may be typed for a schema."""
    return TypedValue([(schema, root or {})])


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        (TEXT, "12", "12"),
        (TEXT, "null", "null"),
        (WHOLE, "-12", -12),
        ({"type": "number"}, "3", 3),
        ({"type": "number"}, "1.5e3", 1500.0),
        ({"type": "boolean"}, "TRUE", True),
        ({"anyOf": [WHOLE, NULL]}, "null", None),
        ({"anyOf": [WHOLE, NULL]}, "7", 7),
        ({"type": ["integer", "null"]}, "7", 7),
        ({"enum": ["a", 1, True, None]}, "1", 1),
        ({"enum": ["a", 1, True, None]}, "true", True),
        ({"enum": ["a", 1, True, None]}, "null", None),
        ({"const": "only"}, "only", "only"),
        (TEXTS, "a,b , c", ["a", "b", "c"]),
        (TEXTS, '["a,b"]', ["a,b"]),
        ({"type": "array", "items": WHOLE}, "1,2", [1, 2]),
        ({"type": "array"}, "1,a", [1, "a"]),
        ({"type": "array", "items": OBJECT}, '[{"a": 1}]', [{"a": 1}]),
        (OBJECT, '{"a": [1, null]}', {"a": [1, None]}),
        ({"anyOf": [TEXT, TEXTS]}, "a,b", "a,b"),
        ({"anyOf": [TEXT, TEXTS]}, '["a"]', ["a"]),
        ({"anyOf": [TEXTS, TEXT]}, "a,b", ["a", "b"]),
        ({"anyOf": [TEXTS, TEXT]}, "vlan 1,2", "vlan 1,2"),
        ({"anyOf": [TEXTS, TEXT]}, "a,b\n c\n", "a,b\n c\n"),
        (TEXTS, "a,b\n c\n", ["a,b", " c"]),
        ({"anyOf": [TEXT, OBJECT]}, '{"a": 1}', {"a": 1}),
        ({"anyOf": [TEXT, OBJECT]}, "{a", "{a"),
        ({"anyOf": [TEXT, {"type": "boolean"}]}, "false", False),
        ({}, '{"a": 1}', {"a": 1}),
        ({}, "hello", "hello"),
        (True, "5", 5),
        ({"type": "oddity"}, "x", "x"),
        ({"allOf": [WHOLE]}, "4", 4),
    ],
)
def test_a_text_becomes_the_value_that_the_schema_accepts(schema: object, text: str, expected: object) -> None:
    """Types, alternatives, null, lists and JSON; what isn't understood takes JSON or text."""
    found = value(schema).convert(text)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("schema", "text", "message"),
    [
        (WHOLE, "1.5", "must be whole number, got '1.5'"),
        ({"type": "number"}, "1e999", "must be number, got '1e999'"),
        ({"type": "number"}, "nan", "must be number, got 'nan'"),
        ({"type": "boolean"}, "yes", "must be true or false, got 'yes'"),
        ({"enum": ["slow", "fast"]}, "slo", "must be 'slow' or 'fast', got 'slo'"),
        ({"type": "array", "items": WHOLE}, "1,x", "must be whole numbers separated by commas, got '1,x'"),
        (TEXTS, "[1", "must be texts separated by commas, got '[1'"),
        (OBJECT, "[1]", "must be JSON, got '[1]'"),
        (OBJECT, '{"a": NaN}', "must be JSON, got '{\"a\": NaN}'"),
        ({"type": "array", "items": OBJECT}, "a,b", "must be a list in JSON, got 'a,b'"),
        ({"type": "integer", "minimum": 2}, "1", "must be 2 or more, got '1'"),
        ({"anyOf": [{"type": "integer", "exclusiveMaximum": 2}, NULL]}, "2", "must be less than 2, got '2'"),
        ({"type": "string", "minLength": 3}, "ab", "must have 3 or more characters, got 'ab'"),
        ({"type": "string", "maxLength": 1}, "ab", "must have at most 1 characters, got 'ab'"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "A", "must match its pattern, got 'A'"),
        ({"type": "array", "items": TEXT, "maxItems": 1}, "a,b", "must have at most 1 items, got 'a,b'"),
        (WHOLE, "{x}\x1b[2J", "must be whole number, got '{x}\\x1b[2J'"),
    ],
)
def test_another_text_is_refused_with_the_rule(schema: object, text: str, message: str) -> None:
    """One line that says what is expected and quotes the text."""
    with pytest.raises(PydanticCustomError) as caught:
        value(schema).convert(text)
    assert caught.value.message() == message


def test_a_secret_is_never_quoted() -> None:
    """Not even when it breaks a rule."""
    secret = value({"type": "string", "format": "password", "minLength": 20})
    with pytest.raises(PydanticCustomError) as caught:
        secret.convert("hunter2")
    assert caught.value.message() == "must have 20 or more characters"


def test_references_are_resolved_and_loops_end() -> None:
    """Into the same schema only; what leads nowhere or in a circle accepts any value."""
    root = {
        "$defs": {
            "Mode": {"enum": ["a", "b"]},
            "Loop": {"$ref": "#/$defs/Loop"},
            "Many": {"anyOf": [{"$ref": "#/$defs/Many"}] * 10},
            "Tree": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
        }
    }
    assert value({"$ref": "#/$defs/Mode"}, root).choices == ("a", "b")
    for name in ("Loop", "Many", "Nothing"):
        assert value({"$ref": f"#/$defs/{name}"}, root).convert("x") == "x"
    assert value({"$ref": "#/$defs/Tree"}, root).convert("[[], [[]]]") == [[], [[]]]
    assert value({"$ref": "http://example.com/schema"}, root).convert("x") == "x"


def test_a_pattern_that_never_ends_is_left_to_the_worker() -> None:
    """So is one that can't be compiled: the prompt goes on in a moment."""
    text = "a" * 5_000 + "!"
    assert value({"type": "string", "pattern": "^(a|aa)+$"}).convert(text) == text
    assert value({"type": "string", "pattern": "(["}).convert("x") == "x"


@pytest.mark.parametrize(
    ("schema", "words", "is_switch", "is_list"),
    [
        ({"type": "boolean"}, "true or false", True, False),
        ({"anyOf": [{"type": "boolean"}, NULL]}, "true or false", True, False),
        ({"anyOf": [{"type": "boolean"}, TEXT]}, "true or false or text", False, False),
        (TEXTS, "texts separated by commas", False, True),
        ({"anyOf": [TEXT, TEXTS, NULL]}, "text or texts separated by commas", False, True),
        ({"type": "array", "items": OBJECT}, "a list in JSON", False, False),
        (OBJECT, "JSON", False, False),
        ({}, "JSON or text", False, False),
    ],
)
def test_help_says_what_may_be_typed(schema: object, words: str, is_switch: bool, is_list: bool) -> None:
    """In words that don't need JSON Schema to be understood."""
    found = value(schema)
    assert (found.words, found.is_switch, found.is_list) == (words, is_switch, is_list)


def test_choices_of_the_items_are_choices_of_a_list() -> None:
    """So that completion offers them behind each comma; odd ones aren't listed."""
    assert value({"type": "array", "items": {"enum": ["a", "b"]}}).choices == ("a", "b")
    assert value({"enum": ["a", "b\x1b[2J"]}).choices == ()
    assert value({"enum": [{"a": 1}]}).choices == ()


def test_versions_of_a_task_accept_what_each_of_them_does() -> None:
    """Workers of one service may differ."""
    merged = TypedValue([(WHOLE, {}), ({"$ref": "#/$defs/M"}, {"$defs": {"M": {"type": "string"}}})])
    assert (merged.convert("5"), merged.convert("x")) == (5, "x")


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *(
            ("password", True),
            ("api_key", True),
            ("bearerToken", True),
            ("enable-secret", True),
            ("userpassword", True),
        ),
        *(("monkey", False), ("keyboard", False), ("tokenize", False), ("username", False)),
    ],
)
def test_secrets_are_known_by_their_names(name: str, is_secret: bool) -> None:
    """By the words in it, however they are joined."""
    assert is_secret_name(name) is is_secret


def test_a_secret_in_an_object_is_found() -> None:
    """At any depth, through references, in bounded time."""
    root = {"$defs": {"Peer": {"type": "object", "properties": {"auth": {"properties": {"password": TEXT}}}}}}
    assert holds_secret([({"type": "array", "items": {"$ref": "#/$defs/Peer"}}, root)])
    assert not holds_secret([({"type": "object", "properties": {"name": TEXT}}, root)])
    assert kinds({"properties": {}}) == ["object"]


def test_a_foreign_text_is_one_short_visible_line() -> None:
    """Megabytes, controls and characters that nobody sees."""
    assert plain_line("a\n b\x1b[31mc\u200bd\u202e" + "x" * 1_000_000, 12) == "a b[31mcdxx…"
    assert plain_line(None, 10) == ""
