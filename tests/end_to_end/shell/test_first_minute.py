"""What a newcomer reads: where clients connect, how they get a token, and what ends with the shell."""

from __future__ import annotations

import re
import socket
import sys
from contextlib import closing

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER
from support.programs import TerminalStarter
from support.workers import EnvironmentFactory, NfcliRunner, WorkerRunner

pytestmark = pytest.mark.slow

STOPPED = (
    f"nfcli: worker {DEFAULT_WORKER} was stopped with this nfcli, which had started it: nfcli -w keeps it running\n"
)


def test_command_that_started_a_worker_says_that_it_ended(
    nfcli: NfcliRunner, environment_factory: EnvironmentFactory, running_worker: WorkerRunner
) -> None:
    """On stderr, after the result; a script too. A worker that was there before stays, and nothing is said."""
    environment = environment_factory()
    check = "fastmcp auth check-token token x"
    one = nfcli(*check.split(), environment=environment, has_stop_notice=True)
    assert (one.returncode, one.stderr) == (0, STOPPED)
    script = nfcli(stdin=f"{check}\n", environment=environment, has_stop_notice=True)
    assert (script.returncode, script.stderr) == (0, STOPPED)
    assert nfcli("show", "norfab", "client", environment=environment, has_stop_notice=True).stderr == ""
    with running_worker(environment):
        assert nfcli(*check.split(), environment=environment, has_stop_notice=True).stderr == ""


def test_prompt_names_url_and_token_and_says_what_ends_with_it(
    open_terminal: TerminalStarter, environment_factory: EnvironmentFactory
) -> None:
    """A second shell has the same URL; while it runs the worker goes on, so nothing is said then."""
    environment = environment_factory()
    greeting = (
        r"MCP clients connect to (http://127\.0\.0\.1:\d+/mcp), with a token: fastmcp auth create-token username NAME"
    )
    first = open_terminal(environment=environment)
    first.child.expect(greeting)
    url = first.child.match[1]
    first.wait_for_prompt()
    second = open_terminal(environment=environment)
    second.child.expect(greeting)
    assert second.child.match[1] == url
    second.wait_for_prompt()
    assert second.leave() == 0
    first.child.sendeof()
    first.child.expect_exact(STOPPED.strip())


def test_taken_port_names_file_key_and_process(nfcli: NfcliRunner, environment_factory: EnvironmentFactory) -> None:
    """The first thing that goes wrong where two environments have the default port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        environment = environment_factory(port=taken.getsockname()[1])
        failed = nfcli("-w", environment=environment)
    assert failed.returncode == 1
    by = r"by \S+ \(pid \d+\): stop that" if sys.platform.startswith("linux") else "stop the program that uses it"
    assert re.fullmatch(
        rf"nfcli: worker {DEFAULT_WORKER} can't start: port \d+ on 127\.0\.0\.1 is already in use:? {by}, "
        rf"or set another port in {environment.folder}/\S+: \S*port \(0 selects a free one\)\n",
        failed.stderr,
    )
