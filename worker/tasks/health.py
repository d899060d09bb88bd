"""The task that checks the token database of a running worker."""

from __future__ import annotations

from ...models.tasks.base import TaskInput
from ...models.tasks.health import StoreReport
from ..jobs.task import task
from ..jobs.task_context import TaskContext


@task(result=StoreReport, mcp=False, is_read=True)
def check_store(worker: TaskContext, _arguments: TaskInput) -> dict[str, object]:
    """Check the integrity of the entire token database and count its tokens; fail where it is damaged."""
    store = worker.store
    store.check()
    return StoreReport(
        tokens=len(store),
        passed_over=store.pickled_rows + store.invalid_rows,
        disk=store.revocations.problem(is_thorough=True) or "",
        clock_behind_seconds=round(max(0.0, store.now() - worker.clock()), 3),
    ).model_dump()
