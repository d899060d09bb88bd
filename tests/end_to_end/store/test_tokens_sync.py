"""Several real workers of which one is away while tokens change: found, named, and brought together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from nfcli import NorFab
from nfcli.models.environment.paths import Environment
from support.tokens.store_site import status_of_request
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner, frozen

pytestmark = pytest.mark.slow

WORKERS = ("w1", "w2")


class Site:
    """Two workers of one environment, each of which can be stopped, killed and started."""

    def __init__(self, environment: Environment, run_worker: WorkerRunner, nfcli: NfcliRunner) -> None:
        self.environment = environment
        self._run_worker = run_worker
        self._nfcli = nfcli
        self._running: dict[str, ExitStack] = {}
        self.workers: dict[str, RunningWorker] = {}

    def start(self, *names: str) -> None:
        """Start workers."""
        for name in names:
            self._running[name] = ExitStack()
            self.workers[name] = self._running[name].enter_context(self._run_worker(self.environment, name))

    def stop(self, name: str, *, kill: bool = False) -> None:
        """Stop a worker, or kill it."""
        if kill:
            self.workers[name].process.kill()
        self._running.pop(name).close()

    def stop_all(self) -> None:
        """Stop those that run."""
        for name in list(self._running):
            self.stop(name)

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command; return exit status, stdout and stderr."""
        done = self._nfcli("-i", str(self.environment.inventory_file), *words)
        return done.returncode, done.stdout, done.stderr

    def statuses(self, token: str) -> list[int]:
        """Return how each worker answers an MCP request with a token."""
        return [status_of_request(self.workers[name].url, token) for name in WORKERS]


@pytest.fixture
def site(environment_factory: EnvironmentFactory, running_worker: WorkerRunner, nfcli: NfcliRunner) -> Iterator[Site]:
    """Run two workers."""
    made = Site(environment_factory(*WORKERS), running_worker, nfcli)
    try:
        made.start(*WORKERS)
        yield made
    finally:
        made.stop_all()


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_worker_that_was_away_is_found_and_brought_up_to_date(site: Site, kill: bool) -> None:
    """The deleted token opens it until the synchronization, which every report asks for, and not afterwards."""
    assert site.run("-c", "fastmcp", "auth", "create-token", "username", "ann", "token", "secret-t1")[0] == 0
    assert site.run("show", "fastmcp", "tokens", "diff")[::2] == (0, "the tokens of w1, w2 are the same\n")
    site.stop("w2", kill=kill)
    assert site.run("-c", "fastmcp", "auth", "delete-token", "token", "secret-t1", "workers", "w1")[0] == 0
    assert (
        site.run("-c", "fastmcp", "auth", "create-token", "username", "bob", "token", "secret-t2", "workers", "w1")[0]
        == 0
    )
    site.start("w2")
    assert (site.statuses("secret-t1"), site.statuses("secret-t2")) == ([401, 200], [200, 401])
    differ = "tokens differ (w1: 1; w2: 1): see show fastmcp tokens diff"
    assert differ in site.run("show", "fastmcp", "status")[2]
    status, out, _ = site.run("--check")
    assert (status, f"FAULT {differ.replace('tokens differ', 'tokens: tokens differ')}" in out) == (1, True), out
    status, out, err = site.run("show", "fastmcp", "tokens", "diff")
    assert (status, "ann" in out, "bob" in out, "secret" in out + err) == (1, True, True, False)
    assert site.run("fastmcp", "tokens", "sync")[0] == 0
    assert (site.statuses("secret-t1"), site.statuses("secret-t2")) == ([401, 401], [200, 200])
    status, out, _ = site.run("--check")
    assert "ok    tokens: the same on all workers that answer: 2" in out.splitlines()
    for name in WORKERS:
        site.stop(name, kill=kill)
    site.start(*WORKERS)
    assert (site.statuses("secret-t1"), site.statuses("secret-t2")) == ([401, 401], [200, 200])
    assert site.run("fastmcp", "tokens", "sync")[2] == "nothing was changed\n"


def test_check_names_the_workers_that_it_can_not_compare(site: Site) -> None:
    """One that hangs, one that is stopped, and both."""
    assert site.run("-c", "show", "norfab", "client")[0] == 0  # the check asks workers only if the client has a key
    with frozen(site.workers["w2"].process.pid):
        assert "ok    tokens: not compared, w2 does not answer" in site.run("--check")[1].splitlines()
    site.stop("w2")
    assert "ok    tokens: not compared, w2 is not running" in site.run("--check")[1].splitlines()
    site.stop("w1")
    assert "ok    tokens: not compared, w1 is not running, w2 is not running" in site.run("--check")[1].splitlines()


def test_one_command_gives_all_workers_the_same_expiry(site: Site) -> None:
    """So that they agree to the last digit; the fingerprint of a difference is that of the audit trail."""
    words = ["fastmcp", "auth", "create-token", "username", "ann", "expire", "3600", "token"]
    assert site.run("-c", *words, "secret-t1")[0] == 0
    assert site.run("show", "fastmcp", "tokens", "diff")[0] == 0
    assert site.run("-c", *words, "secret-t2", "workers", "w1")[0] == 0
    _, out, _ = site.run("show", "fastmcp", "tokens", "diff", "|", "json")
    (row,) = json.loads(out)
    lines = site.environment.audit_file("w1").read_text().splitlines()
    assert json.loads(lines[-1])["tokens"] == [row["fingerprint"]]


def test_what_was_merged_survives_a_kill(site: Site) -> None:
    """Every token that a worker has confirmed is on disk; more than two messages of them."""
    with NorFab(site.environment.inventory_file) as norfab:
        client = norfab.make_client(start_workers=False)
        jobs: list[Callable[[], Any]] = [
            lambda number=number: client.run_job(  # type: ignore[misc]
                "fastmcp",
                "bearer_token_store",
                kwargs={"username": f"user{number % 7}", "token": f"secret-{number}"},
                workers=["w1"],
            )
            for number in range(230)
        ]
        for job in jobs:
            job()
    site.stop("w2", kill=True)
    site.start("w2")
    status, out, _ = site.run("fastmcp", "tokens", "sync", "to", "w2")
    assert (status, json.loads(out)["w2"]["stored"]) == (0, 230)
    site.stop("w2", kill=True)
    site.start("w2")
    assert site.run("show", "fastmcp", "tokens", "diff")[0] == 0
