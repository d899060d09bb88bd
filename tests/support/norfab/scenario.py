"""The parts of failures in a fabric: workers of ours that joined it, observers, and peers that cause trouble."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import zmq

from nfcli import Client, NorFab
from nfcli.models.environment.curve_keys import KeyPair
from nfcli.models.environment.paths import Environment
from nfcli.models.protocol.broker_connection import BrokerAddress, BrokerConnection
from nfcli.models.protocol.broker_replies import KEEPALIVE_SECONDS
from nfcli.models.protocol.frames import WORKER_HEADER, Command, Signal
from support.norfab.observers import BrokerView, changes_by_token, mcp_client, store_token, until
from support.norfab.sites import EnvironmentJoiner, FabricMaker
from support.programs import PROGRAM, Program, Terminal, within
from support.workers import NfcliRunner, RunningWorker, WorkerRunner

DEMO = "demo-worker-1"
REJOIN_SECONDS = 20.0
REPORT_SECONDS = 3.2
"""Three seconds; the rest is for writing and reading."""
START_SECONDS = 2.0
"""What the start of a program may take on a busy machine."""
JOB_SECONDS = 60.0
WAIT_SECONDS = 30.0
CHECK = "fastmcp auth check-token token x"
CLEAR_LINE = "\x1b[K"


@dataclass(frozen=True)
class Scenario:
    """The fixtures, and the fabric that the failures of workers share."""

    new_fabric: FabricMaker
    joined_environment: EnvironmentJoiner
    running_worker: WorkerRunner
    nfcli: NfcliRunner
    fabric: Any
    folder: Path

    @property
    def view(self) -> Any:
        """The list of the broker that the failures of workers share."""
        return BrokerView(self.fabric.endpoint, self.fabric.shared_key)

    @contextlib.contextmanager
    def member(self, fabric: Any, name: str, **settings: Any) -> Iterator[Member]:
        """Run a worker of ours that joins a fabric, with an MCP client that calls its tools all the time."""
        environment = self.joined_environment(fabric, name, **settings)
        store_token(environment, name)
        norfab = NorFab(environment.inventory_file)
        try:
            with self.running_worker(environment, name) as worker, mcp_client(worker.url) as mcp:
                yield Member(environment, name, worker, mcp, norfab, norfab.make_client())
        finally:
            norfab.destroy()


@dataclass(frozen=True)
class Member:
    """A running worker of ours, who calls its tools, and a client for its jobs."""

    environment: Environment
    name: str
    worker: RunningWorker
    mcp: Any
    norfab: NorFab
    client: Client

    def value(self, task: str, timeout: float = 20.0, uuid: str | None = None, **kwargs: Any) -> Any:
        """Run a job; return its value, or its errors."""
        results = self.client.run_job("fastmcp", task, uuid=uuid, kwargs=kwargs, workers=self.name, timeout=timeout)
        (result,) = results.values()
        return result["errors"] if result["failed"] else result["result"]

    def assert_back(self, view: Any) -> None:
        """Fail unless the worker is registered in time and hears of jobs."""
        began = time.monotonic()
        view.await_alive(self.name, seconds=REJOIN_SECONDS)
        assert self.value("bearer_token_check", token="x") is False
        assert time.monotonic() - began < REJOIN_SECONDS

    def assert_nothing_ran_twice(self, *, stored: int) -> None:
        """Fail unless at least so many tokens were stored, and each of them once."""
        counts = changes_by_token(self.environment.audit_file(self.name)).values()
        assert set(counts) <= {1}
        assert len(counts) >= stored


@dataclass(frozen=True)
class Shells:
    """Shells on a member's environment that ran before the failure, and one that is started new each time."""

    member: Member
    nfcli: NfcliRunner
    script: Any
    prompt: Any

    def run_check(self) -> list[str]:
        """Run the same command in all, each within the time limit; return what they print."""
        with ThreadPoolExecutor() as pool:
            said = [
                pool.submit(within, REPORT_SECONDS, partial(self.script.run_line, CHECK)),
                pool.submit(within, REPORT_SECONDS, self._run_at_the_prompt),
                pool.submit(within, REPORT_SECONDS + START_SECONDS, self._run_in_a_new_one),
            ]
        return [each.result() for each in said]

    def _run_at_the_prompt(self) -> str:
        # The line that shows the elapsed time precedes it and is erased.
        return str(self.prompt.run(CHECK).rpartition(CLEAR_LINE)[2])

    def _run_in_a_new_one(self) -> str:
        done = self.nfcli("-c", *CHECK.split(), environment=self.member.environment)
        assert done.returncode == (3 if done.stderr else 0)
        return done.stdout + done.stderr

    def assert_reported(self, pattern: str) -> None:
        """Fail unless all say in one line what is wrong, and the MCP client is served."""
        assert [text for text in self.run_check() if not re.fullmatch(rf"(line \d+: )?{pattern}[^\n]*\n", text)] == []
        self.member.mcp.assert_served()

    def assert_answered(self) -> None:
        """Fail unless all print the result."""
        assert self.run_check() == [f'{{\n    "{self.member.name}": false\n}}\n'] * 3


