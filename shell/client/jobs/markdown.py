"""Results as a text in Markdown, for tickets, chats and language models."""

from __future__ import annotations

import json
import re
from typing import Any

from ....models.protocol.jobs import Results, failure_reason

_FENCE = re.compile(r"`{3,}")
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def to_markdown(service: str, task: str, results: Results) -> str:
    """Return the results of a job as a document: a table of the workers, then what each one returned."""
    lines = [f"# {_text(f'{service}: {task}')}", "", "| Worker | Status | Started | Completed | Notes |"]
    lines.append("|---|---|---|---|---|")
    for worker, result in sorted(results.items()):
        notes = failure_reason(result) if result.get("failed") else "; ".join(map(str, result.get("messages") or ()))
        times = [result.get("task_started"), result.get("task_completed")]
        cells = [worker, result.get("status") or ("failed" if result.get("failed") else ""), *times, notes]
        lines.append(f"| {' | '.join(_text(cell) for cell in cells)} |")
    if not results:
        lines += ["", "No results."]
    for worker, result in sorted(results.items()):
        if not result.get("failed"):
            lines += ["", f"## {_text(worker)}", "", *_block(result.get("result"))]
        if result.get("diff"):
            lines += ["", "Difference:", "", *_block(result["diff"])]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    """Return a value as text on one line without a meaning in Markdown."""
    return "" if value is None else _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def _block(value: Any) -> list[str]:
    """Return a value as a block of code, text as it is."""
    kind = "text" if isinstance(value, str) else "json"
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    fence = "`" * max(3, *(len(found) + 1 for found in _FENCE.findall(text)), 3)
    return [f"{fence}{kind}", *text.splitlines(), fence]
