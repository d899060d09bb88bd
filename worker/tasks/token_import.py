"""The task that takes in tokens which another program has kept.

It is never an MCP tool: credentials can't be managed through the endpoint that they guard.
"""

from __future__ import annotations

from typing import Any

from ...models.tasks.token_import import BearerTokenImportInput, Imported
from ..jobs.task import task
from ..jobs.task_context import TaskContext


@task(arguments=BearerTokenImportInput, result=Imported, mcp=False, audit="import")
def bearer_token_import(worker: TaskContext, arguments: BearerTokenImportInput) -> dict[str, Any]:
    """Store at most 100 tokens with their creation and expiry, in one step or not at all.

    A token that is stored already is left as it is: `present` where it is that user's, `refused` where it is another
    one's. Tokens that have expired are passed over. So importing again changes nothing. The tokens are on disk when the
    task answers, and before them the lines of the audit trail, one a user.
    """
    records = [token.record() for token in arguments.tokens]
    adopted = worker.store.import_tokens(records, before_commit=worker.audit.before_commit(worker.client))
    if adopted.refused:
        worker.audit.write(
            operation="import",
            actor=worker.client,
            tokens=[record.token for record in adopted.refused],
            outcome="refused",
            reason="stored for another user",
        )
    return Imported(
        imported=adopted.stored, present=adopted.present, refused=len(adopted.refused), expired=adopted.expired
    ).model_dump()
