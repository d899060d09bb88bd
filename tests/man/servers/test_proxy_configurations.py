"""The proxies' configurations on the page about them work in front of a worker, in real proxies."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from types import ModuleType
from urllib.parse import urlsplit

import pytest

from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import task
from nfcli.worker.mcp.reply_streams import Pace
from support import examples
from support.fabric.worker import eventually
from support.mcp.proxies import NAME, PROGRAMS, Proxied, run_proxy
from support.mcp.served_worker import TOKEN, WAIT_SECONDS, ServedWorker, read_response

pytestmark = pytest.mark.slow

FILES = {block.file: block.text for block in examples.blocks("man/pages/proxies.md")}
HOLD = {"name": "service_fastmcp__task_hold", "arguments": {}}
FORGED = (
    ("x-forwarded-for", "9.9.9.9"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "evil.example.com"),
    ("forwarded", "for=9.9.9.9;host=evil.example.com"),
)


@pytest.fixture(scope="module")
def gate() -> Iterator[threading.Event]:
    """Return what the task `hold` waits for."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, gate: threading.Event) -> Iterator[ServedWorker]:
    """Serve a worker as the page configures it."""

    def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
        return gate.wait(4 * WAIT_SECONDS)  # longer than a test waits for its end

    tasks = ModuleType("tasks")
    vars(tasks)["hold"] = task(result=bool)(hold)
    soon = Pace(begin=0.01, progress=0.01, comment=0.01)
    settings = {"allowed_hosts": [NAME], "trusted_proxies": ["127.0.0.1"]}
    folder = tmp_path_factory.mktemp("behind") / "tokens"
    with ServedWorker(folder, tasks, pace=soon, **settings) as served:
        yield served


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda program: program.name)
def proxied(
    request: pytest.FixtureRequest, worker: ServedWorker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    """Run each proxy in front of the worker."""
    program = request.param
    folder = tmp_path_factory.mktemp(program.name)
    addresses = {"127.0.0.1:8001": urlsplit(worker.url).netloc}
    with run_proxy(program, folder, {program.file: FILES[program.file]}, addresses) as proxied:
        yield proxied


def test_requests_reach_the_worker_and_its_metadata_names_the_proxy(proxied: Proxied) -> None:
    """Whatever headers the client forges; HAProxy asks first whether the worker is ready."""
    assert eventually(lambda: proxied.status(headers=FORGED) == 200)
    status, _, body = proxied.get("/.well-known/oauth-protected-resource", "x-forwarded-host: evil.example.com")
    assert (status, json.loads(body)["resource"]) == (200, f"https://{NAME}")


def test_wrong_tokens_count_for_the_client_behind_the_proxy(proxied: Proxied, request: pytest.FixtureRequest) -> None:
    """By its own address and no forged one; other clients are served."""
    assert eventually(lambda: proxied.status() == 200)
    number = [program.name for program in PROGRAMS].index(request.node.callspec.params["proxied"].name)
    guesser, other = f"127.0.1.{number}", f"127.0.2.{number}"
    forged = (("x-forwarded-for", f"{guesser}, {other}"), ("forwarded", "for=203.0.113.1"))
    statuses = [proxied.status(token=f"guess{n}", source=guesser, headers=forged) for n in range(11)]
    assert statuses == [401] * 10 + [429]
    assert proxied.status(source=guesser) == 429
    assert proxied.status(source=other) == 200


def test_events_pass_the_proxy_one_by_one(proxied: Proxied, gate: threading.Event) -> None:
    """The first comes while the call still runs."""
    assert eventually(lambda: proxied.status() == 200)
    gate.clear()
    with proxied.connect() as connection:
        connection.sendall(proxied.request("tools/call", HOLD))
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.getheader("content-type") == "text/event-stream"
        assert response.readline() == b": still running\n"
        gate.set()
        (reply,) = [json.loads(line[6:]) for line in response if line.startswith(b"data: ")]
    assert reply["result"]["structuredContent"]["w1"]["result"] is True


def test_client_that_disconnects_cancels_its_call(
    proxied: Proxied, worker: ServedWorker, gate: threading.Event
) -> None:
    """The proxy closes its own connection then."""
    assert eventually(lambda: proxied.status() == 200)
    gate.clear()
    with proxied.connect() as connection:
        connection.sendall(proxied.request("tools/call", HOLD))
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.readline() == b": still running\n"
    response.close()
    assert eventually(lambda: not worker.http.requests)
    gate.set()


def test_client_that_disconnects_before_its_response_cancels_its_call(
    proxied: Proxied, worker: ServedWorker, gate: threading.Event
) -> None:
    """One that accepts JSON alone: nothing is sent to it until the end, so that the proxy has to notice by itself."""
    assert eventually(lambda: proxied.status() == 200)
    gate.clear()
    with proxied.connect() as connection:
        connection.sendall(proxied.request("tools/call", HOLD, headers=(("accept", "application/json"),)))
        assert eventually(lambda: bool(worker.http.requests))
    assert eventually(lambda: not worker.http.requests)
    gate.set()


def test_pipelined_requests_and_tokens_stay_apart(proxied: Proxied) -> None:
    """Connections to the worker are shared by clients; their requests aren't."""
    assert eventually(lambda: proxied.status() == 200)
    with proxied.connect() as connection:
        for token, expected in ((TOKEN, 200), (None, 401), (TOKEN, 200)):
            connection.sendall(proxied.request(token=token))
            assert read_response(connection)[0] == expected
