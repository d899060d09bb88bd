"""The interactive shell over the fake client, for tests that type at it: `prompt_program.py [HISTORY_FILE]`.

`show fastmcp status` never ends, until Ctrl-C.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))


from nfcli.shell.repl.app import App
from support.fake_client import FakeClient


class SlowClient(FakeClient):
    """A client whose worker doesn't answer one of the tasks."""

    def run_job(self, service: str, task: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Wait for ever for `get_status`."""
        if task == "get_status":
            sys.stderr.write("waiting\n")
            threading.Event().wait()
        return super().run_job(service, task, **options)


if __name__ == "__main__":
    history = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    App(SlowClient("w1", "w2"), history_file=history).loop()
