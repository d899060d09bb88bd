"""`fastmcp …`: tokens, discovery of other services' tasks, and the workers that are expected."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from ..environment.known_workers import MAX_NAME_CHARACTERS
from ..tasks.tools import DiscoverInput
from .auth import AuthCommands
from .base import CommandGroup, JobArguments, ShellCommand, branch, check_printable
from .tokens import TokensCommands


class Discover(DiscoverInput, JobArguments):
    """Make the workers rediscover the tasks of other services, which they publish to MCP clients as tools."""

    TASK: ClassVar[str] = "discover"


class ForgetWorker(ShellCommand):
    """Expect a worker no longer that was seen before and is gone for good; its tokens are not touched."""

    HANDLER: ClassVar[str] = "forget_worker"

    worker: Annotated[
        str,
        StringConstraints(min_length=1, max_length=MAX_NAME_CHARACTERS),
        AfterValidator(check_printable),
        Field(description="Name of the worker", json_schema_extra={"positional": True}),
    ]


class WorkersCommands(CommandGroup, prompt="nf[fastmcp-workers]#"):
    """Workers that commands to all workers expect."""

    forget: ForgetWorker = branch("Expect a worker no longer that is gone for good")


class FastmcpCommands(CommandGroup, prompt="nf[fastmcp]#"):
    """Commands of the FastMCP service."""

    auth: AuthCommands = branch("Manage auth tokens")
    discover: Discover = branch("Discover tasks of other services")
    tokens: TokensCommands = branch("Bring the tokens of several workers together")
    workers: WorkersCommands = branch("Manage the workers that are expected")
