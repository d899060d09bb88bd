"""What the end-to-end tests share: the installed program at a terminal and in the background, and bounded waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.programs import PROGRAM, InTime, Program, ProgramStarter, Terminal, TerminalStarter, Watch, Watched, within
from support.workers import EnvironmentFactory, RunningWorker, WorkerRunner

# prompt_toolkit switches bracketed paste on when it begins to read a line and off when it has one.


@pytest.fixture
def open_terminal(token_watch: Any) -> Iterator[TerminalStarter]:
    """Start the installed program at terminals; all that a test started is gone at its end."""
    opened: list[Terminal] = []

    def start(
        *words: str, environment: Environment | None = None, umask: int | None = None, **environ: str
    ) -> Terminal:
        where = ["-i", str(environment.inventory_file)] if environment else []
        terminal = Terminal([str(PROGRAM), *where, *words], environ, umask)
        terminal.note = token_watch.note_given
        opened.append(terminal)
        return terminal

    yield start
    for terminal in opened:
        terminal.child.close(force=True)


@pytest.fixture
def start_program(token_watch: Any) -> Iterator[ProgramStarter]:
    """Start `nfcli` with the given words, or another `command`, in the background; killed at the test's end."""
    started: list[Program] = []

    def start(*words: str, environment: Environment | None = None, command: Sequence[str] = (), **options: Any) -> Any:
        where = ["-i", str(environment.inventory_file)] if environment else []
        program = Program([*(command or [str(PROGRAM)]), *where, *words], **options)
        program.note = token_watch.note_given
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()


@pytest.fixture
def watch(token_watch: Any) -> Iterator[Watch]:
    """Watch the process that runs a worker of an environment; it is killed at the test's end if it is still there."""
    watched: list[Watched] = []

    def start(environment: Environment, name: str = DEFAULT_WORKER) -> Watched:
        watched.append(Watched(environment, name))
        token_watch.note_process(watched[-1].pid)
        return watched[-1]

    yield start
    for each in watched:
        if not each.is_gone_within(0):
            each.kill()
        each.close()


@pytest.fixture(scope="module")
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make the environment that the tests of a module share, with one worker."""
    return environment_factory()


@pytest.fixture(scope="module")
def worker(environment: Environment, running_worker: WorkerRunner) -> Iterator[RunningWorker]:
    """Run the worker that the tests of a module share."""
    with running_worker(environment) as worker:
        yield worker


@pytest.fixture(scope="module")
def client(environment: Environment, worker: RunningWorker) -> Iterator[Client]:
    """Make a client, in this process, of the module's worker."""
    assert worker.process.poll() is None
    norfab = NorFab(environment.inventory_file)
    try:
        yield norfab.make_client()
    finally:
        norfab.destroy()


@pytest.fixture
def no_tokens(client: Client) -> None:
    """Begin the test with no token stored at the module's worker."""
    (listed,) = client.run_job("fastmcp", "bearer_token_list").values()
    for username in {row["username"] for row in listed["result"]}:
        client.run_job("fastmcp", "bearer_token_delete", kwargs={"username": username})


@pytest.fixture(scope="session")
def in_time() -> InTime:
    """Hold a call to its time, without taking a pause of the machine's for one of the program's."""
    return within
