"""A shell session over the fake client, with its output as text."""

from __future__ import annotations

import io
from typing import Any

from nfcli.shell.output.console import Console
from nfcli.shell.repl.session import Session
from support.shell.fake_client import FakeClient

Printed = tuple[int, str, str]
"""Exit status, stdout and stderr of a command."""


class ShellBench:
    """A session over a fake client, and what it has printed."""

    def __init__(self, client: FakeClient, **options: Any) -> None:
        self.client = client
        self.out = io.StringIO()
        self.err = io.StringIO()
        self.session = Session(client, console=Console(self.out, self.err), **options)

    def run(self, line: str) -> tuple[int, str, str]:
        """Run a line; return its exit status and what it wrote to stdout and stderr."""
        return self._printed(self.session.run_line(line))

    def run_words(self, *words: str) -> tuple[int, str, str]:
        """Run the words of a command line; return as `run` does."""
        return self._printed(self.session.run_words(words))

    def _printed(self, status: int) -> tuple[int, str, str]:
        printed = status, self.out.getvalue(), self.err.getvalue()
        for stream in (self.out, self.err):
            stream.seek(0)
            stream.truncate()
        return printed
