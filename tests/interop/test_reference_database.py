"""The token database of the reference's worker, which holds pickled values, brought to a worker of ours."""

from __future__ import annotations

import logging
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from nfcli.worker.token_store import TokenStore

WORKER = "fastmcp-worker-1"
TOKENS = [f"token-{number}" for number in range(8)]
SHARDS = 4
JOIN_SECONDS = 30.0


@pytest.fixture(scope="module")
def written(reference: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let a worker of the reference's store tokens; return the folder that it keeps them in."""
    socket = tmp_path_factory.mktemp("b") / "b"
    worker = {"service": "fastmcp", "host": "127.0.0.1", "port": 0, "authentication_enabled": True}
    fabric = reference(
        {
            "broker": {"endpoint": f"ipc://{socket}"},
            "workers": {WORKER: [worker]},
            "topology": {"broker": True, "workers": [WORKER], "workers_start_interval": 0},
        }
    )
    fabric.call("open_client", name="script")
    _await_worker(fabric)
    for token in TOKENS:
        done = fabric.call(
            "run_job", service="fastmcp", task="bearer_token_store", kwargs={"username": "alice", "token": token}
        )
        assert done["result"][WORKER]["result"] is True
    fabric.call("close_client")
    fabric.call("stop")
    return fabric.folder / "__norfab__" / "files" / "worker" / WORKER / "cache"


def _await_worker(fabric: Any) -> None:
    """Ask until the worker has joined; a job that is sent before gets no result."""
    deadline = time.monotonic() + JOIN_SECONDS
    while WORKER not in [row.get("name") for row in fabric.call("mmi", task="show_workers")["results"] or []]:
        assert time.monotonic() < deadline


@pytest.fixture
def brought(written: Path, tmp_path: Path) -> Path:
    """Copy it, with the modes that an environment asks for."""
    folder = tmp_path / "tokens"
    shutil.copytree(written, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


@pytest.fixture
def _no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        pytest.fail("something was unpickled")

    monkeypatch.setattr(pickle, "load", fail)
    monkeypatch.setattr(pickle, "loads", fail)


@pytest.mark.usefixtures("_no_pickle")
def test_pickled_tokens_are_counted_and_never_unpickled(brought: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each file that holds some says in one line how many, why, and what to do."""
    shards = [brought / f"{number:03}" for number in range(SHARDS)]
    counts = []
    for shard in shards:
        with TokenStore.open(shard) as store:
            assert (len(store), store.invalid_rows) == (0, 0)
            counts.append(store.pickled_rows)
    assert sum(counts) == len(TOKENS)
    assert caplog.messages == [
        f"{count} rows of the token database in {shard} are pickled and were not read, since that could run anybody's "
        "code (NorFab workers write such rows): store these tokens again with fastmcp auth create-token"
        for shard, count in zip(shards, counts, strict=True)
        if count
    ]


@pytest.mark.usefixtures("_no_pickle")
def test_a_whole_database_of_the_references_is_named_and_left_alone(
    brought: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It lies in folders below the one where ours lies: without a word its tokens would seem to be lost."""
    before = {path: path.read_bytes() for path in brought.rglob("cache.db")}
    with TokenStore.open(brought) as store:
        assert (len(store), store.pickled_rows, store.invalid_rows) == (0, 0, 0)
    line = (
        f"{brought} holds a NorFab worker's database (000/cache.db and so on), which is not read: "
        "store its tokens again with fastmcp auth create-token"
    )
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.WARNING, line)]
    assert {path: path.read_bytes() for path in before} == before


def test_a_worker_starts_beside_a_database_of_the_references(
    brought: Path, environment_factory: Any, running_worker: Any
) -> None:
    """The line is in the worker's log, and its own database is a new one."""
    environment = environment_factory(WORKER)
    environment.prepare()
    brought.rename(environment.tokens_folder(WORKER))
    with running_worker(environment):
        log = environment.log_file(WORKER).read_text()
    assert "holds a NorFab worker's database (000/cache.db and so on), which is not read" in log
