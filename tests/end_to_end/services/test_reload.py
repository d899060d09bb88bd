"""SIGHUP to `nfcli -w`: the inventory is read again, all of it or nothing, and logs are reopened."""

from __future__ import annotations

import json
import re
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.mcp.certificates import make_certificates, trusting
from support.programs import Program, ProgramStarter, TerminalStarter, Watch
from support.workers import EnvironmentFactory

pytestmark = pytest.mark.slow

Write = Callable[..., None]
STOP_SECONDS = 10.0
READY = r"nfcli: worker (\S+) is ready \(pid (\d+)\): MCP at (http://\S+/mcp)\n"
DONE = rf"nfcli: worker {DEFAULT_WORKER} has read its inventory again: ([^\n]*)\n"


@pytest.fixture
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make an environment of one worker."""
    return environment_factory()


@pytest.fixture
def write(environment: Environment) -> Write:
    """Change the inventory: keys of the worker, and further workers by name."""
    file = environment.inventory_file
    assert file is not None
    before = json.loads(file.read_text())

    def change(*names: str, **keys: Any) -> None:
        settings = before["workers"][DEFAULT_WORKER][0]
        workers = {DEFAULT_WORKER: [settings | keys], **{name: [settings | keys] for name in names}}
        file.write_text(json.dumps(before | {"workers": workers, "topology": {"workers": [*workers]}}))

    return change


@pytest.fixture
def foreground(environment: Environment, start_program: ProgramStarter) -> Iterator[tuple[Program, str]]:
    """Run the workers in the foreground; return the program and the URL of the first one."""
    program = start_program("-w", environment=environment)
    url = program.wait_for(READY)[3]
    yield program, url
    program.process.terminate()
    assert program.end() == 0


def status(url: str, host: str) -> int:
    """Return the status of a request without a token, by this name: 401 where the name is allowed, else 421."""
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=20)
    try:
        connection.request("POST", "/mcp", body="{}", headers={"Host": host, "Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def connects(url: str, folder: Path) -> bool:
    """Whether a client that trusts the CA of `folder` connects."""
    parts = urlsplit(url)
    connection = HTTPSConnection(str(parts.hostname), parts.port, timeout=20, context=trusting(folder))
    with closing(connection):
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except ssl.SSLCertVerificationError:
            return False


def test_hosts_change_and_a_mistake_changes_nothing(
    foreground: tuple[Program, str], environment: Environment, write: Write
) -> None:
    """A line says what is in force, what has to wait for a start, or which mistake there is."""
    program, url = foreground
    assert status(url, "mcp.example.com") == 421
    write(allowed_hosts=["mcp.example.com"], signed_jobs="required")
    program.process.send_signal(signal.SIGHUP)
    assert program.wait_for(DONE)[1] == "in force now: allowed_hosts; changed at the next start: signed_jobs"
    assert (status(url, "mcp.example.com"), status(url, "other.example.com")) == (401, 421)
    write(allowed_host=["other.example.com"])
    program.process.send_signal(signal.SIGHUP)
    said = program.wait_for(r"nfcli: nothing was changed: ([^\n]*)\n")[1]
    assert ("allowed_host: no such key" in said, str(environment.inventory_file) in said) == (True, True)
    assert (status(url, "mcp.example.com"), status(url, "other.example.com")) == (401, 421)
    write()
    program.process.send_signal(signal.SIGHUP)
    assert program.wait_for(DONE)[1].startswith("in force now: allowed_hosts")
    assert status(url, "mcp.example.com") == 421


def test_named_certificates_change(environment: Environment, write: Write, start_program: ProgramStarter) -> None:
    """Other paths are in force at once; a mistake in one of them changes nothing."""
    made = {name: make_certificates(environment.folder / name) for name in ("old", "new")}
    write(tls=made["old"])
    program = start_program("-w", environment=environment)
    url = program.wait_for(READY.replace("http:", "https:"))[3]
    assert [connects(url, environment.folder / name) for name in ("old", "new")] == [True, False]
    for named, said in (
        (made["new"], "has read its inventory again: in force now: tls"),
        (made["new"] | {"keyfile": made["old"]["keyfile"]}, "changed nothing: tls.keyfile: "),
    ):
        write(tls=named)
        program.process.send_signal(signal.SIGHUP)
        program.wait_for(re.escape(f"nfcli: worker {DEFAULT_WORKER} {said}"))
        assert [connects(url, environment.folder / name) for name in ("old", "new")] == [False, True]
    program.process.terminate()
    assert program.end() == 0


def test_a_worker_that_was_starting_reads_the_inventory_again(foreground: tuple[Program, str], write: Write) -> None:
    """It may have read it before the change."""
    program, _ = foreground
    write("w2")
    program.process.send_signal(signal.SIGHUP)
    program.wait_for(DONE)
    write("w2", allowed_hosts=["mcp.example.com"])
    program.process.send_signal(signal.SIGHUP)
    url = program.wait_for(r"nfcli: worker w2 is ready \(pid \d+\): MCP at (http://\S+/mcp)\n")[1]
    program.wait_for(r"nfcli: worker w2 has read its inventory again: [^\n]*\n")
    assert status(url, "mcp.example.com") == 401


def test_logs_are_reopened(foreground: tuple[Program, str], environment: Environment) -> None:
    """After a program that rotates logs has moved the file."""
    program, _ = foreground
    log = environment.log_file(DEFAULT_WORKER)
    moved = log.with_suffix(".1")
    log.rename(moved)
    program.process.send_signal(signal.SIGHUP)
    assert program.wait_for(DONE)[1] == "nothing to apply"
    assert log.stat().st_mode & 0o777 == 0o600
    assert ["read the inventory again" in file.read_text() for file in (moved, log)] == [False, True]


def test_workers_come_and_go_with_the_inventory(
    foreground: tuple[Program, str], environment: Environment, write: Write, watch: Watch
) -> None:
    """A new one is started, one that is no longer listed is stopped, and the first one stays."""
    program, url = foreground
    write("w2")
    program.process.send_signal(signal.SIGHUP)
    assert program.wait_for(READY)[1] == "w2"
    added = watch(environment, "w2")
    write()
    program.process.send_signal(signal.SIGHUP)
    program.wait_for(r"nfcli: worker w2 was stopped: ")
    assert added.is_gone_within(STOP_SECONDS)
    assert status(url, "localhost") == 401


def test_a_closed_terminal_ends_the_foreground(
    open_terminal: TerminalStarter, environment: Environment, watch: Watch
) -> None:
    """As before: nobody would see what it reports."""
    terminal = open_terminal("-w", environment=environment)
    terminal.child.expect("is ready")
    worker = watch(environment)
    terminal.hang_up()
    terminal.child.ptyproc.wait()
    assert worker.is_gone_within(STOP_SECONDS)
