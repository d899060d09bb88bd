"""Report unexpected errors: one line for the user, the stack for the log; no texts, which may hold secrets."""

from __future__ import annotations

import json
import traceback
from datetime import UTC, datetime
from pathlib import Path

from ...models.environment.private_files import open_private
from ...models.errors import NfcliError


def report_fault(error: Exception, log_file: Path | None) -> str:
    """Return type and place of an unexpected error, on one line, and append its stack to the log."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    summary = f"{type(error).__name__} at {place}"
    if log_file is None:
        return summary
    stack = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    record = {"time": datetime.now(UTC).isoformat(), "level": "ERROR", "event": summary, "stack": stack}
    try:
        with open_private(log_file, "a") as stream:
            stream.write(f"{json.dumps(record)}\n")
    except (OSError, NfcliError) as failure:
        return f"{summary}; details were not saved: {failure}"
    return f"{summary}; details in {log_file}"
