"""Several workers on one machine: who is asked, whose results come through, and what is said of the others.

`alpha` and `beta` run; `gamma` is in the inventory and not running.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from nfcli import Client, NorFab, NoWorkersError
from nfcli.models.commands.base import TARGETS_MIXED
from nfcli.models.environment.paths import Environment
from nfcli.shell.transport.base import not_running
from support.programs import InTime, ProgramStarter, Watch
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner, frozen

pytestmark = pytest.mark.slow

RUNNING = ("alpha", "beta")
Run = Callable[..., subprocess.CompletedProcess[str]]
GAMMA_IS_DOWN = f"gamma: {not_running('gamma')}"
LACKING = "the token may not be stored there: repeat this"


@pytest.fixture(scope="module")
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make the environment of three workers."""
    return environment_factory(*RUNNING, "gamma")


@pytest.fixture(scope="module")
def workers(environment: Environment, running_worker: WorkerRunner) -> Iterator[dict[str, RunningWorker]]:
    """Run two of them."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(running_worker(environment, name)) for name in RUNNING}


@pytest.fixture(scope="module")
def client(environment: Environment, workers: dict[str, RunningWorker]) -> Iterator[Client]:
    """Make a client of theirs in this process."""
    assert all(worker.process.poll() is None for worker in workers.values())
    norfab = NorFab(environment.inventory_file)
    try:
        yield norfab.make_client()
    finally:
        norfab.destroy()


@pytest.fixture(autouse=True)
def no_tokens(client: Client) -> None:
    """Begin each test with no token stored."""
    for worker, listed in client.run_job("fastmcp", "bearer_token_list", workers=list(RUNNING)).items():
        for username in {row["username"] for row in listed["result"]}:
            client.run_job("fastmcp", "bearer_token_delete", kwargs={"username": username}, workers=worker)


@pytest.fixture
def run(nfcli: NfcliRunner, environment: Environment) -> Run:
    """Run one command of `fastmcp auth` without starting workers."""
    return lambda *words: nfcli("-c", "fastmcp", "auth", *words, environment=environment)


def answers(text: str) -> Any:
    """Return what a command printed as JSON, None for nothing."""
    return json.loads(text) if text else None


@pytest.mark.parametrize(
    ("target", "asked", "said"),
    [
        ("all", {"alpha", "beta"}, (1, [f"{GAMMA_IS_DOWN}; {LACKING}, or run fastmcp tokens sync"])),
        ("alpha", {"alpha"}, (0, [])),
        ("alpha,beta", {"alpha", "beta"}, (0, [])),
        ("beta,gamma", {"beta"}, (1, [f"{GAMMA_IS_DOWN}; {LACKING}, or run fastmcp tokens sync"])),
        ("gamma", set(), (3, [f"{GAMMA_IS_DOWN}; {LACKING}".removeprefix("gamma: ")])),
        ("nobody", set(), (3, ["unknown worker 'nobody': there is alpha, beta, gamma"])),
        ("alpha,nobody", set(), (3, ["unknown worker 'nobody': there is alpha, beta, gamma"])),
        ("all,alpha", set(), (2, [f"create-token: workers: {TARGETS_MIXED}"])),
    ],
)
def test_a_command_reaches_whom_it_names(
    run: Run, client: Client, target: str, asked: set[str], said: tuple[int, list[str]]
) -> None:
    """Results of those that are there come through, the others are named, and the token is where the answers say."""
    done = run("create-token", "username", "a", "token", "t1", "workers", target)
    assert (done.returncode, done.stderr.splitlines()) == said
    assert answers(done.stdout) == (dict.fromkeys(sorted(asked), True) or None)
    checked = client.run_job("fastmcp", "bearer_token_check", kwargs={"token": "t1"}, workers=list(RUNNING))
    assert {worker for worker, result in checked.items() if result["result"]} == asked


def test_any_is_one_that_runs(run: Run, client: Client) -> None:
    """Whichever is chosen, one worker answers and no failure shows, though one of the candidates is down."""
    for number in range(12):
        (worker,) = client.run_job("fastmcp", "bearer_token_check", kwargs={"token": f"t{number}"}, workers="any")
        assert worker in RUNNING
    done = run("check-token", "token", "x", "workers", "any")
    assert (done.returncode, done.stderr) == (0, "")
    assert answers(done.stdout) in [{"alpha": False}, {"beta": False}]


def test_a_table_holds_the_rows_of_all_workers(nfcli: NfcliRunner, environment: Environment) -> None:
    """Sorted by worker, then as each worker sorts them; who is down is named beside the table."""
    lines = [f"fastmcp auth create-token username {user} token {user}-t workers alpha,beta\n" for user in ("z", "a")]
    done = nfcli("-c", stdin="".join(lines) + "fastmcp auth list-tokens\n", environment=environment)
    assert (done.returncode, done.stderr) == (1, f"line 3: {GAMMA_IS_DOWN}\n")
    table = done.stdout.rsplit("}\n", 1)[1]
    rows = [line.split()[:3] for line in table.splitlines()]
    expected = [[worker, user, f"{user}-t"] for worker in RUNNING for user in ("a", "z")]
    assert rows == [["worker", "username", "token"], *expected]


def test_a_generated_token_is_the_same_everywhere(run: Run, client: Client) -> None:
    """It is shown when every targeted worker has it, and only then."""
    done = run("create-token", "username", "a", "workers", "alpha,beta")
    found = re.fullmatch(r"generated token for a: ([0-9a-f]{32})\n", done.stderr)
    assert (done.returncode, bool(found)) == (0, True)
    assert found
    checked = client.run_job("fastmcp", "bearer_token_check", kwargs={"token": found[1]}, workers=list(RUNNING))
    assert [result["result"] for result in checked.values()] == [True, True]
    partial = run("create-token", "username", "a")
    assert (partial.returncode, answers(partial.stdout)) == (1, {"alpha": True, "beta": True})
    down, advice = partial.stderr.splitlines()
    assert down == GAMMA_IS_DOWN
    assert "gamma didn't confirm" in advice
    assert not re.search("[0-9a-f]{32}", partial.stderr)


def test_a_failure_of_one_worker_leaves_the_others_results(run: Run, client: Client) -> None:
    """The failed one is named with its reason; the exit status says that something is wrong."""
    client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "owner", "token": "t1"}, workers="beta")
    done = run("create-token", "username", "other", "token", "t1", "workers", "alpha,beta")
    assert (done.returncode, answers(done.stdout)) == (1, {"alpha": True})
    assert re.fullmatch(r"beta: [^\n]*another user[^\n]*\n", done.stderr)


def test_a_worker_that_hangs_costs_the_timeout_and_no_result(
    run: Run, workers: dict[str, RunningWorker], in_time: InTime
) -> None:
    """The other worker's answer is printed, the missing one is named with the seconds waited."""
    beta = workers["beta"].process
    beta.send_signal(signal.SIGSTOP)
    try:
        done = in_time(4, lambda: run("check-token", "token", "x", "workers", "alpha,beta", "timeout", "1"))
    finally:
        beta.send_signal(signal.SIGCONT)
    assert (done.returncode, answers(done.stdout)) == (1, {"alpha": False})
    assert re.fullmatch(r"beta: no answer within 1 s\n", done.stderr)


