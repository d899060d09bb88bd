"""`show fastmcp …` runs read-only tasks on workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ..protocol.jobs import Results
from ..tasks.audit import GetAuditInput
from ..tasks.token_sync import compare_digests
from ..tasks.tools import GetPromptsInput, GetToolsInput
from .access import ShowAccess
from .base import CommandGroup, JobArguments, Summary, branch
from .tokens import ShowTokensCommands


class ShowInventory(JobArguments):
    """Show the workers' inventory, secrets masked."""

    TASK: ClassVar[str] = "get_inventory"


class ShowVersion(JobArguments):
    """Show versions of the worker, Python and the libraries."""

    TASK: ClassVar[str] = "get_version"


class ShowStatus(JobArguments):
    """Show addresses and state of the workers."""

    TASK: ClassVar[str] = "get_status"

    def notes(self, results: Results) -> list[str]:
        """Return in a line each which workers differ in their tokens, and which can't be compared."""
        present = {worker: result.get("result") for worker, result in results.items() if not result.get("failed")}
        differences, unknown = compare_digests(present)
        return [*differences, *unknown]


class _ShowPublished(JobArguments):
    """A command that shows what a worker publishes to MCP clients, or with `brief` the names alone."""

    brief: bool = False

    def columns(self, data: Any = None) -> tuple[str, ...]:  # noqa: ARG002  as in ShellCommand
        """Return the table's columns, none for names alone."""
        return () if self.brief else self.COLUMNS


class ShowTools(GetToolsInput, _ShowPublished):
    """Show the tools that workers publish to MCP clients; `| json` adds full descriptions and schemas."""

    TASK: ClassVar[str] = "get_tools"
    COLUMNS: ClassVar[tuple[str, ...]] = ("worker", "name", Summary("description"))


class ShowPrompts(GetPromptsInput, _ShowPublished):
    """Show the prompts that workers publish to MCP clients; `| json` adds full descriptions and arguments."""

    TASK: ClassVar[str] = "get_prompts"
    COLUMNS: ClassVar[tuple[str, ...]] = ("worker", "name", Summary("description"))


class ShowGuardrails(GetToolsInput, _ShowPublished):
    """Show the rules for arguments and results of tools; `| json` shows each rule in full."""

    TASK: ClassVar[str] = "get_tools"
    COLUMNS: ClassVar[tuple[str, ...]] = ("worker", "tool", "kind", "field", "type", "match", "message")
    KINDS: ClassVar[tuple[str, ...]] = ("guardrail", "result_guardrail")

    brief: Annotated[bool, Field(description="List the names of tools only")] = False

    def job(self) -> dict[str, Any]:
        """Return the arguments of the client's `run_job`."""
        job = super().job()
        return job | {"kwargs": job["kwargs"] | {"brief": False}}

    def check_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return one worker's result with a row for each guardrail, failed where it has no tools to read them from."""
        checked = self.check_rows(result)
        if checked.get("failed"):
            return checked
        rows = [row for tool in checked["result"] for row in self._rules(tool)]
        names = list(dict.fromkeys(row["tool"] for row in rows))
        return {**checked, "result": names if self.brief else rows}

    def _rules(self, tool: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for kind in self.KINDS:
            rules = tool.get(f"{kind}s")
            for rule in rules if isinstance(rules, list) else ():
                if isinstance(rule, dict):
                    yield {**rule, "tool": tool.get("name"), "kind": kind}


class ShowAudit(GetAuditInput, JobArguments):
    """Show the newest records of the workers' audit trails by time, or verify them; `| json` shows records in full."""

    TASK: ClassVar[str] = "get_audit"
    VERIFYING_TASK: ClassVar[str] = "verify_audit"
    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("worker", "seq", "time", "actor", "origin", "address", "operation"),
        *("username", "tokens", "outcome", "reason"),
    )

    verify: Annotated[bool, Field(description="Verify that no record was altered or removed", exclude=True)] = False

    @model_validator(mode="after")
    def _has_one_purpose(self) -> Self:
        if self.verify and self.model_fields_set & set(GetAuditInput.model_fields):
            raise PydanticCustomError("audit_verify", "verify checks all records: omit the other fields but workers")
        return self

    def job(self) -> dict[str, Any]:
        """Return the arguments of the client's `run_job`."""
        return super().job() | ({"task": self.VERIFYING_TASK, "kwargs": {}} if self.verify else {})

    def columns(self, data: Any = None) -> tuple[str, ...]:  # noqa: ARG002  as in ShellCommand
        """Return the table's columns, none for a verification, which has one result per worker."""
        return () if self.verify else self.COLUMNS

    def merge(self, values: dict[str, Any]) -> Any:
        """Return the newest rows of all workers by time; older rows of a worker with few would show gaps."""
        merged = super().merge(values)
        if self.verify:
            return merged
        return sorted(merged, key=lambda row: str(row.get("time")))[-self.last :]


class ShowFastmcpCommands(CommandGroup, prompt="nf[show-fastmcp]#"):
    """Commands that show the state of FastMCP workers."""

    inventory: ShowInventory = branch("Show inventory of the workers, secrets masked")
    version: ShowVersion = branch("Show versions of the workers and their libraries")
    status: ShowStatus = branch("Show addresses and state of the workers")
    tools: ShowTools = branch("Show tools that the workers publish to MCP clients")
    prompts: ShowPrompts = branch("Show prompts that the workers publish to MCP clients")
    guardrails: ShowGuardrails = branch("Show rules for arguments and results of the tools")
    access: ShowAccess = branch("Show which tools and prompts a user may use")
    tokens: ShowTokensCommands = branch("Show in which tokens workers differ")
    audit: ShowAudit = branch("Show who changed tokens, or verify the audit trails")
