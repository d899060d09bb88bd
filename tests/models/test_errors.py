"""Messages of validation errors: the rule in nfcli's words, and the value where it may be shown."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from nfcli.models.errors import validation_messages


class Typed(BaseModel):
    """What a user may type, a secret included."""

    count: Annotated[int, Field(ge=1, le=100)] = 1
    speed: float = 1.0
    mode: Literal["fast", "slow"] = "fast"
    name: Annotated[str, Field(min_length=2, max_length=4)] = "name"
    names: list[str] = []
    quiet: bool = False
    pin: Annotated[int, Field(repr=False)] = 0
    two_words: Annotated[int, Field(alias="two-words")] = 0


def refusals(field: str, value: object, typed: type[BaseModel] | None = None) -> list[str]:
    """Return the messages with which a field's value is refused."""
    with pytest.raises(ValidationError) as caught:
        Typed.model_validate({field: value})
    return validation_messages(caught.value, typed)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("count", "x", "must be a whole number"),
        ("count", None, "must be a whole number"),
        ("count", 1.5, "must be a whole number"),
        ("count", 0, "must be 1 or more"),
        ("count", 101, "must be 100 or less"),
        ("speed", "x", "must be a number"),
        ("mode", "x", "must be 'fast' or 'slow'"),
        ("name", "x", "must have 2 or more characters"),
        ("name", "xxxxx", "must have at most 4 characters"),
        ("names", "x", "must be a list"),
        ("quiet", "x", "must be true or false"),
    ],
)
def test_a_rule_is_named_without_the_value(field: str, value: object, rule: str) -> None:
    """A worker doesn't know whether an argument is secret."""
    assert refusals(field, value) == [f"{field}: {rule}"]


@pytest.mark.parametrize(("field", "quoted"), [("count", ", got 'x1'"), ("two-words", ", got 'x1'"), ("pin", "")])
def test_a_typed_value_is_quoted_unless_it_is_secret(field: str, quoted: str) -> None:
    """A field that its model doesn't print is secret."""
    assert refusals(field, "x1", Typed) == [f"{field}: must be a whole number{quoted}"]


def test_a_quoted_value_is_short_and_printable() -> None:
    """It is a part of one line."""
    assert refusals("count", "\x1b" + "x" * 100, Typed) == [f"count: must be a whole number, got '\\x1b{'x' * 39}'"]
