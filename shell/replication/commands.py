"""`show fastmcp tokens diff` and `fastmcp tokens sync`: their results, and what is said about them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from ...models.commands.tokens import ShowTokensDiff, TokensSync
from ..job_client import JobClient
from .differences import MAX_ROWS, find_differences
from .sync import TokenSync
from .workers import ComparedWorkers

Report = Callable[[str], None]


def show_differences(command: ShowTokensDiff, client: JobClient, *, fail: Report, note: Report) -> list[dict[str, Any]]:
    """Return a row for each token in which workers differ; `fail` is called if there is one, or a worker fails."""
    compared = ComparedWorkers(client, **command.targets())
    rows = list(islice(find_differences(compared), MAX_ROWS + 1))
    _report_failures(compared.failures, fail)
    names = ", ".join(sorted(compared.reports))
    if rows:
        more = f", the first {MAX_ROWS} are shown" if len(rows) > MAX_ROWS else ""
        fail(f"the tokens of {names} differ{more}: bring them together with fastmcp tokens sync")
    elif len(compared.reports) > 1:
        note(f"the tokens of {names} are the same")
    elif names:
        note(f"nothing to compare: {names} {'alone answers' if compared.failures else 'is the only worker asked'}")
    return rows[:MAX_ROWS]


def synchronize(command: TokensSync, client: JobClient, *, fail: Report, note: Report) -> dict[str, dict[str, int]]:
    """Bring the tokens together; return what was changed by worker. `fail` is called for what was not."""
    sync = TokenSync(client, **command.arguments())
    sync.run()
    _report_failures(sync.failures, fail)
    for conflict in sync.conflicts:
        fail(f"{conflict}, and was left as it is: delete it with delete-token, and create another one")
    kept = [worker for worker, counts in sorted(sync.counts.items()) if counts["kept"]]
    if kept:
        fail(f"tokens on {', '.join(kept)} changed meanwhile and were kept as they are: run the command again")
    if not any(any(counts.values()) for counts in sync.counts.values()):
        note("nothing was changed")
    return sync.counts


def _report_failures(failures: dict[str, str], fail: Report) -> None:
    for worker, reason in sorted(failures.items()):
        fail(f"{worker}: {reason}")
