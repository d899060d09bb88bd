"""What the MCP server publishes of a task: its tool and its prompts, made of an entry of `list_tasks`.

An entry may be of this worker or of another service; those are somebody else's work and are checked in every part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mcp_types import ListToolsResult, Prompt, PromptArgument, Tool, ToolAnnotations
from mcp_types.methods import validate_server_result
from mcp_types.version import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION
from pydantic import ValidationError

from ...models.errors import EntryError, NfcliError, PromptError
from ...models.tasks.auth import is_token_task
from ...models.tasks.tools import tool_name
from .prompts import PromptTemplate
from .schemas import clean_line, clean_text, input_schema, output_schema, plain_json

MAX_PROMPTS_OF_A_TASK = 64
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# What jobs were given and gave back: of a service that manages tokens that are tokens.
TELLS_OF_JOBS = "job_details"


class ToolGuards(Protocol):
    """The rules about one tool's arguments and results. They may take a second: call them in a thread."""

    @property
    def changes_results(self) -> bool:
        """Whether there is a rule about results."""

    def refusal(self, arguments: Mapping[str, Any]) -> str | None:
        """Return why a call is refused, on one line, or None."""

    def apply(self, tool: str, results: Mapping[str, Any]) -> dict[str, Any]:
        """Return `{worker: Result}` as it may leave."""

    def entries(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rules: `guardrails` and `result_guardrails`."""


class ToolRules(Protocol):
    """What is published and called, and the guards of each tool."""

    def is_allowed(self, service: str, task: str) -> bool:
        """Whether a task may be a tool."""

    def is_named(self, service: str, task: str) -> bool:
        """Whether it may because a rule names it and its service, not by a glob and not for want of a rule."""

    def guards(self, service: str, task: str, mcp: Mapping[str, Any]) -> ToolGuards:
        """Return the rules about a task's tool, those of its entry's `mcp` object among them.

        Raises:
            NfcliError: one of the latter is no rule.
        """


@dataclass(frozen=True)
class PublishedPrompt:
    """A prompt as clients see it, and the template behind it."""

    name: str
    service: str
    prompt: Prompt
    template: PromptTemplate


@dataclass(frozen=True)
class PublishedTool:
    """A tool as clients see it, the task behind it and the rules about it.

    `is_own`: the task is this worker's. `has_guardrails`: calls may be refused by their arguments.
    """

    name: str
    service: str
    task: str
    tool: Tool
    guards: ToolGuards
    prompts: tuple[PublishedPrompt, ...]
    is_own: bool
    has_guardrails: bool


def count_prompts(entry: object) -> int:
    """Return how many prompts a task declares, good or not."""
    mcp = entry.get("mcp") if isinstance(entry, Mapping) else None
    declared = mcp.get("prompts") if isinstance(mcp, Mapping) else None
    return len(declared) if isinstance(declared, list | tuple) else 0


def publish(
    service: str,
    entry: object,
    rules: ToolRules,
    say: Callable[[str, str], None],
    *,
    worker: str | None = None,
    has_room: bool = True,
) -> PublishedTool | None:
    """Return what is published of a task; None for one that is no tool.

    Args:
        service: whose task it is.
        entry: the task, as `list_tasks` tells it.
        rules: what may be published.
        say: told the name and what is wrong, of prompts that can't be published.
        worker: name of this worker, where the task is its own.
        has_room: its prompts may be published too; to look at many takes its time.

    Raises:
        EntryError: the entry is broken.
    """
    if not isinstance(entry, Mapping):
        raise EntryError("the entry is no object")
    task, mcp = entry.get("name"), entry.get("mcp")
    if mcp is False:
        return None
    mcp = {} if mcp is True else mcp
    if not isinstance(task, str) or not NAME.fullmatch(task):
        raise EntryError("the task's name is not 1 to 64 letters, digits, dots, dashes and underscores")
    if not isinstance(mcp, Mapping):
        raise EntryError("mcp is neither an object nor false")
    if is_token_task(task) or not rules.is_allowed(service, task):
        return None
    try:
        guards = rules.guards(service, task, mcp)
    except NfcliError as error:
        raise EntryError(clean_line(str(error))) from None
    name = tool_name(service, task)
    return PublishedTool(
        name=name,
        service=service,
        task=task,
        tool=_tool(name, entry, mcp, guards, worker),
        guards=guards,
        prompts=_prompts(name, service, mcp.get("prompts") if has_room else None, say),
        is_own=worker is not None,
        has_guardrails=bool(guards.entries().get("guardrails")),
    )


def _tool(name: str, entry: Mapping[str, Any], mcp: Mapping[str, Any], guards: ToolGuards, worker: str | None) -> Tool:
    """Return a tool that the SDK can send to clients of all versions.

    Raises:
        EntryError: it couldn't, and would send no list at all.
    """
    tool = Tool(
        name=name,
        title=clean_line(mcp.get("title")) or None,
        description=clean_text(entry.get("description")),
        input_schema=input_schema(entry.get("inputSchema"), has_job=worker is not None),
        output_schema=output_schema(entry.get("outputSchema"), worker, is_loose=guards.changes_results),
        annotations=_annotations(mcp.get("annotations")),
    )
    try:
        listed = ListToolsResult(tools=[tool]).model_dump(mode="json", by_alias=True, exclude_none=True)
        for version in (LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION):
            validate_server_result("tools/list", version, listed)
    except ValueError:
        raise EntryError("MCP has no such tool: see to its schemas") from None
    return tool


def _annotations(given: object) -> ToolAnnotations | None:
    if given is None:
        return None
    try:
        annotations = ToolAnnotations.model_validate(plain_json(given, "annotations"), strict=True, by_name=False)
    except ValidationError:
        raise EntryError("annotations are not those of an MCP tool") from None
    return annotations.model_copy(update={"title": clean_line(annotations.title) or None})


def _prompts(tool: str, service: str, declared: object, say: Callable[[str, str], None]) -> tuple[PublishedPrompt, ...]:
    if declared is None:
        return ()
    if not isinstance(declared, list | tuple) or len(declared) > MAX_PROMPTS_OF_A_TASK:
        say(tool, f"mcp.prompts is not a list of at most {MAX_PROMPTS_OF_A_TASK} prompts")
        return ()
    found: dict[str, PublishedPrompt] = {}
    for each in declared:
        try:
            template = PromptTemplate(each)
        except PromptError as error:
            say(tool, f"a prompt of it can't be published: {error}")
            continue
        name = f"{tool}__prompt_{template.name}"
        if name in found:
            say(tool, "two prompts of it have the same name: the first one is published")
            continue
        found[name] = PublishedPrompt(name, service, _prompt(name, template), template)
    return tuple(found.values())


def _prompt(name: str, template: PromptTemplate) -> Prompt:
    return Prompt(
        name=name,
        title=template.title or None,
        description=template.description or None,
        arguments=[
            PromptArgument(name=each.name, description=each.description or None, required=each.required)
            for each in template.arguments
        ],
    )
