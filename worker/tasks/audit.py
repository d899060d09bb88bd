"""The tasks that read the audit trail; never MCP tools."""

from __future__ import annotations

from typing import Any

from ...models.tasks.audit import AuditEntry, AuditReport, GetAuditInput
from ...models.tasks.base import TaskInput
from ..jobs.task import task
from ..jobs.task_context import TaskContext


@task(arguments=GetAuditInput, result=list[AuditEntry], mcp=False, restricted=True, is_read=True)
def get_audit(worker: TaskContext, arguments: GetAuditInput) -> list[dict[str, Any]]:
    """List the newest lines of the audit trail, oldest first: all, or those of a user, a token or an operation.

    A line has the actor, the operation, the owner and fingerprints of the tokens, and the outcome.
    """
    return [entry.model_dump() for entry in worker.audit.entries(**dict(arguments))]


@task(result=AuditReport, mcp=False, restricted=True, is_read=True)
def verify_audit(worker: TaskContext, _arguments: TaskInput) -> dict[str, Any]:
    """Verify the entire audit trail and count its lines; fail if one was altered or is missing."""
    return worker.audit.verify().model_dump()
