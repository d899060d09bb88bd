"""Build the tool and the prompts of a task from its `list_tasks` entry.

Entries of other services are untrusted and checked in every part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mcp_types import ListToolsResult, Prompt, PromptArgument, Tool, ToolAnnotations
from mcp_types.methods import validate_server_result
from mcp_types.version import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION
from pydantic import ValidationError

from ...models.errors import EntryError, NfcliError, PromptError
from ...models.tasks.tools import tool_name
from .arguments import ArgumentSchema
from .guardrails import ToolGuardrails
from .policy import ToolAccess, ToolPolicy
from .prompts import PromptTemplate
from .relays import PUBLISH_HINT, is_relay
from .schemas import input_schema, output_schema, plain_json
from .texts import clean_line, clean_text

MAX_PROMPTS_OF_A_TASK = 64
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# NorFab's task that shows arguments and results of jobs, tokens among them where the service manages tokens.
JOB_DETAILS_TASK = "job_details"

Warn = Callable[[str, str], None]
ReadArguments = Callable[[str, dict[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class PublishedPrompt:
    """A prompt as MCP clients see it, its template, and who may use it."""

    name: str
    service: str
    prompt: Prompt
    access: ToolAccess
    template: PromptTemplate

    @cached_property
    def listed_bytes(self) -> int:
        """About how long it is in a list."""
        return len(self.prompt.model_dump_json(by_alias=True, exclude_none=True))


@dataclass(frozen=True)
class PublishedTool:
    """A tool as MCP clients see it, its task, its guardrails, and who may use it.

    `is_own`: the task is this worker's; `is_relay`: it runs jobs of other services for its caller. `arguments` checks
    calls before a job is sent, so the worker's own tasks, which check theirs, need none.
    """

    name: str
    service: str
    task: str
    tool: Tool
    access: ToolAccess
    guardrails: ToolGuardrails
    arguments: ArgumentSchema
    prompts: tuple[PublishedPrompt, ...]
    is_own: bool
    is_relay: bool

    @cached_property
    def listed_bytes(self) -> int:
        """About how long it is in a list."""
        return len(self.tool.model_dump_json(by_alias=True, exclude_none=True))

    def refusal(self, given: dict[str, Any], read_arguments: ReadArguments) -> str | None:
        """Return why a call with these arguments is refused, or None.

        `read_arguments` returns what a task of this worker would get, by all of the arguments' names.
        """
        if self.is_own:
            return self.guardrails.check_arguments(read_arguments(self.task, given))
        problem = self.arguments.problem(given)
        return problem or self.guardrails.check_arguments(self.arguments.with_other_names(given))


def count_prompts(entry: object) -> int:
    """Return how many prompts a task declares, invalid ones included."""
    mcp = entry.get("mcp") if isinstance(entry, Mapping) else None
    declared = mcp.get("prompts") if isinstance(mcp, Mapping) else None
    return len(declared) if isinstance(declared, list | tuple) else 0


def build_tool(
    service: str,
    entry: object,
    policy: ToolPolicy,
    warn: Warn,
    *,
    worker: str | None = None,
    include_prompts: bool = True,
) -> PublishedTool | None:
    """Return the tool of a task, or None for a task that is not a tool.

    `entry` is the task's entry of `list_tasks`; `worker` the name of this worker, if the task is its own. `warn` is
    called with the tool's name and the reason for each prompt that can't be published.

    Raises:
        EntryError: the entry is not valid.
    """
    if not isinstance(entry, Mapping):
        raise EntryError("the entry is not an object")
    task, mcp = entry.get("name"), entry.get("mcp")
    if mcp is False:
        return None
    mcp = {} if mcp is True else mcp
    if not isinstance(task, str) or not NAME.fullmatch(task):
        raise EntryError("the task's name is not 1 to 64 letters, digits, dots, dashes and underscores")
    if not isinstance(mcp, Mapping):
        raise EntryError("mcp is neither an object nor false")
    if (access := policy.access(service, task)).is_for_nobody:
        return None
    try:
        guardrails = policy.guardrails(service, task, mcp)
    except NfcliError as error:
        raise EntryError(clean_line(str(error))) from None
    name = tool_name(service, task)
    tool = _tool(name, entry, mcp, guardrails, worker)
    relays = worker is None and is_relay(service, task, tool.input_schema)
    if relays and (access := policy.access(service, task, is_only_by_name=True)).is_for_nobody:
        raise EntryError(PUBLISH_HINT)
    return PublishedTool(
        name=name,
        service=service,
        task=task,
        tool=tool,
        access=access,
        guardrails=guardrails,
        arguments=ArgumentSchema(tool.input_schema),
        prompts=_prompts(name, service, access, mcp.get("prompts") if include_prompts else None, warn),
        is_own=worker is not None,
        is_relay=relays,
    )


def _tool(
    name: str, entry: Mapping[str, Any], mcp: Mapping[str, Any], guardrails: ToolGuardrails, worker: str | None
) -> Tool:
    """Return a tool that is valid in all protocol versions; one that isn't would fail the whole tools/list.

    Raises:
        EntryError: it is not valid.
    """
    tool = Tool(
        name=name,
        title=clean_line(mcp.get("title")) or None,
        description=clean_text(entry.get("description")),
        input_schema=input_schema(entry.get("inputSchema"), is_own=worker is not None),
        output_schema=output_schema(entry.get("outputSchema"), worker, is_loose=guardrails.has_result_rules),
        annotations=_annotations(mcp.get("annotations")),
    )
    try:
        listed = ListToolsResult(tools=[tool]).model_dump(mode="json", by_alias=True, exclude_none=True)
        for version in (LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION):
            validate_server_result("tools/list", version, listed)
    except ValueError:
        raise EntryError("not a valid MCP tool: check its schemas") from None
    return tool


def _annotations(given: object) -> ToolAnnotations | None:
    if given is None:
        return None
    try:
        annotations = ToolAnnotations.model_validate(plain_json(given, "annotations"), strict=True, by_name=False)
    except ValidationError:
        raise EntryError("annotations are not valid tool annotations of MCP") from None
    return annotations.model_copy(update={"title": clean_line(annotations.title) or None})


def _prompts(tool: str, service: str, access: ToolAccess, declared: object, warn: Warn) -> tuple[PublishedPrompt, ...]:
    if declared is None:
        return ()
    if not isinstance(declared, list | tuple) or len(declared) > MAX_PROMPTS_OF_A_TASK:
        warn(tool, f"mcp.prompts is not a list of at most {MAX_PROMPTS_OF_A_TASK} prompts")
        return ()
    found: dict[str, PublishedPrompt] = {}
    for each in declared:
        try:
            template = PromptTemplate(each)
        except PromptError as error:
            warn(tool, f"prompt not published: {error}")
            continue
        name = f"{tool}__prompt_{template.name}"
        if name in found:
            warn(tool, "two prompts have the same name: only the first is published")
            continue
        found[name] = PublishedPrompt(name, service, _prompt(name, template), access, template)
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