def test_an_interrupted_deletion_is_unknown_on_the_worker_that_has_not_answered(
    environment: Environment, workers: dict[str, RunningWorker], client: Client, start_program: ProgramStarter
) -> None:
    """Ctrl-C ends the wait and not the job; the other worker has made the change."""
    kwargs = {"username": "a", "token": "t1"}
    client.run_job("fastmcp", "bearer_token_store", kwargs=kwargs, workers=list(RUNNING))
    with frozen(workers["beta"].process.pid):
        shell = start_program("-c", environment=environment)
        shell.write("fastmcp auth delete-token token t1 workers alpha,beta\n")
        check: dict[str, Any] = {"kwargs": {"token": "t1"}, "workers": "alpha"}
        while client.run_job("fastmcp", "bearer_token_check", **check)["alpha"]["result"]:
            pass
        shell.process.send_signal(signal.SIGINT)
        line = (
            r"\Aline 1: interrupted: the outcome is unknown on (alpha, )?beta, which ha(s|ve) not answered: once the "
        )
        shell.wait_for(line + r"worker answers again, show fastmcp audit says what it has changed\n\Z")
        assert shell.end() == 130


def test_a_worker_that_dies_in_the_middle_of_a_job_is_reported_at_once(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner
) -> None:
    """The client doesn't wait for its timeout; what the other worker answers is there."""
    environment = environment_factory(*RUNNING)
    with ExitStack() as stack:
        beta = [stack.enter_context(running_worker(environment, name)) for name in RUNNING][1].process
        norfab = NorFab(environment.inventory_file)
        stack.callback(norfab.destroy)
        client, onlooker = norfab.make_client(), norfab.make_client()
        pool = stack.enter_context(ThreadPoolExecutor(1))
        job = pool.submit(client.run_job, "fastmcp", "echo", kwargs={"sleep": 2}, timeout=30)
        wait_for_jobs(onlooker, RUNNING)
        beta.kill()
        started = time.monotonic()
        results = job.result(20)
        assert time.monotonic() - started < 10
    assert (results["alpha"]["failed"], results["alpha"]["errors"]) == (False, [])
    assert (results["beta"]["failed"], results["beta"]["result"]) == (True, None)
    assert len(results["beta"]["errors"]) == 1


