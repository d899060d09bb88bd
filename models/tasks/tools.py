"""Inputs and results of the tasks that list tools, prompts and guardrails, and of `discover`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from .base import Report, TaskInput

MAX_GLOB_CHARACTERS = 256


def tool_name(service: str, task: str) -> str:
    """Return the name of a task's MCP tool."""
    return f"service_{service}__task_{task}"


class GetToolsInput(TaskInput):
    """Arguments of `get_tools`."""

    brief: Annotated[bool, Field(description="List names only")] = False
    service: Annotated[str, Field(description="Service whose tools to list, or all")] = "all"
    name: Annotated[str, Field(max_length=MAX_GLOB_CHARACTERS, description="Glob pattern for names of tools")] = "*"


class GetPromptsInput(TaskInput):
    """Arguments of `get_prompts`."""

    brief: Annotated[bool, Field(description="List names only")] = False
    service: Annotated[str, Field(description="Service whose prompts to list, or all")] = "all"
    name: Annotated[str, Field(max_length=MAX_GLOB_CHARACTERS, description="Glob pattern for names of prompts")] = "*"


class GetGuardrailsInput(TaskInput):
    """Arguments of `get_guardrails`."""

    brief: Annotated[bool, Field(description="List the names of tools only")] = False
    service: Annotated[str, Field(description="Service whose tools' guardrails to list, or all")] = "all"
    name: Annotated[str, Field(max_length=MAX_GLOB_CHARACTERS, description="Glob pattern for names of tools")] = "*"


class DiscoverInput(TaskInput):
    """Arguments of `discover`."""

    service: Annotated[str, Field(description="Service to discover, or all")] = "all"


class ToolEntry(Report):
    """Tool in the format of MCP's tools/list."""

    name: str = Field(description="Name of the tool")
    description: str = Field(description="What the tool does")
    inputSchema: dict[str, Any] = Field(description="JSON Schema of its arguments")  # noqa: N815  MCP's name
    outputSchema: dict[str, Any] = Field(description="JSON Schema of its structured content")  # noqa: N815
    annotations: dict[str, Any] = Field(description="MCP tool annotations, such as readOnlyHint")


class PromptArgumentEntry(Report):
    """Argument of a prompt."""

    name: str = Field(description="Name of the argument")
    description: str = Field(description="What it is for")
    required: bool = Field(description="Whether it must be given")


class PromptEntry(Report):
    """Prompt in the format of MCP's prompts/list."""

    name: str = Field(description="Name of the prompt")
    description: str = Field(description="What the prompt is for")
    arguments: list[PromptArgumentEntry] = Field(description="Arguments to render it with")


class GuardrailEntry(Report):
    """Guardrail of a tool; its other keys are those of the rule, such as field, type, match and message."""

    model_config = ConfigDict(extra="allow")

    tool: str = Field(description="Name of the tool")
    kind: str = Field(description="guardrail for arguments, result_guardrail for results")
