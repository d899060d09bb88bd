"""Prompts that tasks of NorFab's services declare, as MCP clients of both eras see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mcp import MCPError

from support.norfab.mcp_site import BRISK, OPEN, RULED

NAME = "service_demo__task_advise__prompt_ask_advice"

in_both_modes = pytest.mark.parametrize("mode", ["legacy", "auto"])


@pytest.fixture
def worker(tool_site: Any) -> Iterator[Any]:
    """Take the worker that has no rules; whatever is done to it, no job has come of it in the end."""
    before = tool_site.jobs("demo")
    yield tool_site.workers[OPEN]
    assert tool_site.jobs("demo") == before


@in_both_modes
def test_prompts_are_listed_with_their_arguments(worker: Any, mode: str) -> None:
    """Title and descriptions come along."""

    async def use(client: Any) -> Any:
        return (await client.list_prompts()).prompts

    [prompt] = worker.use(use, mode)
    assert (prompt.name, prompt.title, prompt.description) == (NAME, "Ask for advice", "Ask for advice on a topic")
    assert [(each.name, each.description, each.required) for each in prompt.arguments] == [
        ("topic", "What it is about", True),
        ("tone", "How to say it", False),
    ]


@in_both_modes
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"topic": "naps"}, "Advise me on naps."),
        ({"topic": "naps", "tone": "gently"}, "Advise me on naps, gently."),
        ({"topic": "{{ 7 * 7 }}{% if"}, "Advise me on {{ 7 * 7 }}{% if."),
    ],
)
def test_a_prompt_is_rendered_with_its_arguments(worker: Any, mode: str, arguments: dict[str, str], text: str) -> None:
    """Nothing in an argument is acted on, and no job is run."""

    async def use(client: Any) -> Any:
        return await client.get_prompt(NAME, arguments)

    found = worker.use(use, mode)
    assert found.description == "Ask for advice on a topic"
    assert [(each.role, each.content.text) for each in found.messages] == [
        ("user", text),
        ("assistant", "What have you tried?"),
    ]


@in_both_modes
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (NAME, {}, "prompt ask_advice: argument topic: "),
        (
            NAME,
            {"topic": "x", "mood": "y"},
            "prompt ask_advice: argument mood: ",
        ),
        ("ask_advice", {"topic": "x"}, "unknown prompt 'ask_advice'"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    worker: Any, mode: str, name: str, arguments: dict[str, str], expected: str
) -> None:
    """As an error of the protocol."""

    async def use(client: Any) -> str:
        with pytest.raises(MCPError) as caught:
            await client.get_prompt(name, arguments)
        return str(caught.value)

    assert expected in worker.use(use, mode)


@in_both_modes
def test_prompts_go_with_their_tools(tool_site: Any, mode: str) -> None:
    """Where a rule says that a task is no tool, its prompts aren't there either."""

    async def use(client: Any) -> list[str]:
        return [prompt.name for prompt in (await client.list_prompts()).prompts]

    listed = {name: worker.use(use, mode) for name, worker in tool_site.workers.items()}
    assert listed == {OPEN: [NAME], RULED: [NAME], BRISK: []}
