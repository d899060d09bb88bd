"""Tasks that list the published tools, prompts and guardrails, and discover other services."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Any, TypeVar

from ...models.errors import NfcliError, TaskError
from ...models.protocol.jobs import Result
from ...models.tasks.tools import (
    AccessEntry,
    BearerTokenAccessInput,
    DiscoverInput,
    GetPromptsInput,
    GetToolsInput,
    PromptArgumentEntry,
    PromptEntry,
    PromptMessage,
    ToolEntry,
)
from ..jobs.task import read_only_hints, task
from ..jobs.task_context import TaskContext
from ..tools.definitions import PublishedPrompt, PublishedTool

_Choice = GetToolsInput | GetPromptsInput
_Published = TypeVar("_Published", PublishedTool, PublishedPrompt)


@task(
    arguments=GetToolsInput,
    result=dict[str, ToolEntry] | list[str],
    mcp=read_only_hints("Get MCP Tools"),
    is_read=True,
)
def get_tools(worker: TaskContext, arguments: GetToolsInput) -> dict[str, dict[str, Any]] | list[str]:
    """Return the tools that MCP clients can call at this worker by name, with descriptions and JSON Schemas, or names.

    Each has its guardrails, except for MCP clients and other workers, who could learn what to evade.
    """
    chosen = _filter(worker, worker.catalogue.tools.values(), arguments)
    if arguments.brief:
        return [each.name for each in chosen]
    return {each.name: _tool_entry(each, shows_guardrails=not worker.is_relayed) for each in chosen}


@task(arguments=GetPromptsInput, result=dict[str, PromptEntry] | list[str], mcp=False, is_read=True)
def get_prompts(worker: TaskContext, arguments: GetPromptsInput) -> dict[str, dict[str, Any]] | list[str]:
    """Return the prompts that MCP clients can get from this worker by name, with their templates, or names only."""
    chosen = _filter(worker, worker.catalogue.prompts.values(), arguments)
    return [each.name for each in chosen] if arguments.brief else {each.name: _prompt_entry(each) for each in chosen}


def _filter(worker: TaskContext, published: Iterable[_Published], choice: _Choice) -> list[_Published]:
    # fnmatchcase would cache the last 32,768 patterns that clients sent.
    pattern = re.compile(translate(choice.name))
    chosen = [each for each in published if choice.service in {"all", each.service} and pattern.match(each.name)]
    return [each for each in chosen if worker.may_use(each.access)]


def _tool_entry(published: PublishedTool, *, shows_guardrails: bool) -> dict[str, Any]:
    tool = published.tool
    entry = ToolEntry(
        name=tool.name,
        title=tool.title,
        description=tool.description or "",
        inputSchema=tool.input_schema,
        outputSchema=tool.output_schema or {},
        annotations=tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {},
    ).model_dump(exclude={"guardrails", "result_guardrails"})
    rules = published.guardrails.entries() if shows_guardrails else {}
    return {**entry, **{kind: listed for kind, listed in rules.items() if listed}}


def _prompt_entry(published: PublishedPrompt) -> dict[str, Any]:
    template = published.template
    return PromptEntry(
        name=published.name,
        title=template.title or None,
        description=template.description,
        arguments=[
            PromptArgumentEntry(name=each.name, description=each.description, required=each.required)
            for each in template.arguments
        ],
        messages=[PromptMessage.model_validate(message) for message in template.declared_messages],
    ).model_dump()


@task(arguments=BearerTokenAccessInput, result=list[AccessEntry], mcp=False, is_read=True)
def bearer_token_access(worker: TaskContext, arguments: BearerTokenAccessInput) -> Result:
    """List the tools and prompts that a user, or the user of a token, may use by the rules in `tools.policy`."""
    username: str | None = None
    message = "authentication is off: everybody may use these"
    if worker.inventory.authentication_enabled:
        username, message = _user(worker, arguments)
    found = worker.catalogue.published_for(username, worker.inventory.auth_bearer.token_scopes)
    entries = [
        AccessEntry(
            kind="tool" if isinstance(each, PublishedTool) else "prompt", name=each.name, service=each.service
        ).model_dump()
        for each in found
    ]
    return Result(result=entries, messages=[message] if message else [])


def _user(worker: TaskContext, arguments: BearerTokenAccessInput) -> tuple[str, str]:
    """Return the user that is asked about, and what is to be said of it; TaskError for a token that isn't valid."""
    if arguments.token is not None:
        record = worker.store.lookup(arguments.token)
        if record is None:
            raise TaskError("the token is unknown, expired or deleted: nothing may be used with it")
        return record.username, ""
    username = arguments.username or ""
    has_token = bool(worker.store.records(username, limit=1))
    return username, "" if has_token else "this user has no live token"


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
