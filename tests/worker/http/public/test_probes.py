"""The probes of orchestrators: /health and /ready."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nfcli.worker.http.public import readiness
from nfcli.worker.http.public.readiness import Readiness
from nfcli.worker.http.responses import StaticResponse
from support.mcp.served_worker import WAIT_SECONDS, ServedWorker

Serve = Callable[..., Any]
NOT_WRITABLE = "not ready: the token store can't be written; see the worker's log"

both_probes = pytest.mark.parametrize("path", ["/health", "/ready"])


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker that no test changes."""
    with ServedWorker(tmp_path_factory.mktemp("probes") / "tokens") as served:
        yield served


@both_probes
@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1\r\nhost: 10.244.0.5:8001",
        "HTTP/1.1\r\nhost: worker-0.mcp.svc.cluster.local",
        "HTTP/1.1\r\nhost: x\r\norigin: https://evil.example.com",
        "HTTP/1.1\r\nhost: x\r\nhost: y",
        "HTTP/1.0",
        "HTTP/1.0\r\nhost: 10.244.0.5:8001\r\nconnection: keep-alive",
    ],
)
def test_probe_needs_neither_name_nor_token(worker: ServedWorker, path: str, head: str) -> None:
    """Kubelets and load balancers send an address, old ones nothing at all."""
    worker.looked_up.clear()
    for method in ("GET", "HEAD"):
        status, _, body = worker.send(f"{method} {path} {head}\r\n\r\n".encode())
        assert (status, body) == (200, b"")
    assert worker.looked_up == []


@both_probes
def test_probe_has_no_other_methods(worker: ServedWorker, path: str) -> None:
    """And no variants of its path."""
    assert worker.get(path, method="POST")[0] == 405
    assert worker.get(f"{path}/")[0] == 404


def reason(response: StaticResponse) -> tuple[int, str]:
    """Return status and message of a response; "" without a body."""
    return response.status, json.loads(response.body)["error"]["message"] if response.body else ""


def test_worker_whose_disk_refuses_is_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    """It says so in a word; the log has the reason, and what strangers see has no paths."""
    caplog.set_level(logging.INFO)
    problems = ["the disk of /var/lib/tokens is full: make room on it"] * 2 + [None]
    now = 0.0

    async def run() -> list[tuple[int, str]]:
        nonlocal now
        found = []
        ready = Readiness(lambda: problems.pop(0), clock=lambda: now)
        for _ in range(3):
            found.append(reason(await ready.response()))
            now += readiness.CACHE_SECONDS
        return found

    assert asyncio.run(run()) == [(503, NOT_WRITABLE), (503, NOT_WRITABLE), (200, "")]
    assert [text for text in caplog.messages if "ready" in text] == [
        "not ready: the disk of /var/lib/tokens is full: make room on it",
        "ready again",
    ]


def test_store_that_lost_its_space_makes_the_worker_unready(served_worker: Serve) -> None:
    """As the worker itself finds it."""
    worker = served_worker()
    (worker.store.database.folder / "reserve").unlink()
    status, _, body = worker.get("/ready")
    assert (status, json.loads(body)["error"]["message"]) == (503, NOT_WRITABLE)
    assert worker.get("/health")[0] == 200


def test_stopping_worker_is_not_ready(served_worker: Serve) -> None:
    """New connections aren't even accepted; open ones get 503."""
    worker = served_worker()
    worker.worker.stopping.set()
    status, _, body = worker.get("/ready")
    assert (status, json.loads(body)["error"]["message"]) == (503, "not ready: the worker is stopping")


def test_probes_of_many_clients_check_the_disk_once() -> None:
    """They need no token; after a second it is checked again."""
    checks: list[int] = []
    now = 5.0

    def find_problem() -> None:
        checks.append(1)

    async def run() -> None:
        nonlocal now
        ready = Readiness(find_problem, clock=lambda: now)
        await asyncio.gather(*(ready.response() for _ in range(50)))
        now += readiness.CACHE_SECONDS - 0.01
        await ready.response()
        assert len(checks) == 1
        now += 0.02
        await ready.response()
        assert len(checks) == 2

    asyncio.run(run())


def test_disk_that_does_not_respond_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe is answered in time, and at most one thread waits for the disk."""
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.05)
    may_end, waiting = threading.Event(), []

    def find_problem() -> None:
        waiting.append(1)
        may_end.wait(WAIT_SECONDS)

    async def run() -> list[tuple[int, str]]:
        ready = Readiness(find_problem)
        found = [reason(await ready.response()) for _ in range(2)]
        may_end.set()
        return found

    assert asyncio.run(run()) == [(503, "not ready: the token store's disk doesn't respond")] * 2
    assert len(waiting) == 1


def test_check_that_fails_is_not_ready() -> None:
    """Whatever it raises."""

    def find_problem() -> None:
        raise RuntimeError("broken")

    assert reason(asyncio.run(Readiness(find_problem).response())) == (503, NOT_WRITABLE)