def wait_for_jobs(client: Client, names: tuple[str, ...]) -> None:
    """Wait until each worker runs a job beside the one that asks."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        stats = client.run_job("fastmcp", "get_stats", workers=list(names))
        if all(result["result"]["jobs"]["jobs_by_status"]["PENDING"] > 1 for result in stats.values()):
            return
    raise AssertionError("the jobs don't run")


def test_python_code_names_workers_as_the_shell_does(client: Client) -> None:
    """`all`, `any`, a name, a list: an entry for each, also for the one that is down; an unknown one is an error."""

    def status_of(workers: str | list[str]) -> dict[str, bool]:
        results = client.run_job("fastmcp", "bearer_token_check", kwargs={"token": "x"}, workers=workers)
        return {worker: result["failed"] for worker, result in results.items()}

    assert status_of("all") == {"alpha": False, "beta": False, "gamma": True}
    assert status_of("beta") == {"beta": False}
    assert status_of(["gamma", "alpha"]) == {"alpha": False, "gamma": True}
    for nobody in ("gamma", ["gamma"], "nobody", ["alpha", "nobody"], []):
        with pytest.raises(NoWorkersError):
            status_of(nobody)


def test_show_norfab_workers_lists_the_present_ones(nfcli: NfcliRunner, environment: Environment) -> None:
    """Each worker of the inventory has a row, with the reason for the one that is down."""
    done = nfcli("-c", "show", "norfab", "workers", "|", "json", environment=environment)
    rows = answers(done.stdout)
    assert [(row["name"], row["status"]) for row in rows] == [("alpha", "alive"), ("beta", "alive"), ("gamma", "dead")]
    assert rows[2]["note"] == GAMMA_IS_DOWN.removeprefix("gamma: ")


def test_a_shell_starts_those_that_are_missing_and_stops_only_them(
    environment_factory: EnvironmentFactory,
    running_worker: WorkerRunner,
    start_program: ProgramStarter,
    watch: Watch,
) -> None:
    """A worker that ran before goes on running."""
    environment = environment_factory("one", "two", "three")
    with running_worker(environment, "two") as running:
        script = start_program(environment=environment)
        script.write("fastmcp auth check-token token x\n")
        assert json.loads(script.wait_for(r"\{[^}]*\}\n", stream="out")[0]) == dict.fromkeys(
            ("one", "two", "three"), False
        )
        started = [watch(environment, name) for name in ("one", "three")]
        assert script.end() == 0
        assert all(worker.is_gone_within(0) for worker in started)
        assert running.process.poll() is None
        os.kill(running.process.pid, 0)
