"""A worker that ends before, during and after a job, or hangs: what clients report, and how often the job runs."""

from __future__ import annotations

import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from nfcli import Client, NorFab, NoWorkersError
from nfcli.models.environment.curve_keys import ensure_key_pair
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import LockOwner, WorkerLock, read_owner
from nfcli.models.protocol import connection as link
from nfcli.shell.transport import direct
from nfcli.shell.transport.base import not_running
from support.programs import InTime, ProgramStarter, TerminalStarter, Watch
from support.workers import (
    EnvironmentFactory,
    NfcliRunner,
    RunningWorker,
    WorkerRunner,
    frozen,
    without_stop_notice,
)

pytestmark = pytest.mark.slow

CHECK = "fastmcp auth check-token token x\n"
CREATE = "fastmcp auth create-token username a token t1\n"
FALSE, TRUE = (rf'\{{\n    "{DEFAULT_WORKER}": {value}\n\}}\n' for value in ("false", "true"))
NOT_RUNNING = not_running(DEFAULT_WORKER)
GONE = rf"worker {DEFAULT_WORKER} [^\n]*: once the worker answers again, show fastmcp audit says what it has changed"
STARTED_AGAIN = rf"\Anfcli: worker {DEFAULT_WORKER} had ended and was restarted\n"
REPORT_SECONDS = 30.0  # sooner than any job times out


@pytest.fixture
def norfab(environment_factory: EnvironmentFactory) -> Iterator[NorFab]:
    """Make an environment of one worker, which doesn't run, and close its clients in the end."""
    norfab = NorFab(environment_factory().inventory_file)
    yield norfab
    norfab.destroy()


@pytest.fixture
def norfab_of_all(environment: Environment, worker: RunningWorker) -> Iterator[NorFab]:
    """Make clients of the worker that the module's tests share."""
    assert worker.process.poll() is None
    norfab = NorFab(environment.inventory_file)
    yield norfab
    norfab.destroy()


def run(client: Client, task: str, uuid: str | None = None, timeout: float = 60.0, **kwargs: Any) -> Any:
    """Run a job of the one worker; return its value, or its status and errors."""
    (result,) = client.run_job("fastmcp", task, uuid=uuid, kwargs=kwargs, timeout=timeout).values()
    return (result["status"], result["errors"]) if result["failed"] else result["result"]


def wait_for_jobs(client: Client, count: int) -> None:
    """Wait until so many jobs are in flight beside the one that asks."""
    deadline = time.monotonic() + 60
    while run(client, "get_stats")["jobs"]["jobs_by_status"]["PENDING"] <= count:
        assert time.monotonic() < deadline, f"{count} jobs are not in flight"


@contextmanager
def database_held(environment: Environment) -> Iterator[None]:
    """Hold the database's lock, so that a job that writes goes on for as long as it is held."""
    file = environment.tokens_folder(DEFAULT_WORKER) / "cache.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def killed(worker: RunningWorker) -> None:
    """Kill a worker and wait until it has ended."""
    worker.process.kill()
    worker.process.wait(10)


# Gone before a job, and in its middle


def test_what_a_killed_worker_left_behind_is_not_taken_for_it(
    norfab: NorFab, running_worker: WorkerRunner, nfcli: NfcliRunner, in_time: InTime
) -> None:
    """Its socket, its lock file and its status file are still there; shells and programs fail at once."""
    with running_worker(norfab.environment) as worker:
        client = norfab.make_client()
        assert run(client, "bearer_token_check", token="x") is False
        killed(worker)
    assert norfab.environment.run_folder.joinpath(f"{DEFAULT_WORKER}.ipc").is_socket()
    done = in_time(REPORT_SECONDS, lambda: nfcli("-c", *CHECK.split(), environment=norfab.environment))
    assert (done.returncode, done.stdout, done.stderr) == (3, "", f"{NOT_RUNNING}\n")
    for each in (client, norfab.make_client()):
        with pytest.raises(NoWorkersError, match=f"^{re.escape(NOT_RUNNING)}$"):
            run(each, "bearer_token_check", token="x")


