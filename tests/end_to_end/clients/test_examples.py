"""Every example of README.md and the manual's pages does what it says; see `tests/support/examples.py`.

The blocks of a document are run in order, in one home with one worker of the default environment. The worker's port is
a free one, which takes the place of the documents' 8001; `$NFCLI_TOKEN` is a token while a block needs it. Output is
compared after what differs from run to run is masked.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.locations import find_environment
from nfcli.shell.output.console import Console
from nfcli.shell.repl.session import Session
from support import examples
from support.workers import EnvironmentFactory, NfcliRunner, WorkerRunner, without_stop_notice

pytestmark = pytest.mark.slow

SECONDS = 60
TOKEN = "nfcli-token"
INVENTORY = "workers: {fastmcp-worker-1: [{service: fastmcp, port: 0, authentication_enabled: true}]}\n"
# What a client's configuration may say in place of the token.
PLACEHOLDERS = re.compile(r"\$\{(?:input:nfcli-token|env:NFCLI_TOKEN|NFCLI_TOKEN)\}")
MASKS = (
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\.\d+(\+00:00|Z)?", "TIME"),
    (r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}", "TIME"),
    (r"\d+:\d\d:\d\d(\.\d{6})?", "AGE"),
    (r"(AGE {2,})\d+ +\d+\.\d+ +\d+(?= |$)", r"\1MEMORY  CPU  JOBS"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"\b[0-9a-f]{32}\b", "TOKEN"),
    (r"\b[0-9a-f]{12}\b", "FINGERPRINT"),
    (r"fleet key: id [0-9a-f]{8}\b", "fleet key: id ID"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"ipc://\S+  \d+", "ipc://SOCKET  SECONDS"),
    (r"pid \d+, at ipc://\S+", "pid PID, at ipc://SOCKET"),
    (r"\S+@\S+( \(sudo: \S+\))?  uid \d+ pid \d+", "ORIGIN  ADDRESS"),
    (r'"origin": "[^"]*"', '"origin": "ORIGIN"'),
    (r"uid \d+ pid \d+", "ADDRESS"),
    (r'(public_key|client)": "\S{40}"', r'\1": "KEY"'),
    (r"(?<=\S) {2,}", "  "),  # what is masked has changed the width of columns
)
# Stands in for Claude Code: takes the words of `claude mcp add` and calls the server as that configuration says.
CLAUDE = f"""#!/bin/sh
exec {shlex.quote(sys.executable)} - "$@" <<'END'
import sys, urllib.request
mcp, add, _, transport, name, url, option, header = sys.argv[1:]
assert (mcp, add, transport, option) == ("mcp", "add", "http", "--header"), sys.argv
name, _, value = header.partition(": ")
body = b'{{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}}'
headers = {{name: value, "Content-Type": "application/json", "Accept": "application/json"}}
assert b'"tools"' in urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10).read()
END
"""


def masked(text: str) -> str:
    """Return text without what differs from run to run."""
    for pattern, mask in MASKS:
        text = re.sub(pattern, mask, text)
    return text


def check(place: str, expected: str, actual: str) -> None:
    """Compare output with what a document says; a line `…` stands for any lines."""
    wanted, got = masked(expected).splitlines(), masked(actual).splitlines()
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(f"{line}\n") for line in wanted)
    if not re.fullmatch(pattern, "".join(f"{line}\n" for line in got)):
        assert got == wanted, place


class Typed:
    """Somebody who types a secret where one is asked for."""

    def __init__(self, screen: io.StringIO) -> None:
        self._screen = screen

    def read(self, name: str) -> str:
        """Return a secret; the screen shows what a terminal would."""
        self._screen.write(f"{name}: ********\n")
        return "typed-secret"

    def discard(self) -> None:
        """Type nothing."""


@dataclass(frozen=True)
class Desk:
    """Where a document's examples are run: a home, a working folder in it, the worker's URL, and a client of it."""

    home: Path
    folder: Path
    url: str
    client: Client

    def adapted(self, text: str) -> str:
        """Return an example with this worker's address in place of the documents'."""
        return text.replace("http://127.0.0.1:8001", self.url.removesuffix("/mcp"))

    def said(self, text: str) -> str:
        """Return output with the documents' home in place of this one."""
        return text.replace(str(self.home), "/home/ann")

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in bash, output and errors in one text, as a terminal shows them."""
        path = os.pathsep.join([str(self.home / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "-c", self.adapted(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={**os.environ, "PATH": path, "NFCLI_TOKEN": TOKEN, "LC_ALL": "C.UTF-8"},
            text=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )
        done.stdout = without_stop_notice(done.stdout)  # a reader's worker runs elsewhere
        return done

    @contextlib.contextmanager
    def token(self, text: str) -> Iterator[None]:
        """Let a token be good where a text asks for the reader's own."""
        if not PLACEHOLDERS.search(text) and "NFCLI_TOKEN" not in text:
            yield
            return
        self.client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "nfcli", "token": TOKEN})
        yield
        self.client.run_job("fastmcp", "bearer_token_delete", kwargs={"token": TOKEN})

    def file(self, block: Any) -> None:
        """Write a block to its file."""
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")

    def console(self, block: Any) -> None:
        """Run the commands of a transcript in one shell."""
        script, expected = [], []
        for line in block.text.splitlines():
            if line.startswith("$ "):
                script.append(line[2:])
                expected.append("")
            elif line.startswith("> "):
                script[-1] += f"\n{line[2:]}"
            else:
                expected[-1] += f"{line}\n"
        # Behind each command a mark on a line of its own, the exit status kept for an `echo $?`.
        between = "\n_status=$?; printf '\\n\\001'; (exit $_status)\n"
        done = self.shell(between.join(["true", *script, ""]))
        outputs = done.stdout.split("\n\x01")[1:-1]
        for command, wanted, got in zip(script, expected, outputs, strict=True):
            check(f"{block.location} {command}", wanted, self.said(got))

    def nf(self, block: Any) -> None:
        """Type the lines of a transcript in one session."""
        screen = io.StringIO()
        session = Session(self.client, console=Console(screen, screen), secrets=Typed(screen))
        for part in re.split(r"^(?=nf(?:\[[\w-]+\])?#)", block.text, flags=re.MULTILINE)[1:]:
            line, _, expected = part.partition("\n")
            prompt, _, typed = line.partition("#")
            assert session.navigator.prompt == f"{prompt}#", block.location
            screen.seek(0)
            screen.truncate()
            session.run_line(typed)
            check(f"{block.location} {typed}", expected, self.said(screen.getvalue()))

    def python(self, block: Any, output: str | None) -> None:
        """Run a program, and compare its output with the document's, if it has one."""
        (self.folder / "program.py").write_text(self.adapted(block.text), encoding="utf-8")
        done = self.shell(f"{shlex.quote(sys.executable)} program.py")
        assert done.returncode == 0, f"{block.location}\n{done.stdout}"
        if output is not None:
            check(block.location, output, self.said(done.stdout))

    def sh(self, block: Any) -> None:
        """Run commands that have to succeed."""
        done = self.shell(f"set -euo pipefail\n{block.text}")
        assert done.returncode == 0, f"{block.location}\n{done.stdout}"

    def json(self, block: Any) -> None:
        """Call the worker as the configuration of a client says."""
        found = json.loads(PLACEHOLDERS.sub(TOKEN, self.adapted(block.text)))
        (server,) = (found.get("servers") or found["mcpServers"]).values()
        headers = {**server["headers"], "Content-Type": "application/json", "Accept": "application/json"}
        body = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'
        request = urllib.request.Request(server["url"], body, headers)  # noqa: S310  the worker's own address
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            assert json.load(answer)["result"]["tools"], block.location


