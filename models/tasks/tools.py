"""Inputs and results of the tasks that list tools, prompts and guardrails, and of discovery."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from .base import Report, TaskInput

PATTERN_MAX_CHARACTERS = 256


def tool_name(service: str, task: str) -> str:
    """Return the name under which MCP clients see a task."""
    return f"service_{service}__task_{task}"


class GetToolsInput(TaskInput):
    """Arguments of `get_tools`."""

    brief: Annotated[bool, Field(description="List names only")] = False
    service: Annotated[str, Field(description="Service whose tools to list, or all")] = "all"
    name: Annotated[
        str,
        Field(max_length=PATTERN_MAX_CHARACTERS, description="Glob pattern that the names of the listed tools match"),
    ] = "*"


class GetPromptsInput(TaskInput):
    """Arguments of `get_prompts`."""

    brief: Annotated[bool, Field(description="List names only")] = False
    service: Annotated[str, Field(description="Service whose prompts to list, or all")] = "all"
    name: Annotated[
        str,
        Field(max_length=PATTERN_MAX_CHARACTERS, description="Glob pattern that the names of the listed prompts match"),
    ] = "*"


class GetGuardrailsInput(TaskInput):
    """Arguments of `get_guardrails`."""

    brief: Annotated[bool, Field(description="List the names of the tools only")] = False
    service: Annotated[str, Field(description="Service whose tools' rules to list, or all")] = "all"
    name: Annotated[
        str, Field(max_length=PATTERN_MAX_CHARACTERS, description="Glob pattern that the names of the tools match")
    ] = "*"


class DiscoverInput(TaskInput):
    """Arguments of `discover`."""

    service: Annotated[str, Field(description="Service whose tasks to look for, or all")] = "all"


class ToolEntry(Report):
    """A tool as MCP clients see it; the keys are MCP's."""

    name: str = Field(description="Name of the tool")
    description: str = Field(description="What the tool does")
    inputSchema: dict[str, Any] = Field(description="JSON Schema of its arguments")  # noqa: N815  MCP's name
    outputSchema: dict[str, Any] = Field(description="JSON Schema of its structured content")  # noqa: N815
    annotations: dict[str, Any] = Field(description="Hints for clients, such as readOnlyHint")


class PromptArgumentEntry(Report):
    """An argument of a prompt."""

    name: str = Field(description="Name of the argument")
    description: str = Field(description="What it is")
    required: bool = Field(description="Whether it must be given")


class PromptEntry(Report):
    """A prompt as MCP clients see it."""

    name: str = Field(description="Name of the prompt")
    description: str = Field(description="What the prompt is for")
    arguments: list[PromptArgumentEntry] = Field(description="What can be put into its text")


class GuardrailEntry(BaseModel):
    """A rule about a tool; what it says stands under its own keys, such as field, type, match and message."""

    model_config = ConfigDict(frozen=True, extra="allow")

    tool: str = Field(description="Name of the tool")
    kind: str = Field(description="guardrail for a rule about arguments, result_guardrail for one about results")
