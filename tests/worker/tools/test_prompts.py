"""Prompts of other services: what their templates may do, and that no arguments make them do more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.errors import PromptError
from nfcli.worker.tools import prompts
from nfcli.worker.tools.prompts import PromptTemplate

ARGUMENTS = [
    {"name": "device", "description": "Device to look at", "required": True},
    {"name": "site", "description": "Where it stands", "required": False},
]


def declared(text: str = "Look at {{ device }}", **changes: Any) -> dict[str, Any]:
    """Return a prompt's metadata in NorFab's shape."""
    message = {"role": "user", "content": {"type": "text", "text": text}}
    prompt = {"name": "look", "title": "Look", "description": "Look at it", "arguments": ARGUMENTS}
    return {**prompt, "messages": [message], **changes}


def render(text: str, **arguments: object) -> str:
    """Return the text of a prompt's only message."""
    ((role, rendered),) = PromptTemplate(declared(text)).render({"device": "r1", **arguments})
    assert role == "user"
    return rendered


def refusal(text: str, **arguments: object) -> str:
    """Return why a prompt can't be made or rendered."""
    with pytest.raises(PromptError) as caught:
        render(text, **arguments)
    return str(caught.value)


def test_a_prompt_keeps_what_it_says_of_itself_and_renders_each_message() -> None:
    """In the order of the messages, each with its role."""
    messages = [
        {"role": "user", "content": {"type": "text", "text": "Check {{ device }}"}},
        {"role": "assistant", "content": {"type": "text", "text": "At {{ site }}"}},
    ]
    prompt = PromptTemplate(declared(messages=messages, unknown="is passed over"))
    assert (prompt.name, prompt.title, prompt.description) == ("look", "Look", "Look at it")
    assert [argument.model_dump() for argument in prompt.arguments] == ARGUMENTS
    assert prompt.render({"device": "r1", "site": "Rome"}) == [("user", "Check r1"), ("assistant", "At Rome")]


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("{{ device }} {{ site }}.", {}, "r1 ."),
        ("{{ device | upper }}, {{ site | default('nowhere', true) | title }}", {}, "R1, Nowhere"),
        ("{% if site %}at {{ site }}{% elif device == 'r1' %}first{% else %}other{% endif %}", {}, "first"),
        ("{% if site in 'Rome' and not device != 'r1' or false %}yes{% endif %}", {"site": "Rom"}, "yes"),
        ("{{ site | trim | capitalize }}{{ device | lower }}", {"site": "  rome "}, "Romer1"),
        ("{{ device | tojson }}", {"device": '"<'}, '"\\"\\u003c"'),
        ("{% raw %}{{ x }}{% endraw %}{# not seen #}", {}, "{{ x }}"),
        ("{{ device }}", {"device": "{{ site }}<b>"}, "{{ site }}<b>"),
    ],
)
def test_arguments_are_put_in_and_compared(text: str, arguments: dict[str, object], expected: str) -> None:
    """A missing optional one is empty; what an argument says is never a template itself, nor changed for HTML."""
    assert render(text, **arguments) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ device.__class__ }}", "a part that isn't allowed in prompts: getattr"),
        ("{{ device['x'] }}", "a part that isn't allowed in prompts: getitem"),
        ("{{ device.upper() }}", "a part that isn't allowed in prompts: call"),
        ("{{ device * 1000000000 }}", "a part that isn't allowed in prompts: mul"),
        ("{{ device ~ device }}", "a part that isn't allowed in prompts: concat"),
        ("{{ [device] }}", "a part that isn't allowed in prompts: list"),
        ("{{ device is defined }}", "a part that isn't allowed in prompts: test"),
        ("{{ device if site }}", "a part that isn't allowed in prompts: cond expr"),
        ("{% for x in device %}{% endfor %}", "a part that isn't allowed in prompts: for"),
        ("{% set x = 1 %}", "a part that isn't allowed in prompts: assign"),
        ("{% macro m() %}{% endmacro %}", "a part that isn't allowed in prompts: macro"),
        ("{% include 'x' %}", "a part that isn't allowed in prompts: include"),
        ("{% extends 'x' %}", "a part that isn't allowed in prompts: extends"),
        ("{% block b %}{% endblock %}", "a part that isn't allowed in prompts: block"),
        ("{{ range }}", "uses range, which is no argument of the prompt"),
        ("{{ self }}", "uses self, which is no argument of the prompt"),
        ("{{ device | map }}", "a filter that isn't allowed in prompts: map"),
        ("{{ device | trim('x') }}", "gives arguments to the filter trim"),
        ("{{ device | tojson(indent=1000000000) }}", "gives arguments to the filter tojson"),
        ("{{ device | default(**site) }}", "gives arguments to the filter default"),
        ("{{ device | default(device.x) }}", "a part that isn't allowed in prompts: getattr"),
        ("{{ device | tojson | upper | tojson }}", "has the filter tojson inside of tojson"),
        ("{{ device | upper }}" * 51, "its templates have more than 50 filters"),
        ("x" * 32_769, "its templates are longer than 32768 bytes"),
        ("{% if device %}" * 40 + "{% endif %}" * 40, "is nested more than 32 levels deep"),
        ("{{ " + "not " * 900 + "device }}", "is nested more than 32 levels deep"),
        ("{{ " + "(" * 900 + "device" + ")" * 900 + " }}", "a template can't be read: RecursionError"),
        ("{{device}}" * 700, "its templates have more than 2000 words and signs outside of plain text"),
        ("{{ " + "device<" * 2_000 + "device }}", "its templates have more than 2000 words and signs"),
        ("{% if device %}" * 900 + "{% endif %}" * 900, "its templates have more than 2000 words and signs"),
        ("{{ " + "9" * 5_000 + " }}", "a template can't be read: ValueError"),
        ("{{ device", "a template can't be read: unexpected end of template"),
        ("\ud800", "messages.0.content.text: Input should be a valid string"),
    ],
)
def test_a_template_that_does_more_is_no_prompt(text: str, expected: str) -> None:
    """It is refused before any of it is run, with the first part that isn't allowed."""
    with pytest.raises(PromptError) as caught:
        PromptTemplate(declared(text))
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "prompt",
        {},
        declared(name="x y"),
        declared(name="x" * 65),
        declared(messages=[]),
        declared(messages=[{"role": "system", "content": {"type": "text", "text": "x"}}]),
        declared(messages=[{"role": "user", "content": {"type": "image", "text": "x"}}]),
        declared(messages=declared()["messages"] * 33),
        declared(title=1),
        declared(arguments=[{"name": "9"}]),
        declared(arguments=[{"name": "a", "required": "yes"}]),
        declared(arguments=[{"name": f"a{number}"} for number in range(65)]),
        declared(arguments=[*ARGUMENTS, {"name": "site"}]),
        declared(arguments=[*ARGUMENTS, {"name": "self"}]),
    ],
    ids=str,
)
def test_metadata_of_another_shape_is_no_prompt(broken: object) -> None:
    """One line says what is wrong."""
    with pytest.raises(PromptError) as caught:
        PromptTemplate(broken)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"sight": "x"}, "argument sight: no such argument: prompts/list names them"),
        ({"device": 1}, "argument device: must be text"),
        ({"device": "x" * 65_537}, "argument device: must have at most 65536 bytes, got 65537"),
        ({"device": "\ud800"}, "argument device: must be valid Unicode"),
    ],
    ids=str,
)
def test_arguments_that_break_a_rule_are_named(arguments: dict[str, object], expected: str) -> None:
    """With the rule, but never the value."""
    assert refusal("{{ device }}", **arguments) == expected


