"""`show fastmcp …` asks the workers, `show norfab …` tells what this side knows."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from ..tasks.audit import GetAuditInput
from ..tasks.tools import GetGuardrailsInput, GetPromptsInput, GetToolsInput
from .base import Command, CommandGroup, CommandShell, JobArguments, Summary, branch


class ShowInventory(JobArguments):
    """The workers' inventory, secrets left out."""

    TASK: ClassVar[str] = "get_inventory"


class ShowVersion(JobArguments):
    """Versions of the worker, of Python and of the libraries."""

    TASK: ClassVar[str] = "get_version"


class ShowStatus(JobArguments):
    """Where a worker listens and how it is."""

    TASK: ClassVar[str] = "get_status"


class _ShowPublished(JobArguments):
    """What a worker offers to MCP clients, or its names alone."""

    brief: bool = False

    def columns(self) -> tuple[str, ...]:
        """Return the table's columns; names alone are no records."""
        return () if self.brief else self.COLUMNS


class ShowTools(GetToolsInput, _ShowPublished):
    """The tools that a worker offers to MCP clients; `| json` has whole descriptions, and schemas."""

    TASK: ClassVar[str] = "get_tools"
    COLUMNS: ClassVar[tuple[str, ...]] = ("worker", "name", Summary("description"))


class ShowPrompts(GetPromptsInput, _ShowPublished):
    """The prompts that a worker offers to MCP clients; `| json` has whole descriptions, and arguments."""

    TASK: ClassVar[str] = "get_prompts"
    COLUMNS: ClassVar[tuple[str, ...]] = ("worker", "name", Summary("description"))


class ShowGuardrails(GetGuardrailsInput, _ShowPublished):
    """The rules about arguments and results of a worker's tools; `| json` has all of each rule."""

    TASK: ClassVar[str] = "get_guardrails"
    COLUMNS: ClassVar[tuple[str, ...]] = ("worker", "tool", "kind", "field", "type", "match", "message")


class ShowAudit(GetAuditInput, JobArguments):
    """Who changed tokens, the newest lines of the workers' audit trails; `| json` has all of each line."""

    TASK: ClassVar[str] = "get_audit"
    VERIFYING_TASK: ClassVar[str] = "verify_audit"
    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("worker", "seq", "time", "actor", "operation", "username", "tokens", "outcome", "reason"),
    )

    verify: Annotated[bool, Field(description="Check that no line was altered and none is missing")] = False

    @model_validator(mode="after")
    def _has_one_purpose(self) -> Self:
        if self.verify and self.model_fields_set & set(GetAuditInput.model_fields):
            raise PydanticCustomError("audit_verify", "verify looks at all lines: leave last and username out")
        return self

    def call(self) -> tuple[str, dict[str, Any]]:
        """Return the task to run and its arguments."""
        if self.verify:
            return self.VERIFYING_TASK, {}
        task, arguments = super().call()
        del arguments["verify"]
        return task, arguments

    def columns(self) -> tuple[str, ...]:
        """Return the table's columns; a verification has one answer a worker."""
        return () if self.verify else self.COLUMNS


class ShowFastmcpCommands(CommandGroup):
    """What the FastMCP workers tell about themselves."""

    inventory: ShowInventory = branch("Show inventory of the workers, secrets left out")
    version: ShowVersion = branch("Show versions of the workers and their libraries")
    status: ShowStatus = branch("Show addresses and state of the workers")
    tools: ShowTools = branch("Show tools that the workers offer to MCP clients")
    prompts: ShowPrompts = branch("Show prompts that the workers offer to MCP clients")
    guardrails: ShowGuardrails = branch("Show rules about arguments and results of the tools")
    audit: ShowAudit = branch("Show who changed tokens, or verify the audit trails")

    class PicleConfig(CommandGroup.PicleConfig):
        """Subshell."""

        prompt = "nf[show-fastmcp]#"


class ShowWorkers(Command):
    """Every known worker and whether it runs."""

    HANDLER: ClassVar[str] = "show_workers"
    COLUMNS: ClassVar[tuple[str, ...]] = ("name", "service", "status", "endpoint", "alive (s)", "note")
    FABRIC_COLUMNS: ClassVar[tuple[str, ...]] = ("name", "service", "status", "holdtime", "alive (s)", "note")

    _is_fabric: bool = PrivateAttr(default=False)

    def answer(self, shell: CommandShell) -> Any:
        """Return a row for each worker; a broker tells other things of them than they do themselves."""
        rows = super().answer(shell)
        self._is_fabric = any("holdtime" in row for row in rows)
        return rows

    def columns(self) -> tuple[str, ...]:
        """Return the table's columns."""
        return self.FABRIC_COLUMNS if self._is_fabric else self.COLUMNS


class ShowBroker(Command):
    """The NorFab broker of this environment: its state, its versions, how many workers it has."""

    HANDLER: ClassVar[str] = "show_broker"


class ShowClient(Command):
    """This client: its environment, its public key, and how it reaches workers."""

    HANDLER: ClassVar[str] = "show_client"


class ShowLocalInventory(Command):
    """The inventory as this side has read it, secrets left out."""

    HANDLER: ClassVar[str] = "show_inventory"


class ShowNorfabCommands(CommandGroup):
    """What is known without asking a task of a worker."""

    workers: ShowWorkers = branch("Show known workers and whether they run")
    broker: ShowBroker = branch("Show state, versions and size of the NorFab broker")
    client: ShowClient = branch("Show environment and public key of this client")
    inventory: ShowLocalInventory = branch("Show the inventory that was read, secrets left out")

    class PicleConfig(CommandGroup.PicleConfig):
        """Subshell."""

        prompt = "nf[show-norfab]#"


class ShowCommands(CommandGroup):
    """Commands that only look."""

    fastmcp: ShowFastmcpCommands = branch("Show what FastMCP workers tell")
    norfab: ShowNorfabCommands = branch("Show workers, broker, client and inventory")

    class PicleConfig(CommandGroup.PicleConfig):
        """Subshell."""

        prompt = "nf[show]#"
