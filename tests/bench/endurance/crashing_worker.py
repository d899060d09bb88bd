"""A worker process that is killed at a chosen byte, in the middle of a write."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import read_owner

READY_SECONDS = 30.0
REQUEST_SECONDS = 10.0

# A write past RLIMIT_FSIZE ends a process as abruptly as a kill, at that byte; Python would ignore the signal.
WORKER = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from nfcli.worker.process import main
sys.exit(main())
"""


class CrashingWorker:
    """The worker of an environment in `folder`: one process after the other.

    `code` is what runs it: its first argument is how long a file it may write in bytes, -1 for no limit, the others
    are the worker's own.
    """

    process: subprocess.Popen[bytes]
    url: str

    def __init__(self, folder: Path, code: str = WORKER) -> None:
        settings = {"service": "fastmcp", "port": 0, "authentication_enabled": True}
        inventory = {"workers": {DEFAULT_WORKER: [settings]}, "topology": {"workers": [DEFAULT_WORKER]}}
        file = folder / "inventory.yaml"
        file.write_text(json.dumps(inventory), encoding="utf-8")  # JSON is YAML
        self.environment = Environment(folder, file)
        self._database = self.environment.tokens_folder(DEFAULT_WORKER) / "cache.db"
        self._socket = Path(self.environment.socket_endpoint(DEFAULT_WORKER).removeprefix("ipc://"))
        self._code = code
        self._errors = (folder / "stderr").open("w+b")

    def start(self, limit_bytes: int | None = None) -> bool:
        """Start a process and wait until it is ready; false if it died of its limit before.

        Raises:
            AssertionError: it isn't ready in time, or then doesn't own name and socket.
        """
        dead_socket = self._socket_time()
        command = [sys.executable, "-c", self._code, str(-1 if limit_bytes is None else limit_bytes)]
        command += ["--environment", str(self.environment.folder), "--name", DEFAULT_WORKER]
        # Its log would be the first file to meet the limit.
        command += ["--log-level", "CRITICAL", "--until-stdin-ends"]
        pipe = subprocess.PIPE
        environ = {**os.environ, "TZ": "UTC"}
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, env=environ)
        line = self._first_line()
        if not line and limit_bytes is not None and self.end() == -signal.SIGXFSZ:
            return False
        said = json.loads(line or "{}")
        assert said.get("event") == "ready", f"the next worker doesn't start: {said or self._error_output()}"
        self.url = said["url"]
        owner = read_owner(self.environment.lock_file(DEFAULT_WORKER))
        assert owner is not None
        assert (owner.pid, owner.ready) == (self.process.pid, True), f"the lock is another's: {owner}"
        assert self._socket_time() not in {None, dead_socket}, "the dead worker's socket is still there"
        return True

    def end(self) -> int:
        """Wait until a process that was killed has ended; return its exit status."""
        status = self.process.wait(READY_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        return status

    def close(self) -> None:
        """End what still runs."""
        with suppress(AttributeError):  # none was started
            self.process.kill()
            self.end()
        self._errors.close()

    def limit_files(self, more_bytes: int) -> None:
        """Let the process die as soon as it writes further than so many bytes beyond the end of its longest file."""
        audit = self.environment.audit_file(DEFAULT_WORKER)
        files = (self._database, self._database.with_name("cache.db-wal"), audit)
        longest = max(file.stat().st_size for file in files if file.exists())
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (longest + more_bytes, resource.RLIM_INFINITY))

    def folded(self) -> int:
        """Return when the write-ahead log was last folded into the database (ns)."""
        return self._database.stat().st_mtime_ns

    def status(self, token: str) -> int:
        """Send an MCP request with a token; return the answer's status."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        headers["Accept"] = "application/json, text/event-stream"
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
        request = urllib.request.Request(self.url, body, headers)  # noqa: S310  the worker's own http address
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def _first_line(self) -> bytes:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS)
        return self.process.stdout.readline() if ready else b""

    def _socket_time(self) -> int | None:
        return self._socket.stat().st_ctime_ns if self._socket.exists() else None

    def _error_output(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode()
