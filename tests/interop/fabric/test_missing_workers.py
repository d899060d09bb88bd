"""Changes of tokens while a worker of a NorFab fabric is away: one of NorFab's that froze, one of ours that stopped."""

from __future__ import annotations

import pytest

from nfcli import NorFab
from support.norfab.sites import EnvironmentJoiner, FabricMaker
from support.workers import NfcliRunner, WorkerRunner

pytestmark = pytest.mark.slow

OURS, THEIRS, OTHER = "our-worker-1", "norfab-worker-1", "demo-worker-1"
TOKEN = "token-of-a-missing-worker"
DROPPED_SECONDS = 40.0
"""NorFab's broker drops a silent worker after 15 s, when it looks next."""


def test_a_deletion_names_the_workers_that_norfab_s_broker_has_dropped(
    new_fabric: FabricMaker, joined_environment: EnvironmentJoiner, running_worker: WorkerRunner, nfcli: NfcliRunner
) -> None:
    """Of either implementation; the worker of another service is not expected. What is there runs the job."""
    settings = {"service": "fastmcp", "host": "127.0.0.1", "port": 0, "authentication_enabled": True}
    with new_fabric({THEIRS: settings, OTHER: {"service": "demo"}}) as fabric:
        fabric.start(THEIRS, OTHER)
        environment = joined_environment(fabric)
        norfab = NorFab(environment.inventory_file)
        client = norfab.make_client()
        with running_worker(joined_environment(fabric, OURS), OURS):
            fabric.await_workers(OURS)
            record = {"username": "ann", "token": TOKEN}
            stored = client.run_job("fastmcp", "bearer_token_store", kwargs=record)
            assert {name: entry["result"] for name, entry in stored.items()} == {OURS: True, THEIRS: True}
            fabric.workers[THEIRS].freeze()
            fabric.workers[OTHER].kill()
            fabric.await_gone(THEIRS, OTHER, seconds=DROPPED_SECONDS)
            deleted = client.run_job("fastmcp", "bearer_token_delete", kwargs={"token": TOKEN})
            assert {name: entry["failed"] for name, entry in deleted.items()} == {OURS: False, THEIRS: True}
            fabric.workers[THEIRS].thaw()
            fabric.await_workers(THEIRS, seconds=DROPPED_SECONDS)
            again = client.run_job("fastmcp", "bearer_token_delete", kwargs={"token": TOKEN})
            assert {name: entry["result"] for name, entry in again.items()} == {OURS: False, THEIRS: True}
        fabric.await_gone(OURS, seconds=DROPPED_SECONDS)
        listed = nfcli("fastmcp", "auth", "list-tokens", environment=environment)
        assert (listed.returncode, listed.stderr.startswith(f"{OURS}: worker {OURS}, last seen ")) == (1, True)
        assert [row["status"] for row in client.show_workers() if row["name"] == OURS] == ["missing"]
        norfab.destroy()
