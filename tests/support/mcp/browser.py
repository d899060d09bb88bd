"""Chromium without a window, and the pages that it opens.

Each name leads to this machine, so that pages have whatever origin a test wants, and none reaches another machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

CHROMIUM = "chromium"
SECONDS = 120.0
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * 127.0.0.1",
)
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Pages:
    """A web server with pages, in a `with` block; a page reports what it saw with a POST of JSON to `/seen`.

    Args:
        files: what it serves, by path.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._seen: queue.Queue[Any] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(files, self._seen))
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="pages")

    @staticmethod
    def _handler(files: Mapping[str, bytes], seen: queue.Queue[Any]) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                found = files.get(path)
                self.send_response(404 if found is None else 200)
                self.send_header("content-type", _TYPES.get(Path(path).suffix, "application/octet-stream"))
                self.send_header("content-length", str(len(found or b"")))
                self.end_headers()
                self.wfile.write(found or b"")

            def do_POST(self) -> None:
                seen.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def opened(self, host: str, path: str, profile: Path) -> Any:
        """Open the page of a path at a host in Chromium; return what it reports. `profile` is an empty folder."""
        with _chromium(f"http://{host}:{self.port}{path}", profile) as log:
            try:
                return self._seen.get(timeout=SECONDS)
            except queue.Empty:
                raise AssertionError(f"the page reports nothing; Chromium's log:\n{log.read_text()[-4_000:]}") from None


@contextlib.contextmanager
def _chromium(url: str, profile: Path) -> Iterator[Path]:
    """Show a page; the `with` target is where Chromium writes its log."""
    log = profile / "log"
    with log.open("wb") as output:
        # Its children are in its process group.
        browser = subprocess.Popen(
            [CHROMIUM, *_OPTIONS, f"--user-data-dir={profile / 'profile'}", url],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield log
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
