"""The interactive shell over the fake client, for tests that type at it: `prompt_program.py [HISTORY_FILE]`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import FakeClient

from nfcli.shell.app import App

if __name__ == "__main__":
    history = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    client = FakeClient("w1", "w2")
    App(client, history_file=history).loop()