def test_a_worker_that_dies_while_a_client_connects_is_reported_at_once(
    norfab: NorFab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock goes a moment after its socket, which refuses already: the client looks again."""
    monkeypatch.setattr(link, "CONNECT_SECONDS", 60)
    environment = norfab.environment
    environment.prepare()
    ensure_key_pair(environment.keys_folder, DEFAULT_WORKER)
    lock = WorkerLock.acquire(environment.lock_file(DEFAULT_WORKER))
    lock.publish(ready=True, endpoint=environment.socket_endpoint(DEFAULT_WORKER))

    def read_and_release(path: Path) -> LockOwner | None:
        owner = read_owner(path)
        lock.release()
        return owner

    monkeypatch.setattr(direct, "read_owner", read_and_release)
    with pytest.raises(NoWorkersError, match=f"^{re.escape(NOT_RUNNING)}$"):
        run(norfab.make_client(), "bearer_token_check", token="x")


@pytest.mark.parametrize("words", [["-c"], []], ids=["-c", "its own worker"])
def test_a_command_whose_worker_is_killed_meanwhile_fails_at_once(
    norfab: NorFab, running_worker: WorkerRunner, start_program: ProgramStarter, watch: Watch, words: list[str]
) -> None:
    """One line that names the worker and says what to do, status 1; the next worker has nothing of the change."""
    environment = norfab.environment
    with running_worker(environment) if words else no_worker():
        shell = start_program(*words, environment=environment)
        shell.write(CHECK)
        shell.wait_for(FALSE, stream="out")
        worker = watch(environment)
        with database_held(environment):
            shell.write(CREATE)
            wait_for_jobs(norfab.make_client(), 1)
            worker.kill()
            shell.wait_for(
                rf"\Aline 2: {DEFAULT_WORKER}: {GONE}; the token may not be stored there: repeat this\n\Z",
                seconds=REPORT_SECONDS,
            )
        assert shell.end() == 1
    with running_worker(environment):
        assert run(norfab.make_client(), "bearer_token_list") == []


@contextmanager
def no_worker() -> Iterator[None]:
    """Run none: the shell does."""
    yield


def test_a_program_whose_worker_is_killed_meanwhile_gets_a_failed_result_at_once(
    norfab: NorFab, running_worker: WorkerRunner
) -> None:
    """Not an exception: the job may have been done."""
    with running_worker(norfab.environment) as worker, ThreadPoolExecutor(1) as pool:
        client = norfab.make_client()
        job = pool.submit(run, client, "echo", sleep=60, timeout=60)
        wait_for_jobs(norfab.make_client(), 1)
        worker.process.kill()
        status, (error,) = job.result(REPORT_SECONDS)
        assert status == "error"
        assert error == f"worker {DEFAULT_WORKER} has gone away while the job ran"
        worker.process.wait(10)
        with pytest.raises(NoWorkersError, match=f"^{re.escape(NOT_RUNNING)}$"):
            run(client, "bearer_token_check", token="x")
    with running_worker(norfab.environment):
        assert run(client, "bearer_token_check", token="x") is False


# A worker that hangs


def test_a_frozen_worker_costs_the_timeout_and_the_client_goes_on_with_it(
    norfab: NorFab, running_worker: WorkerRunner
) -> None:
    """The abandoned job runs once, however often it is sent again."""
    with running_worker(norfab.environment) as worker:
        client = norfab.make_client()
        store: dict[str, Any] = {"uuid": "the-same", "username": "a", "token": "t1"}
        assert run(client, "bearer_token_check", token="t1") is False
        with frozen(worker.process.pid):
            for _ in range(2):
                status, (error,) = run(client, "bearer_token_store", timeout=0.5, **store)
                assert (status, error.startswith("no answer within 0.5 s, ")) == ("timeout", True)
        assert run(client, "bearer_token_store", **store) is True
        assert run(client, "bearer_token_delete", token="t1") is True
        for each in (client, norfab.make_client()):
            assert run(each, "bearer_token_store", **store) is True
            assert run(each, "bearer_token_check", token="t1") is False


SILENT = r"worker \S+ at ipc://\S+ accepts connections but doesn't answer within 2\.5 s: check its log, or .*"


@pytest.mark.parametrize(
    ("words", "said"),
    [(CHECK, (3, SILENT)), (f"{CHECK} timeout 1", (1, rf"{DEFAULT_WORKER}: no answer within 1 s"))],
    ids=["no timeout", "timeout 1"],
)
def test_a_shell_that_meets_a_frozen_worker_says_so_in_time(
    environment: Environment, worker: RunningWorker, nfcli: NfcliRunner, words: str, said: tuple[int, str]
) -> None:
    """It starts no other one, and when the worker goes on the next command works."""
    status, error_line = said
    with frozen(worker.process.pid):
        done = nfcli(*words.split(), environment=environment, timeout=20)
    assert (done.returncode, done.stdout) == (status, "")
    assert re.fullmatch(f"{error_line}\n", done.stderr)
    again = nfcli(*words.split(), environment=environment)
    assert (again.returncode, again.stderr) == (0, "")


# Killed between two commands


def test_a_script_starts_the_worker_again_that_it_had_started(
    norfab: NorFab, start_program: ProgramStarter, watch: Watch
) -> None:
    """As often as it ends; the script reports it on stderr, goes on, and stops the last one at its end."""
    shell = start_program(environment=norfab.environment)
    shell.write(CREATE)
    shell.wait_for(TRUE, stream="out")
    for _ in range(2):
        worker = watch(norfab.environment)
        worker.kill()
        assert worker.is_gone_within(10)
        shell.write("fastmcp auth check-token token t1\n")
        shell.wait_for(TRUE, stream="out")
        shell.wait_for(STARTED_AGAIN)
    worker = watch(norfab.environment)
    assert (shell.end(), shell.out, without_stop_notice(shell.err)) == (0, "", "")
    assert worker.is_gone_within(0)


def test_a_worker_that_can_not_be_restarted_is_reported_until_it_can(
    norfab: NorFab, start_program: ProgramStarter, watch: Watch
) -> None:
    """The reason is the line's; with it out of the way the next command works."""
    environment = norfab.environment
    shell = start_program(environment=environment)
    shell.write(CHECK)
    shell.wait_for(FALSE, stream="out")
    worker = watch(environment)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        good = set_port(environment, taken.getsockname()[1])
        worker.kill()
        assert worker.is_gone_within(10)
        for number in (2, 3):
            shell.write(CHECK)
            refused = rf"worker {DEFAULT_WORKER} can't start: port \d+ on \S+ is already in use by [^\n]*\n"
            shell.wait_for(rf"\Aline {number}: {refused}\Z")
    assert environment.inventory_file is not None
    environment.inventory_file.write_text(good)
    shell.write(CHECK)
    shell.wait_for(FALSE, stream="out")
    shell.wait_for(STARTED_AGAIN)
    assert (shell.end(), without_stop_notice(shell.err)) == (1, "")


def set_port(environment: Environment, port: int) -> str:
    """Give the worker a fixed port; return the inventory as it was."""
    assert environment.inventory_file is not None
    good = environment.inventory_file.read_text()
    environment.inventory_file.write_text(good.replace('"port": 0', f'"port": {port}'))
    return good


def test_a_shell_restarts_only_its_own_worker(norfab: NorFab, start_program: ProgramStarter, watch: Watch) -> None:
    """A service manager's would find its name taken. When its owner has started it again, the next command works."""
    owner, other, client = (start_program(*words, environment=norfab.environment) for words in ([], [], ["-c"]))
    for shell in (owner, other, client):
        shell.write(CHECK)
        shell.wait_for(FALSE, stream="out")
    worker = watch(norfab.environment)
    worker.kill()
    assert worker.is_gone_within(10)
    for shell in (other, client):
        shell.write(CHECK)
        shell.wait_for(rf"\Aline 2: {re.escape(NOT_RUNNING)}\n\Z")
    owner.write(CHECK)
    owner.wait_for(FALSE, stream="out")
    owner.wait_for(STARTED_AGAIN)
    for shell in (other, client):
        shell.write(CHECK)
        shell.wait_for(FALSE, stream="out")
    ends = [(shell.end(), without_stop_notice(shell.err)) for shell in (other, client, owner)]
    assert ends == [(3, ""), (3, ""), (0, "")]


def test_a_prompt_starts_its_worker_again(norfab: NorFab, open_terminal: TerminalStarter, watch: Watch) -> None:
    """What was typed runs, behind a line that says what has happened."""
    terminal = open_terminal(environment=norfab.environment)
    terminal.wait_for_prompt()
    worker = watch(norfab.environment)
    worker.kill()
    assert worker.is_gone_within(10)
    said = terminal.run(CHECK.strip())
    assert re.fullmatch(f"{STARTED_AGAIN}{FALSE}", said)
    assert re.fullmatch(FALSE, terminal.run(CHECK.strip()))
    worker = watch(norfab.environment)
    assert terminal.leave() == 0
    assert worker.is_gone_within(0)


def test_a_program_can_start_its_worker_again(norfab: NorFab, watch: Watch) -> None:
    """Nothing is done unasked: `start` does it, and the client that was there goes on."""
    norfab.start()
    client = norfab.make_client()
    assert run(client, "bearer_token_store", username="a", token="t1") is True
    worker = watch(norfab.environment)
    worker.kill()
    assert worker.is_gone_within(10)
    with pytest.raises(NoWorkersError, match=f"^{re.escape(NOT_RUNNING)}$"):
        run(client, "bearer_token_check", token="t1")
    assert norfab.start() == [DEFAULT_WORKER]
    assert run(client, "bearer_token_check", token="t1") is True


# Once per uuid: the second deletion of a token says false, so an answer tells how often the task ran


@pytest.mark.usefixtures("no_tokens")
def test_a_job_sent_over_many_connections_at_once_runs_once(norfab_of_all: NorFab, client: Client) -> None:
    """All get the answer of the one run; of jobs with names of their own one deletes, and the others find nothing."""
    clients = [norfab_of_all.make_client() for _ in range(6)]
    with ThreadPoolExecutor(len(clients)) as pool:
        for turn in range(5):
            answers = []
            for uuids in (["the-same"] * len(clients), range(len(clients))):
                assert run(client, "bearer_token_store", username="a", token="t1") is True
                jobs = [
                    pool.submit(run, each, "bearer_token_delete", uuid=f"{turn}-{uuid}", token="t1")
                    for each, uuid in zip(clients, uuids, strict=True)
                ]
                answers.append(sorted(job.result(60) for job in jobs))
            assert answers == [[True] * len(clients), [False] * (len(clients) - 1) + [True]]


@pytest.mark.usefixtures("no_tokens")
def test_a_job_sent_again_while_it_runs_and_after_its_end_runs_once(norfab_of_all: NorFab, client: Client) -> None:
    """A second connection joins the run, which a lock holds up; a third one gets its answer."""
    assert run(client, "bearer_token_store", username="a", token="t1") is True
    first, second, third = (norfab_of_all.make_client() for _ in range(3))
    delete: dict[str, Any] = {"uuid": "held-up", "token": "t1"}
    with ThreadPoolExecutor(2) as pool:
        with database_held(norfab_of_all.environment):
            jobs = [pool.submit(run, first, "bearer_token_delete", **delete)]
            wait_for_jobs(client, 1)
            received = messages_received(client)
            jobs.append(pool.submit(run, second, "bearer_token_delete", **delete))
            deadline = time.monotonic() + 60
            while messages_received(client) == (received := received + 1):
                assert time.monotonic() < deadline
        assert [job.result(60) for job in jobs] == [True, True]
    assert run(client, "bearer_token_store", username="a", token="t1") is True
    assert run(third, "bearer_token_delete", **delete) is True
    assert run(client, "bearer_token_check", token="t1") is True


def messages_received(client: Client) -> int:
    """Return how many messages the worker has got, the one that asks for this among them."""
    return int(run(client, "get_stats")["messaging"]["received"])
