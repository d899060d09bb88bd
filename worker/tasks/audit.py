"""The tasks that read the audit trail; never MCP tools."""

from __future__ import annotations

from typing import Any

from ...models.tasks.audit import AuditEntry, AuditReport, GetAuditInput
from ...models.tasks.base import TaskInput
from ..jobs.task import task
from ..jobs.task_context import TaskContext


@task(arguments=GetAuditInput, result=list[AuditEntry], mcp=False)
def get_audit(worker: TaskContext, arguments: GetAuditInput) -> list[dict[str, Any]]:
    """List the newest lines of the audit trail, all or those about one user, the newest one last.

    A line tells who asked for which change of whose tokens, and what came of it; tokens are told by their fingerprints.
    """
    return [entry.model_dump() for entry in worker.audit.entries(arguments.last, arguments.username)]


@task(result=AuditReport, mcp=False)
def verify_audit(worker: TaskContext, _arguments: TaskInput) -> dict[str, Any]:
    """Read the whole audit trail and tell how many lines it has; fail where one was altered or is missing."""
    return worker.audit.verify().model_dump()
