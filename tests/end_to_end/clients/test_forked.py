"""The client of a process, in one that was forked from it: refused at once, and the parent's goes on."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable

import pytest

from nfcli import NorFab, UsageError
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.protocol.jobs import Results
from support.workers import EnvironmentFactory, RunningWorker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_fork(call: Callable[[], object]) -> int | None:
    """Call something in a forked process; return its exit status, None if it doesn't end within 20 s."""
    child = multiprocessing.get_context("fork").Process(target=call)
    child.start()
    child.join(20)
    child.kill()
    return child.exitcode


def check(norfab: NorFab) -> Results:
    """Run a job with a new client."""
    return norfab.make_client().run_job("fastmcp", "bearer_token_check", kwargs={"token": "x"}, timeout=10)


def test_the_parents_client_is_refused_and_a_new_one_works(environment: Environment, worker: RunningWorker) -> None:
    """ZeroMQ's threads are not forked: a job would never end."""
    assert worker.process.poll() is None
    with NorFab(environment.inventory_file) as norfab:
        client = norfab.make_client()
        assert client.run_job("fastmcp", "echo")[DEFAULT_WORKER]["failed"] is False

        def use() -> None:
            with pytest.raises(UsageError, match=f"belongs to process {os.getppid()}, .*make_client"):
                client.run_job("fastmcp", "echo")
            assert check(norfab)[DEFAULT_WORKER]["result"] is False
            norfab.destroy()

        assert in_fork(use) == 0
        assert client.run_job("fastmcp", "echo")[DEFAULT_WORKER]["failed"] is False


def test_the_end_of_a_fork_leaves_the_parents_workers_running(environment_factory: EnvironmentFactory) -> None:
    """As when a program leaves its `with` block in a child of its own."""
    with NorFab(environment_factory().inventory_file) as norfab:
        assert in_fork(norfab.destroy) == 0
        assert check(norfab)[DEFAULT_WORKER]["result"] is False
        with NorFab(norfab.environment.inventory_file) as other:  # shares the worker
            assert other.launcher.started_here == set()