_opening = threading.Lock()
"""Warnings are switched off for a moment, which one thread at a time may do."""


@contextlib.contextmanager
def shells(member: Member, nfcli: NfcliRunner) -> Iterator[Shells]:
    """Open shells that start no workers."""
    words = [str(PROGRAM), "-i", str(member.environment.inventory_file), "-c"]
    with _opening:
        script, prompt = Program(words), Terminal(words, {}, None)
    try:
        prompt.wait_for_prompt()
        yield Shells(member, nfcli, script, prompt)
    finally:
        script.kill()
        prompt.child.close(force=True)


class Thief:
    """Serves under somebody else's name, as the reference does: READY, and then keepalives.

    `received` counts the broker's. Signs off at the end of the `with` block.
    """

    def __init__(self, address: BrokerAddress, name: str) -> None:
        self.received = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        keys = KeyPair(*zmq.curve_keypair())
        self._link = BrokerConnection(self._context, address, name=name.encode(), keys=keys)
        self._due = time.monotonic()

    def __enter__(self) -> Self:
        self._link.wait_until_up(time.monotonic() + WAIT_SECONDS)
        self._send(Command.READY)
        return self

    def __exit__(self, *_: object) -> None:
        self._send(Command.DISCONNECT)
        self._link.close(linger_seconds=1.0)
        self._context.term()

    def carry_on(self) -> int:
        """Send what is due and read what has come; return how many keepalives have been received."""
        if time.monotonic() >= self._due:
            self._due += KEEPALIVE_SECONDS
            self._send(Command.KEEPALIVE)
        self.received += sum(frames[2] == Command.KEEPALIVE for frames in self._link.messages())
        return self.received

    def _send(self, command: bytes) -> None:
        self._link.send(Signal(WORKER_HEADER, command, "fastmcp").frames())


class Walk:
    """A job of our client's on the reference's worker, which goes on when it gets bytes from a named pipe."""

    def __init__(self, member: Member, gate: Path, pool: ThreadPoolExecutor) -> None:
        self.notices: list[tuple[float, str]] = []
        os.mkfifo(gate)
        # Open for both, so that neither end waits for the other to come.
        self._gate = os.open(gate, os.O_RDWR)
        self._steps: list[str] = []
        client = member.norfab.make_client(
            notice=lambda text: self.notices.append((time.monotonic(), text)),
            on_progress=lambda _, text: self._steps.append(text),
        )
        kwargs = {"steps": 2, "gate": str(gate)}
        self._job = pool.submit(client.run_job, "demo", "walk", kwargs=kwargs, workers=DEMO, timeout=JOB_SECONDS)
        until(lambda: self._steps, "the first step")

    def assert_done(self, endpoint: str) -> None:
        """Let it end; fail unless it was walked once and the client was notified that the broker is back."""
        os.write(self._gate, b"..")
        os.close(self._gate)
        result = self._job.result(JOB_SECONDS)[DEMO]
        assert (result["result"], result["errors"]) == (2, [])
        assert self._steps[0] == "step 1 of 2"
        assert [text for _, text in self.notices][1:] == [f"the broker at {endpoint} is back"]
