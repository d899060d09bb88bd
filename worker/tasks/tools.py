"""Tasks that list the published tools, prompts and guardrails, and discover other services."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from typing import Any, TypeVar

from ...models.errors import NfcliError, TaskError
from ...models.protocol.jobs import Result
from ...models.tasks.tools import (
    DiscoverInput,
    GetGuardrailsInput,
    GetPromptsInput,
    GetToolsInput,
    GuardrailEntry,
    PromptArgumentEntry,
    PromptEntry,
    ToolEntry,
)
from ..jobs.task import read_only_hints, task
from ..jobs.task_context import TaskContext
from ..tools.definitions import PublishedPrompt, PublishedTool

_Choice = GetToolsInput | GetPromptsInput | GetGuardrailsInput
_Published = TypeVar("_Published", PublishedTool, PublishedPrompt)


@task(arguments=GetToolsInput, result=list[ToolEntry] | list[str], mcp=read_only_hints("Get MCP Tools"), is_read=True)
def get_tools(worker: TaskContext, arguments: GetToolsInput) -> list[dict[str, Any]] | list[str]:
    """List the tools that MCP clients can call at this worker, with descriptions and JSON Schemas, or names only."""
    chosen = _filter(worker.catalogue.tools.values(), arguments)
    return [each.name for each in chosen] if arguments.brief else [_tool_entry(each) for each in chosen]


@task(arguments=GetPromptsInput, result=list[PromptEntry] | list[str], mcp=False, is_read=True)
def get_prompts(worker: TaskContext, arguments: GetPromptsInput) -> list[dict[str, Any]] | list[str]:
    """List the prompts that MCP clients can get from this worker, with descriptions and arguments, or names only."""
    chosen = _filter(worker.catalogue.prompts.values(), arguments)
    return [each.name for each in chosen] if arguments.brief else [_prompt_entry(each) for each in chosen]


@task(arguments=GetGuardrailsInput, result=list[GuardrailEntry] | list[str], mcp=False, is_read=True)
def get_guardrails(worker: TaskContext, arguments: GetGuardrailsInput) -> list[dict[str, Any]] | list[str]:
    """List the guardrails on arguments and results of tools, or only the names of the tools that have any."""
    if worker.is_relayed:
        raise TaskError("guardrails are not shown to other workers, whose clients could learn what to evade")
    chosen = _filter(worker.catalogue.tools.values(), arguments)
    rows = [row for each in chosen for row in _guardrail_entries(each)]
    return list(dict.fromkeys(row["tool"] for row in rows)) if arguments.brief else rows


def _filter(published: Iterable[_Published], choice: _Choice) -> list[_Published]:
    # fnmatchcase would cache the last 32,768 patterns that clients sent.
    pattern = re.compile(translate(choice.name))
    return [each for each in published if choice.service in {"all", each.service} and pattern.match(each.name)]


def _tool_entry(published: PublishedTool) -> dict[str, Any]:
    tool = published.tool
    return ToolEntry(
        name=tool.name,
        description=tool.description or "",
        inputSchema=tool.input_schema,
        outputSchema=tool.output_schema or {},
        annotations=tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {},
    ).model_dump()


def _prompt_entry(published: PublishedPrompt) -> dict[str, Any]:
    template = published.template
    return PromptEntry(
        name=published.name,
        description=template.description,
        arguments=[
            PromptArgumentEntry(name=each.name, description=each.description, required=each.required)
            for each in template.arguments
        ],
    ).model_dump()


def _guardrail_entries(published: PublishedTool) -> Iterator[dict[str, Any]]:
    for key, rules in published.guardrails.entries().items():
        for rule in rules:
            yield {**rule, "tool": published.name, "kind": key.removesuffix("s")}


@task(arguments=DiscoverInput, result=dict[str, list[str]], mcp=False)
def discover(worker: TaskContext, arguments: DiscoverInput) -> Result:
    """Discover other services' tasks, publish them as MCP tools, and return the names of the tools by service.

    The worker does so itself when a worker registers; this task picks up changes since then. A service that doesn't
    answer keeps its published tools.
    """
    if worker.discovery is None:
        raise TaskError("no broker is configured: there are no other services to discover")
    try:
        found = worker.discovery.discover(arguments.service, progress=worker.progress)
    except NfcliError as error:
        raise TaskError(str(error)) from None
    return Result(
        result=found.tools, messages=[f"service {service}: {problem}" for service, problem in found.problems.items()]
    )
