"""The fixtures of tests/conftest.py keep what they promise."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest

from nfcli.models.environment.locations import find_environment
from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.loader import load_inventory
from support.workers import EnvironmentFactory, NfcliRunner, WorkerRunner


def test_the_default_environment_of_a_test_is_in_its_own_empty_home(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No test reads or writes what belongs to the user who runs it."""
    monkeypatch.chdir(tmp_path)
    assert list(home.iterdir()) == []
    assert find_environment() == Environment(home / ".local" / "state" / "nfcli", None)


def test_an_environment_has_the_named_workers_with_authentication_on_free_ports(
    environment_factory: EnvironmentFactory,
) -> None:
    """Settings are added to every worker, or replace what it has."""
    first = load_inventory(environment_factory())
    second = load_inventory(environment_factory("a", "b", authentication_enabled=False, host="127.0.0.2"))
    assert first.topology.workers == ("fastmcp-worker-1",)
    assert second.topology.workers == ("a", "b")
    workers = [*first.workers.values(), *second.workers.values()]
    assert [(each.host, each.port, each.authentication_enabled) for each in workers] == [
        ("127.0.0.1", 0, True),
        ("127.0.0.2", 0, False),
        ("127.0.0.2", 0, False),
    ]


def test_a_running_worker_answers_and_is_gone_after_its_block(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner
) -> None:
    """Its addresses are those it bound; it ended by itself, not by the last resort that leaves its socket behind."""
    environment = environment_factory("a")
    with running_worker(environment, "a") as worker:
        health = worker.url.removesuffix("/mcp") + "/health"
        with urllib.request.urlopen(health, timeout=10) as answer:  # noqa: S310  the worker's own http address
            assert answer.status == 200
        assert worker.name == "a"
        assert worker.endpoint == environment.socket_endpoint("a")
    assert worker.process.returncode == 0
    assert not os.path.lexists(worker.endpoint.removeprefix("ipc://"))


def test_a_worker_that_cannot_start_fails_the_test_with_its_words(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner
) -> None:
    """A test that waits for it in vain says why."""
    with pytest.raises(pytest.fail.Exception, match="worker b is not in the inventory"):
        running_worker(environment_factory("a"), "b").__enter__()


def test_the_program_runs_on_an_environment_with_its_input(
    environment_factory: EnvironmentFactory, nfcli: NfcliRunner
) -> None:
    """Output, errors and exit status come back."""
    done = nfcli("-c", stdin="man tree\r\nno such\r\n", environment=environment_factory("a"))
    assert done.returncode == 2
    assert done.stdout.startswith("root\n")
    assert done.stderr.count("\n") == 1
    assert done.args[1] == "-i"
