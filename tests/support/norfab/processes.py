"""Processes of the reference, each in a group of its own: a client that is driven, a broker, workers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

DRIVER, PROCESS = (Path(__file__).parent / "reference" / f"{name}.py" for name in ("driver", "process"))
CALL_SECONDS = 60.0
READY_SECONDS = 60.0
STOP_SECONDS = 10.0

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def inventory_text(inventory: Mapping[str, Any]) -> str:
    """Return the text of an inventory that NorFab and nfcli read as it is: JSON is YAML.

    NorFab takes the whole text for a template first, and CURVE keys may hold `{{`, `{%` or `{#` by chance.
    """
    return _STRING.sub(lambda string: string[0].replace("{", r"\u007b"), json.dumps(inventory))


class _Piped:
    """A process with pipes for stdin and stdout; its stderr goes to a file."""

    def __init__(self, command: Sequence[str], folder: Path, errors: Path) -> None:
        self.errors = errors
        with errors.open("ab") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=folder,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """The process's id, which is its group's too."""
        return self._process.pid

    def line(self, seconds: float) -> bytes:
        """Return the next line of stdout, empty if none comes in time."""
        deadline = time.monotonic() + seconds
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self._stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._stdout.fileno(), 65_536) if ready else b""
            if not part:
                return b""
            text += part
        return text

    def write(self, line: bytes) -> None:
        """Write to stdin at once."""
        self._stdin.write(line)
        self._stdin.flush()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process and to all that it started, as far as they are there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def await_end(self) -> int:
        """Wait until it has ended by itself; return the exit status."""
        return self._process.wait(STOP_SECONDS)

    def end(self) -> None:
        """Close stdin and wait; kill what is left of the group then."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill the group and close the pipes; safe to repeat."""
        self.send(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()


class Reference:
    """NorFab in another process, with an environment folder of its own; calls go to `reference/driver.py`."""

    def __init__(self, python: str, folder: Path, inventory: Mapping[str, Any]) -> None:
        self.folder = folder
        (folder / "inventory.yaml").write_text(inventory_text(inventory), encoding="utf-8")
        self._process = _Piped([python, str(DRIVER), str(folder)], folder, folder / "stderr")

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the driver and return what it returned, within `CALL_SECONDS`."""
        self._process.write(json.dumps([method, arguments]).encode() + b"\n")
        answer = json.loads(self._process.line(CALL_SECONDS) or b'{"error": "no answer in time"}')
        if "error" in answer:
            pytest.fail(f"{method}: {answer['error']}; stderr: {self._process.errors.read_text()[-2_000:]}")
        return answer["value"]

    def stop(self) -> None:
        """End the driver and every process that it started."""
        self._process.end()


class ReferenceProcess:
    """The reference's broker, or one of its workers: `reference/process.py`.

    It is starting, not started, when this returns, so that several can start side by side.
    """

    def __init__(self, python: str, folder: Path, worker: str | None = None) -> None:
        self.name = worker or "broker"
        words = [str(folder), *([worker] if worker else [])]
        self._process = _Piped([python, str(PROCESS), *words], folder, folder / f"{self.name}.stderr")

    @property
    def pid(self) -> int:
        """The id of the process that has the socket."""
        return self._process.pid

    def await_ready(self) -> None:
        """Wait until it says that its start is over: a broker is bound then, a worker has still to join."""
        said = self._process.line(READY_SECONDS)
        if said != b"ready\n":
            pytest.fail(f"{self.name} said {said!r}; stderr: {self._process.errors.read_text()[-2_000:]}")

    def await_end(self) -> int:
        """Wait until it has ended by itself; return the exit status."""
        return self._process.await_end()

    def stop(self) -> None:
        """End it as the reference ends it, frozen or not; safe to repeat."""
        self.thaw()
        self._process.send(signal.SIGTERM)
        self._process.end()

    def kill(self) -> None:
        """Kill it, as a crash or a power cut does; safe to repeat."""
        self._process.kill()

    def freeze(self) -> None:
        """Stop it where it is, its sockets open, until `thaw`."""
        self._process.send(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send(signal.SIGCONT)
