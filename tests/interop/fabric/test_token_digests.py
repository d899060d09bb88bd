"""Workers of both implementations in one fabric: NorFab's send no digest and are reported as unknown."""

from __future__ import annotations

import json

import pytest

from support.norfab.sites import EnvironmentJoiner, FabricMaker
from support.workers import NfcliRunner, WorkerRunner

pytestmark = pytest.mark.slow

OURS, SECOND, THEIRS = "our-worker-1", "our-worker-2", "norfab-worker-1"
SETTINGS = {"service": "fastmcp", "host": "127.0.0.1", "port": 0, "authentication_enabled": True}


def test_a_worker_of_norfab_s_is_unknown_and_the_others_are_brought_together(
    new_fabric: FabricMaker, joined_environment: EnvironmentJoiner, running_worker: WorkerRunner, nfcli: NfcliRunner
) -> None:
    """It is named with the reason, and none of its tokens is changed."""
    with new_fabric({THEIRS: SETTINGS}) as fabric:
        fabric.start(THEIRS)
        site = joined_environment(fabric, OURS, SECOND)

        def run(*words: str) -> tuple[int, str, str]:
            done = nfcli("-c", *words, environment=site)
            return done.returncode, done.stdout, done.stderr

        with running_worker(site, OURS), running_worker(site, SECOND):
            fabric.await_workers(OURS, SECOND)
            create = ["fastmcp", "auth", "create-token", "username", "ann", "token"]
            assert run(*create, "token-everywhere", "workers", f"{OURS},{SECOND},{THEIRS}")[0] == 0
            assert run(*create, "token-of-one", "workers", OURS)[0] == 0
            note = f"tokens unknown: no digest from {THEIRS}, an older nfcli or another program"
            assert run("show", "fastmcp", "status")[2].splitlines() == [
                f"tokens differ ({OURS}: 2; {SECOND}: 1): see show fastmcp tokens diff",
                note,
            ]
            status, out, err = run("fastmcp", "tokens", "sync")
            assert (status, json.loads(out)[SECOND]["stored"]) == (1, 1)
            unknown = (
                f"{THEIRS}: its tokens are unknown: it sends no digest of them, as an older nfcli or another program"
            )
            assert err == f"{unknown}\n"
            listed = json.loads(run("fastmcp", "auth", "list-tokens", "|", "json")[1])
            assert sorted((row["worker"], row["token"]) for row in listed) == [
                (THEIRS, "token-everywhere"),
                (OURS, "token-everywhere"),
                (OURS, "token-of-one"),
                (SECOND, "token-everywhere"),
                (SECOND, "token-of-one"),
            ]
