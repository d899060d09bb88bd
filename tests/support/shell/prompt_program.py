"""The interactive shell over the fake client, for tests that type at it: `-m support.shell.prompt_program [FILE]`.

`show fastmcp status` ends only with Ctrl-C; FILE is where the history is saved.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from nfcli.shell.repl.picle_adapter import App
from support.shell.fake_client import FakeClient


class SlowClient(FakeClient):
    """A client whose worker never answers `get_status`."""

    def run_job(self, service: str, task: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Run a task, or wait forever."""
        if task == "get_status":
            sys.stderr.write("waiting\n")
            threading.Event().wait()
        return super().run_job(service, task, **options)


if __name__ == "__main__":
    history = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    App(SlowClient("w1", "w2"), history_file=history).start()