@pytest.fixture
def desk(home: Path, running_worker: WorkerRunner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Prepare home, folder and worker for one document."""
    folder = home / "lab"
    folder.mkdir()
    monkeypatch.chdir(folder)
    environment = find_environment()
    environment.folder.mkdir(parents=True)
    (environment.folder / "inventory.yaml").write_text(INVENTORY, encoding="utf-8")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    claude = home / "bin" / "claude"
    claude.parent.mkdir()
    claude.write_text(CLAUDE, encoding="utf-8")
    claude.chmod(0o700)
    with running_worker(environment) as worker, NorFab() as norfab:
        yield Desk(home, folder, worker.url, norfab.make_client())


def run(desk: Desk, blocks: list[Any]) -> None:
    """Run a document's blocks in order."""
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        output = following.text if following is not None and following.mark == "output" else None
        actions: dict[str, Callable[[], None]] = {
            "console": lambda block=block: desk.console(block),
            "nf": lambda block=block: desk.nf(block),
            "python": lambda block=block, output=output: desk.python(block, output),
            "sh": lambda block=block: desk.sh(block),
            "json": lambda block=block: desk.json(block),
        }
        if block.file:
            desk.file(block)
        elif block.is_run and block.language in actions and ("curl" not in block.text or shutil.which("curl")):
            with desk.token(block.text):
                actions[block.language]()


RUN_LANGUAGES = {"console", "nf", "python", "sh", "json"}
MANY_PROGRAMS = {"man/pages/backup.md", "man/pages/python.md", "man/pages/scripting.md"}


def documents() -> Iterator[Any]:
    """Yield the documents that have examples to run; those that start many programs are slow."""
    for name in examples.DOCUMENTS:
        if any(block.is_run and not block.file and block.language in RUN_LANGUAGES for block in examples.blocks(name)):
            yield pytest.param(name, marks=pytest.mark.slow if name in MANY_PROGRAMS else ())


@pytest.mark.parametrize("document", list(documents()))
def test_the_examples_of_a_document_do_what_it_says(document: str, desk: Desk) -> None:
    """Results, error lines and exit statuses come out as written."""
    run(desk, examples.blocks(document))


def parsed(text: str) -> list[Any]:
    """Return the blocks of a text that stands in no document."""
    return list(examples.blocks("broken.md", text))


BROKEN = {
    "a wrong result": '```nf\nnf#fastmcp auth check-token token x\n{\n    "fastmcp-worker-1": true\n}\n```\n',
    "a missing line": "```nf\nnf#fastmcp auth check-token\n```\n",
    "a wrong prompt": "```nf\nnf[fastmcp]#pwd\nroot\n```\n",
    "another error line": "```console\n$ nfcli nonsense\nnonsense is unknown\n```\n",
    "another exit status": "```console\n$ nfcli nonsense 2>/dev/null\n$ echo $?\n0\n```\n",
    "a command that isn't there": "```sh\nnfcli no such command\n```\n",
    "a program that fails": "```python\nfrom nfcli import NoSuchName\n```\n",
    "another output": "```python\nprint(1)\n```\n\n<!-- output -->\n```text\n2\n```\n",
    "a header that opens nothing": (
        '```json\n{"servers": {"n": {"url": "http://127.0.0.1:8001/mcp", "headers": {"Authorization": "x"}}}}\n```\n'
    ),
    "another URL": "```sh\nclaude mcp add --transport http n http://127.0.0.1:8001/ --header 'Authorization: x'\n```\n",
}


WHOLE = "```console\n$ nfcli show fastmcp version\n{\n…\n}\n$ nfcli nonsense 2>/dev/null\n$ echo $?\n2\n```\n"


def test_broken_examples_are_found(desk: Desk) -> None:
    """What is wrong in a document turns its test red; a line `…` is no mistake."""
    unnoticed = []
    for what, text in BROKEN.items():
        try:
            run(desk, parsed(text))
        except (AssertionError, OSError):
            continue
        unnoticed.append(what)
    assert unnoticed == []
    run(desk, parsed(WHOLE))


def test_masks_hide_only_what_differs_from_run_to_run() -> None:
    """Moments, ages, made-up tokens, ports, sockets, keys, and the widths of columns."""
    text = " w1  ann  0:00:01.000123  2026-05-31 12:08:51.914919  http://127.0.0.1:8001/mcp  secret-token  None"
    assert masked(text) == " w1  ann  AGE  TIME  http://127.0.0.1:PORT/mcp  secret-token  None"
    assert masked('"client": "' + 40 * "?" + '"  888945f96b824bf1b4358de790c452b6') == '"client": "KEY"  TOKEN'
    assert masked("running, pid 1, at ipc:///run/a.ipc") == "running, pid PID, at ipc://SOCKET"
    assert masked("ipc:///run/a b.ipc   ipc:///run/a.ipc  131") == "ipc:///run/a b.ipc  ipc://SOCKET  SECONDS"


def test_a_client_from_another_machine_gets_in_by_the_steps_of_the_security_page(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner, nfcli: NfcliRunner
) -> None:
    """Each side gets the other's public key; each missing step is reported; removing the key revokes the access."""
    server = environment_factory("mcp-1", endpoint="tcp://127.0.0.1:0")
    with running_worker(server, "mcp-1") as worker:
        laptop = environment_factory("mcp-1", endpoint=worker.endpoint, authentication_enabled=False)
        assert laptop.inventory_file is not None
        inventory = json.loads(laptop.inventory_file.read_text(encoding="utf-8"))
        laptop.inventory_file.write_text(json.dumps({**inventory, "topology": {"workers": []}}), encoding="utf-8")
        known = server.clients_folder / "ann-laptop.key"

        def listed() -> tuple[int, str]:
            done = nfcli("fastmcp", "auth", "list-tokens", environment=laptop)
            return done.returncode, done.stdout + done.stderr

        assert nfcli("show", "norfab", "client", environment=laptop).returncode == 0
        assert listed()[1].startswith("worker mcp-1 can't be reached without its public key: ")
        shutil.copy2(server.keys_folder / "mcp-1.key", laptop.keys_folder)
        assert listed()[1].startswith(f"the worker at {worker.endpoint} doesn't know this client's key: ")
        shutil.copy2(laptop.keys_folder / "client.key", known)
        assert listed() == (0, " worker  username  token  age  creation  expires\n")
        known.unlink()
        assert listed()[0] == 3
