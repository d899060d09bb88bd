"""The task that imports tokens from another program.

It is never an MCP tool: credentials can't be managed through the endpoint that they protect.
"""

from __future__ import annotations

from typing import Any

from ...models.tasks.token_import import BearerTokenImportInput, Imported
from ..jobs.task import task
from ..jobs.task_context import TaskContext


@task(arguments=BearerTokenImportInput, result=Imported, mcp=False, audit="import")
def bearer_token_import(worker: TaskContext, arguments: BearerTokenImportInput) -> dict[str, Any]:
    """Store at most 100 tokens with their creation and expiry, in one transaction.

    Tokens that are stored already are left unchanged: `present` counts those of the same user, `refused` those of other
    users. Expired tokens are skipped, and so are those that were deleted here since they were created: repeating an
    import changes nothing. The tokens, and before them one line of the audit trail for each user, are on disk when the
    task returns.
    """
    records = [token.record() for token in arguments.tokens]
    imported = worker.store.import_tokens(records, before_commit=worker.audit.before_commit(worker.client))
    if imported.refused:
        worker.audit.write(
            operation="import",
            actor=worker.client,
            tokens=[record.token for record in imported.refused],
            outcome="refused",
            reason="stored for another user",
        )
    return Imported(
        imported=imported.stored,
        present=imported.present,
        refused=len(imported.refused),
        expired=imported.expired,
        deleted=imported.deleted,
    ).model_dump()
