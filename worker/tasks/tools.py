"""The tasks that tell what the MCP server publishes: tools, prompts and the rules about tools."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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

_KINDS = {"guardrails": "guardrail", "result_guardrails": "result_guardrail"}


_Choice = GetToolsInput | GetPromptsInput | GetGuardrailsInput
_Published = TypeVar("_Published", PublishedTool, PublishedPrompt)


@task(arguments=GetToolsInput, result=list[ToolEntry] | list[str], mcp=read_only_hints("Get MCP Tools"))
def get_tools(worker: TaskContext, arguments: GetToolsInput) -> list[dict[str, Any]] | list[str]:
    """List the tools that the worker offers to MCP clients, with their descriptions and schemas, or their names."""
    chosen = _chosen(worker.catalogue.tools(), arguments)
    return [each.name for each in chosen] if arguments.brief else [_tool_row(each) for each in chosen]


@task(arguments=GetPromptsInput, result=list[PromptEntry] | list[str], mcp=False)
def get_prompts(worker: TaskContext, arguments: GetPromptsInput) -> list[dict[str, Any]] | list[str]:
    """List the prompts that the worker offers to MCP clients, with their descriptions and arguments, or their names."""
    chosen = _chosen(worker.catalogue.prompts(), arguments)
    return [each.name for each in chosen] if arguments.brief else [_prompt_row(each) for each in chosen]


@task(arguments=GetGuardrailsInput, result=list[GuardrailEntry] | list[str], mcp=False)
def get_guardrails(worker: TaskContext, arguments: GetGuardrailsInput) -> list[dict[str, Any]] | list[str]:
    """List the rules about the arguments and results of the tools, or the names of the tools that have any."""
    chosen = _chosen(worker.catalogue.tools(), arguments)
    rows = [row for each in chosen for row in _rule_rows(each)]
    return list(dict.fromkeys(row["tool"] for row in rows)) if arguments.brief else rows


def _chosen(published: Sequence[_Published], choice: _Choice) -> list[_Published]:
    # fnmatchcase would keep the last 32,768 patterns that anybody sent.
    pattern = re.compile(translate(choice.name))
    return [each for each in published if choice.service in {"all", each.service} and pattern.match(each.name)]


def _tool_row(published: PublishedTool) -> dict[str, Any]:
    tool = published.tool
    return ToolEntry(
        name=tool.name,
        description=tool.description or "",
        inputSchema=tool.input_schema,
        outputSchema=tool.output_schema or {},
        annotations=tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {},
    ).model_dump()


def _prompt_row(published: PublishedPrompt) -> dict[str, Any]:
    template = published.template
    return PromptEntry(
        name=published.name,
        description=template.description,
        arguments=[
            PromptArgumentEntry(name=each.name, description=each.description, required=each.required)
            for each in template.arguments
        ],
    ).model_dump()


def _rule_rows(published: PublishedTool) -> Iterator[dict[str, Any]]:
    for key, rules in published.guardrails.entries().items():
        for rule in rules:
            yield {**rule, "tool": published.name, "kind": _KINDS.get(key, key)}


@task(arguments=DiscoverInput, result=dict[str, list[str]], mcp=False)
def discover(worker: TaskContext, arguments: DiscoverInput) -> Result:
    """Ask the other services of the fabric for their tasks, publish these as MCP tools, and name them by service.

    The worker does so by itself when a service shows up; this is for tasks that changed since. What is published of a
    service that doesn't answer stays.
    """
    if worker.discovery is None:
        raise TaskError("this worker has no broker: there are no other services to discover")
    try:
        found = worker.discovery.discover(arguments.service, progress=worker.progress)
    except NfcliError as error:
        raise TaskError(str(error)) from None
    return Result(
        result=found.tools, messages=[f"service {service}: {problem}" for service, problem in found.problems.items()]
    )
