"""The tasks that compare the tokens of several workers and bring them together; never MCP tools.

A client asks all workers for the digests of their ranges, lists the ranges that differ, reads the tokens that others
lack from a worker that has them, and merges them there. Each step may be repeated, and the client may stop after any.
"""

from __future__ import annotations

from typing import Any

from ...models.tasks.base import TaskInput
from ...models.tasks.token_sync import (
    Merged,
    SyncedToken,
    TokenDeletions,
    TokenMergeInput,
    TokenReadInput,
    TokenSetReport,
    TokenState,
    TokenStatesInput,
)
from ..jobs.task import task
from ..jobs.task_context import TaskContext


@task(result=TokenSetReport, mcp=False)
def bearer_token_compare(worker: TaskContext, _arguments: TaskInput) -> dict[str, Any]:
    """Return digests of the stored tokens and tombstones by range; no token can be derived from them."""
    return worker.store.states.compare().model_dump()


@task(arguments=TokenStatesInput, result=list[TokenState], mcp=False)
def bearer_token_states(worker: TaskContext, arguments: TokenStatesInput) -> list[dict[str, Any]]:
    """List users, times and fingerprints of the tokens in some ranges, and the times of deletions, without tokens."""
    return list(worker.store.states.states(arguments.ranges))


@task(arguments=TokenReadInput, result=list[SyncedToken], mcp=False, audit="list", shows_tokens=True)
def bearer_token_read(worker: TaskContext, arguments: TokenReadInput) -> list[dict[str, Any]]:
    """Return at most 100 tokens for another worker; those that are no longer stored are left out.

    The line of the audit trail is on disk before the task returns: the tokens are in clear text.
    """
    found = worker.store.states.read(arguments.ids)
    worker.audit.write(
        operation="list", actor=worker.client, tokens=[each.token for each in found], reason="read by tokens sync"
    )
    return [each.model_dump() for each in found]


@task(arguments=TokenMergeInput, result=Merged, mcp=False, audit="sync")
def bearer_token_merge(worker: TaskContext, arguments: TokenMergeInput) -> dict[str, Any]:
    """Store tokens that another worker has; what has changed here meanwhile, or is newer here, is kept.

    The tokens, and before them a line of the audit trail for each user, are on disk when the task returns. Repeating it
    changes nothing.
    """
    return worker.store.merge(arguments.tokens, before_commit=worker.audit.before_commit(worker.client)).model_dump()


@task(arguments=TokenDeletions, result=Merged, mcp=False, audit="delete")
def bearer_token_merge_deletions(worker: TaskContext, arguments: TokenDeletions) -> dict[str, Any]:
    """Delete tokens that were deleted on another worker after they were stored here, otherwise as for a merge."""
    before_commit = worker.audit.before_commit(worker.client, reason="deleted on another worker")
    return worker.store.merge(arguments, before_commit=before_commit).model_dump()
