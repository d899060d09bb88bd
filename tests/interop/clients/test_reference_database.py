"""The token database of the reference's worker, which holds pickled values, brought to a worker of ours."""

from __future__ import annotations

import http.client
import json
import logging
import pickle
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import diskcache
import pytest

from nfcli.worker.tokens.store import TokenStore

WORKER = "fastmcp-worker-1"
TOKENS = [f"token-{number}" for number in range(8)]
LIFETIME = 3600
SHARDS = 4
JOIN_SECONDS = 30.0
REQUEST_SECONDS = 20.0


@pytest.fixture(scope="module")
def written(reference: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let a worker of the reference's store tokens; return the folder that it keeps them in."""
    fabric = reference(_inventory(tmp_path_factory.mktemp("b")))
    fabric.call("open_client", name="script")
    _await_worker(fabric)
    for token in TOKENS:
        lifetime = {"expire": LIFETIME} if token == TOKENS[-1] else {}
        done = _job(fabric, "bearer_token_store", username="alice", token=token, **lifetime)
        assert done["result"] is True
    fabric.call("close_client")
    fabric.call("stop")
    return fabric.folder / "__norfab__" / "files" / "worker" / WORKER / "cache"


def _inventory(folder: Path) -> dict[str, Any]:
    """Return the inventory of the reference's broker and worker; the broker's socket is in `folder`."""
    worker = {"service": "fastmcp", "host": "127.0.0.1", "port": 0, "authentication_enabled": True}
    return {
        "broker": {"endpoint": f"ipc://{folder / 'b'}"},
        "workers": {WORKER: [worker]},
        "topology": {"broker": True, "workers": [WORKER], "workers_start_interval": 0},
    }


def _job(fabric: Any, task: str, **kwargs: object) -> Any:
    """Run a task of the reference's worker."""
    return fabric.call("run_job", service="fastmcp", task=task, kwargs=kwargs)["result"][WORKER]


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
        with TokenStore(shard) as store:
            assert (len(store), store.invalid_rows) == (0, 0)
            counts.append(store.pickled_rows)
    assert sum(counts) == len(TOKENS)
    assert caplog.messages == [
        f"skipped {count} pickled rows of the token database in {shard}, since unpickling can run arbitrary code "
        f"(NorFab workers write such rows): import their tokens with nfcli --import-norfab {shard}"
        for shard, count in zip(shards, counts, strict=True)
        if count
    ]


@pytest.mark.usefixtures("_no_pickle")
def test_a_whole_database_of_the_references_is_named_and_left_alone(
    brought: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in folders below the folder of ours: without a message its tokens would seem to be lost."""
    before = {path: path.read_bytes() for path in brought.rglob("cache.db")}
    with TokenStore(brought) as store:
        assert (len(store), store.pickled_rows, store.invalid_rows) == (0, 0, 0)
    line = (
        f"ignoring a NorFab database in {brought} (000/cache.db and others): "
        f"import its tokens with nfcli --import-norfab {brought}"
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
    assert "ignoring a NorFab database in " in log


def test_its_tokens_move_to_a_worker_of_ours(
    written: Path, environment_factory: Any, running_worker: Any, nfcli: Any, tmp_path: Path
) -> None:
    """Users, creation and expiry are what the reference's database has; MCP requests with the tokens are authorized."""
    base = written.parents[4]
    before = {path: path.read_bytes() for path in written.rglob("*") if path.is_file()}
    environment = environment_factory(WORKER)
    with running_worker(environment, WORKER) as worker:
        assert [_status(worker.url, token) for token in TOKENS] == [401] * len(TOKENS)
        moved = nfcli("--import-norfab", str(base), environment=environment)
        assert (moved.returncode, moved.stderr, json.loads(moved.stdout)) == (0, "", _report(imported=len(TOKENS)))
        assert [_status(worker.url, token) for token in TOKENS] == [200] * len(TOKENS)
        again = nfcli("--import-norfab", str(written), environment=environment)
        assert (again.returncode, json.loads(again.stdout)) == (0, _report(present=len(TOKENS)))
        listed = nfcli("fastmcp", "auth", "list-tokens", "username", "alice", environment=environment).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    assert [row[2] for row in rows] == TOKENS
    with closing(diskcache.FanoutCache(directory=str(_copied(written, tmp_path)), shards=SHARDS)) as cache:
        for row in rows:
            record, expires = cache.get(f"bearer_token::{row[2]}", expire_time=True)
            assert (row[1], " ".join(row[4:6])) == (record["username"], record["created"])
            shown = "None" if expires is None else str(datetime.fromtimestamp(expires))  # noqa: DTZ006  as it shows it
            assert " ".join(row[6:]) == shown
    assert rows[-1][6] != "None"
    assert {path: path.read_bytes() for path in written.rglob("*") if path.is_file()} == before


def _copied(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def _report(**counts: int) -> dict[str, dict[str, int]]:
    names = ("imported", "present", "refused", "expired", "invalid", "unreadable")
    return {WORKER: dict.fromkeys(names, 0) | counts}


def _status(url: str, token: str) -> int:
    """Return the status of an MCP request."""
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=REQUEST_SECONDS)) as connection:
        connection.request("POST", "/mcp", body, headers)
        return connection.getresponse().status


def test_tokens_move_from_a_worker_that_runs_and_goes_on(
    reference: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    environment_factory: Any,
    running_worker: Any,
    nfcli: Any,
) -> None:
    """What it stores later comes with the next import."""
    fabric = reference(_inventory(tmp_path_factory.mktemp("b")))
    fabric.call("open_client", name="script")
    _await_worker(fabric)
    environment = environment_factory(WORKER)
    with running_worker(environment, WORKER):
        for number, token in enumerate(TOKENS[:3]):
            assert _job(fabric, "bearer_token_store", username="bob", token=token)["result"] is True
            moved = nfcli("--import-norfab", str(fabric.folder), environment=environment)
            assert (moved.returncode, json.loads(moved.stdout)) == (0, _report(imported=1, present=number))
            assert _job(fabric, "bearer_token_check", token=token)["result"] is True
    fabric.call("close_client")
    fabric.call("stop")
