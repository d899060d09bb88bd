"""Inputs and results of the tasks that list tools and prompts, and of `discover`."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ..fields import StoredUsername, Token
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


class DiscoverInput(TaskInput):
    """Arguments of `discover`."""

    service: Annotated[str, Field(description="Service to discover, or all")] = "all"


class ToolEntry(Report):
    """Tool in the format of MCP's tools/list, and its guardrails, each left out where there are none."""

    name: str = Field(description="Name of the tool")
    title: str | None = Field(description="Name of the tool for people, null without one")
    description: str = Field(description="What the tool does")
    inputSchema: dict[str, Any] = Field(description="JSON Schema of its arguments")  # noqa: N815  MCP's name
    outputSchema: dict[str, Any] = Field(description="JSON Schema of its structured content")  # noqa: N815
    annotations: dict[str, Any] = Field(description="MCP tool annotations, such as readOnlyHint")
    guardrails: list[dict[str, Any]] = Field(default=[], description="Rules for its arguments")
    result_guardrails: list[dict[str, Any]] = Field(default=[], description="Rules for its results")


class PromptArgumentEntry(Report):
    """Argument of a prompt."""

    name: str = Field(description="Name of the argument")
    description: str = Field(description="What it is for")
    required: bool = Field(description="Whether it must be given")


class PromptContent(Report):
    """Template of a message."""

    type: str = Field(description="text")
    text: str = Field(description="Jinja template of the message")


class PromptMessage(Report):
    """Message of a prompt."""

    role: str = Field(description="user or assistant")
    content: PromptContent = Field(description="What it says")


class PromptEntry(Report):
    """Prompt in the format of MCP's prompts/list, with the templates of its messages."""

    name: str = Field(description="Name of the prompt")
    title: str | None = Field(description="Name of the prompt for people, null without one")
    description: str = Field(description="What the prompt is for")
    arguments: list[PromptArgumentEntry] = Field(description="Arguments to render it with")
    messages: list[PromptMessage] = Field(description="Templates of its messages")


class BearerTokenAccessInput(TaskInput):
    """Arguments of `bearer_token_access`: one of the two."""

    username: Annotated[StoredUsername | None, Field(description="User whose access to show")] = None
    token: Annotated[Token | None, Field(description="Token whose user's access to show", repr=False)] = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.username is None) == (self.token is None):
            raise PydanticCustomError("access_of_one", "give either username or token")
        return self


class AccessEntry(Report):
    """Tool or prompt that a user may use."""

    kind: str = Field(description="tool or prompt")
    name: str = Field(description="Name in MCP's lists")
    service: str = Field(description="Service of its task")