def test_a_required_argument_must_be_given() -> None:
    """Even where it may be empty."""
    prompt = PromptTemplate(declared())
    with pytest.raises(PromptError, match=r"^argument device: must be given$"):
        prompt.render({"site": "Rome"})
    assert prompt.render({"device": ""}) == [("user", "Look at ")]


def test_what_can_not_be_compared_is_told() -> None:
    """Text with a number, for instance."""
    assert refusal("{% if device < 1 %}x{% endif %}").startswith("it can't be rendered with these arguments: '<' not")


def test_a_text_that_would_be_too_long_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four hundred times an argument of 64 KiB would be 26 MB; all messages count together."""
    told = "its text would be longer than 262144 bytes: give shorter arguments"
    assert refusal("{{device}}" * 400, device="x" * 65_000) == told
    monkeypatch.setattr(prompts, "MAX_TEXT_BYTES", 5)
    two = PromptTemplate(declared(messages=declared("{{ device }}")["messages"] * 2))
    assert two.render({"device": "ab"}) == [("user", "ab"), ("user", "ab")]
    with pytest.raises(PromptError, match="would be longer than 5 bytes"):
        two.render({"device": "äb"})


@given(st.text(max_size=50), st.text(max_size=50).filter(lambda text: text.isprintable()))
def test_any_text_comes_out_as_it_went_in(device: str, site: str) -> None:
    """Property: an argument is data, whatever it looks like."""
    assert render("{{ device }}|{{ site }}", device=device, site=site) == f"{device}|{site}"
    shown = render("{{ device | tojson }}", device=device)
    assert json.loads(shown) == device
