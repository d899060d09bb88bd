"""What the interoperability tests share: the reference, NorFab, in processes of its own.

The variable NFCLI_REFERENCE_PYTHON names a Python with the package norfab 0.25.0; without it these tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).with_name("reference_driver.py")
CALL_SECONDS = 60.0
STOP_SECONDS = 10.0


class Reference:
    """NorFab in another process, with an environment folder of its own; calls go to `reference_driver.Driver`."""

    def __init__(self, python: str, folder: Path, inventory: dict[str, Any]) -> None:
        self.folder = folder
        (folder / "inventory.yaml").write_text(json.dumps(inventory), encoding="utf-8")  # JSON is YAML
        self._errors = (folder / "stderr").open("wb")
        self._process = subprocess.Popen(
            [python, str(DRIVER), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=folder,
            start_new_session=True,
        )

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the driver and return what it returned, within `CALL_SECONDS`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._line() or b'{"error": "no answer in time"}')
        if "error" in answer:
            pytest.fail(f"{method}: {answer['error']}; stderr: {(self.folder / 'stderr').read_text()[-2_000:]}")
        return answer["value"]

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + CALL_SECONDS
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._process.stdout.fileno(), 65_536) if ready else b""
            if not part:
                return b""
            text += part
        return text

    def stop(self) -> None:
        """End the driver and every process that it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        # Brokers and workers that are left share the driver's group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        self._process.stdout.close()
        self._errors.close()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, Any]], Reference]]:
    """Start drivers of the reference, each with an inventory; they end with the module."""
    python = os.environ.get("NFCLI_REFERENCE_PYTHON")
    if not python:
        pytest.skip("NFCLI_REFERENCE_PYTHON names no Python with the reference")
    with contextlib.ExitStack() as started:

        def start(inventory: dict[str, Any]) -> Reference:
            process = Reference(python, tmp_path_factory.mktemp("reference"), inventory)
            started.callback(process.stop)
            process.call("start")
            return process

        yield start
