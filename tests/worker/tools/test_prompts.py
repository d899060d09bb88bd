"""Prompts of other services: allowed and refused templates, and rendering."""

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
    """Return a prompt's metadata in NorFab's format."""
    message = {"role": "user", "content": {"type": "text", "text": text}}
    prompt = {"name": "look", "title": "Look", "description": "Look at it", "arguments": ARGUMENTS}
    return {**prompt, "messages": [message], **changes}


def render(text: str, **arguments: object) -> str:
    """Return the text of a prompt's only message."""
    ((role, rendered),) = PromptTemplate(declared(text)).render({"device": "r1", **arguments})
    assert role == "user"
    return rendered


def refusal(text: str, **arguments: object) -> str:
    """Return why a prompt is refused, or not rendered."""
    with pytest.raises(PromptError) as caught:
        render(text, **arguments)
    return str(caught.value)


def test_prompt_keeps_its_metadata_and_renders_each_message() -> None:
    """Messages are rendered in their order, each with its role; unknown keys are ignored."""
    messages = [
        {"role": "user", "content": {"type": "text", "text": "Check {{ device }}"}},
        {"role": "assistant", "content": {"type": "text", "text": "At {{ site }}"}},
    ]
    prompt = PromptTemplate(declared(messages=messages, unknown="ignored"))
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
def test_arguments_are_inserted_and_compared(text: str, arguments: dict[str, object], expected: str) -> None:
    """A missing optional argument is empty; an argument is never parsed as a template, nor escaped for HTML."""
    assert render(text, **arguments) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ device.__class__ }}", "not allowed in prompts: getattr"),
        ("{{ device['x'] }}", "not allowed in prompts: getitem"),
        ("{{ device.upper() }}", "not allowed in prompts: call"),
        ("{{ device * 1000000000 }}", "not allowed in prompts: mul"),
        ("{{ device ~ device }}", "not allowed in prompts: concat"),
        ("{{ [device] }}", "not allowed in prompts: list"),
        ("{{ device is defined }}", "not allowed in prompts: test"),
        ("{{ device if site }}", "not allowed in prompts: cond expr"),
        ("{% for x in device %}{% endfor %}", "not allowed in prompts: for"),
        ("{% set x = 1 %}", "not allowed in prompts: assign"),
        ("{% macro m() %}{% endmacro %}", "not allowed in prompts: macro"),
        ("{% include 'x' %}", "not allowed in prompts: include"),
        ("{% extends 'x' %}", "not allowed in prompts: extends"),
        ("{% block b %}{% endblock %}", "not allowed in prompts: block"),
        ("{{ range }}", "uses range, which is not an argument of the prompt"),
        ("{{ self }}", "uses self, which is not an argument of the prompt"),
        ("{{ device | map }}", "a filter that is not allowed in prompts: map"),
        ("{{ device | trim('x') }}", "not allowed in prompts to the filter trim"),
        ("{{ device | tojson(indent=1000000000) }}", "not allowed in prompts to the filter tojson"),
        ("{{ device | default(**site) }}", "not allowed in prompts to the filter default"),
        ("{{ device | default(device.x) }}", "not allowed in prompts: getattr"),
        ("{{ device | tojson | upper | tojson }}", "nests the filter tojson in tojson"),
        ("{{ device | upper }}" * 51, "the templates have more than 50 filters"),
        ("x" * 32_769, "the templates are longer than 32768 bytes"),
        ("{% if device %}" * 40 + "{% endif %}" * 40, "is nested more than 32 levels deep"),
        ("{{ " + "not " * 900 + "device }}", "is nested more than 32 levels deep"),
        ("{{ " + "(" * 900 + "device" + ")" * 900 + " }}", "a template is not valid: RecursionError"),
        ("{{device}}" * 700, "the templates have more than 2000 tokens outside of plain text"),
        ("{{ " + "device<" * 2_000 + "device }}", "the templates have more than 2000 tokens"),
        ("{% if device %}" * 900 + "{% endif %}" * 900, "the templates have more than 2000 tokens"),
        ("{{ " + "9" * 5_000 + " }}", "a template is not valid: ValueError"),
        ("{{ device", "a template is not valid: unexpected end of template"),
        ("\ud800", "messages.0.content.text: Input should be a valid string"),
    ],
)
def test_template_beyond_the_subset_is_refused(text: str, expected: str) -> None:
    """It is refused before it runs, and the error names the first part that is not allowed."""
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
def test_invalid_metadata_is_refused(broken: object) -> None:
    """The error is one line."""
    with pytest.raises(PromptError) as caught:
        PromptTemplate(broken)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"sight": "x"}, "argument sight: no such argument, call prompts/list for the arguments"),
        ({"device": 1}, "argument device: must be text"),
        ({"device": "x" * 65_537}, "argument device: must have at most 65536 bytes, got 65537"),
        ({"device": "\ud800"}, "argument device: must be valid Unicode"),
    ],
    ids=str,
)
def test_invalid_arguments_are_named(arguments: dict[str, object], expected: str) -> None:
    """The error names argument and rule, but not the value."""
    assert refusal("{{ device }}", **arguments) == expected


def test_required_argument_must_be_given() -> None:
    """An empty text counts as given."""
    prompt = PromptTemplate(declared())
    with pytest.raises(PromptError, match=r"^argument device: must be given$"):
        prompt.render({"site": "Rome"})
    assert prompt.render({"device": ""}) == [("user", "Look at ")]


def test_comparison_of_different_types_is_refused() -> None:
    """A text can't be compared with a number."""
    assert refusal("{% if device < 1 %}x{% endif %}").startswith("can't be rendered with these arguments: '<' not")


def test_too_long_text_is_not_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for all messages together: 400 arguments of 64 KiB would be 26 MB."""
    expected = "the text is longer than 262144 bytes: use shorter arguments"
    assert refusal("{{device}}" * 400, device="x" * 65_000) == expected
    monkeypatch.setattr(prompts, "MAX_TEXT_BYTES", 5)
    two = PromptTemplate(declared(messages=declared("{{ device }}")["messages"] * 2))
    assert two.render({"device": "ab"}) == [("user", "ab"), ("user", "ab")]
    with pytest.raises(PromptError, match="longer than 5 bytes"):
        two.render({"device": "äb"})


@given(st.text(max_size=50), st.text(max_size=50).filter(lambda text: text.isprintable()))
def test_any_argument_is_rendered_unchanged(device: str, site: str) -> None:
    """Property: an argument is data, whatever its characters."""
    assert render("{{ device }}|{{ site }}", device=device, site=site) == f"{device}|{site}"
    assert json.loads(render("{{ device | tojson }}", device=device)) == device
