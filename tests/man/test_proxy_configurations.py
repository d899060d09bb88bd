"""The proxies' configurations on the page about them work in front of a worker, in real proxies."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest

from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import task
from nfcli.worker.mcp.reply_streams import Pace
from support import examples
from support.fabric.worker import eventually
from support.mcp.certificates import make_certificates, trusting
from support.mcp.served_worker import TOKEN, WAIT_SECONDS, McpAddress, ServedWorker, read_response

pytestmark = pytest.mark.slow

NAME = "mcp.example.com"
ATTEMPTS = 3
FILES = {block.file: block.text for block in examples.blocks("man/pages/proxies.md")}
HOLD = {"name": "service_fastmcp__task_hold", "arguments": {}}
FORGED = (
    ("x-forwarded-for", "9.9.9.9"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "evil.example.com"),
    ("forwarded", "for=9.9.9.9;host=evil.example.com"),
)


class Proxied(McpAddress):
    """A worker behind a proxy on this machine, that clients reach as `https://mcp.example.com`."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.url = f"https://{NAME}/mcp"
        self._port = port
        self._context = context

    def status(self, source: str | None = None, **options: Any) -> int:
        """Post a request; return the status of the response, which may be the proxy's own or a stream."""
        return self.send(self.request(**options), source)[0]

    def connect(self, source: str | None = None) -> socket.socket:
        """Open a connection with TLS."""
        address = ("127.0.0.1", self._port)
        plain = socket.create_connection(address, WAIT_SECONDS, source_address=(source, 0) if source else None)
        return self._context.wrap_socket(plain, server_hostname=NAME)


@dataclass(frozen=True)
class Program:
    """A proxy: its program, the file on the page, and how that is adapted; `run` returns the command."""

    name: str
    file: str
    changes: Callable[[Path, int], dict[str, str]]
    around: Callable[[Path, str], str]
    run: Callable[[Path], list[str]]


def nginx_file(folder: Path, text: str) -> str:
    """Return a whole configuration with `text` as the part that the page has."""
    user = "user root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    return f"{user}\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{text}\n}}\n"


PROGRAMS = [
    Program(
        "nginx",
        "nginx.conf",
        lambda folder, port: {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/ssl/mcp.example.com.crt": f"{folder}/server.crt",
            "/etc/ssl/mcp.example.com.key": f"{folder}/server.key",
        },
        nginx_file,
        lambda file: ["nginx", "-e", "stderr", "-c", str(file), "-p", str(file.parent), "-g", "daemon off;"],
    ),
    Program(
        "caddy",
        "Caddyfile",
        lambda folder, port: {
            f"{NAME} {{": f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {folder}/server.crt {folder}/server.key"
        },
        lambda _folder, text: f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}",
        lambda file: ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"],
    ),
    Program(
        "haproxy",
        "haproxy.cfg",
        lambda folder, port: {
            "bind :443 ssl crt /etc/ssl/mcp.example.com.pem": f"bind 127.0.0.1:{port} ssl crt {folder}/both.pem"
        },
        lambda _folder, text: text,
        lambda file: ["haproxy", "-db", "-f", str(file)],
    ),
]


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
        return gate.wait(WAIT_SECONDS)

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
    if shutil.which(program.name) is None:
        pytest.skip(f"{program.name} is not installed")
    folder = tmp_path_factory.mktemp(program.name)
    make_certificates(folder, NAME)
    (folder / "both.pem").write_bytes((folder / "server.crt").read_bytes() + (folder / "server.key").read_bytes())
    with running(program, folder, urlsplit(worker.url).netloc) as port:
        yield Proxied(port, trusting(folder))


@contextmanager
def running(program: Program, folder: Path, worker: str) -> Iterator[int]:
    """Run a proxy in front of the worker at an address; yield its port."""
    for _ in range(ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        text = FILES[program.file]
        for old, new in {**program.changes(folder, port), "127.0.0.1:8001": worker}.items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        file = folder / program.file
        file.write_text(program.around(folder, text))
        home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                program.run(file), cwd=folder, stdout=log, stderr=log, env={**os.environ, **home}
            )
        try:
            if eventually(lambda: process.poll() is not None or listens(port)) and process.poll() is None:  # noqa: B023
                yield port
                return
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)
    pytest.fail((folder / "log").read_text())


def listens(port: int) -> bool:
    """Whether a connection to a port succeeds."""
    try:
        socket.create_connection(("127.0.0.1", port), WAIT_SECONDS).close()
    except OSError:
        return False
    return True


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


def test_pipelined_requests_and_tokens_stay_apart(proxied: Proxied) -> None:
    """Connections to the worker are shared by clients; their requests aren't."""
    assert eventually(lambda: proxied.status() == 200)
    with proxied.connect() as connection:
        for token, expected in ((TOKEN, 200), (None, 401), (TOKEN, 200)):
            connection.sendall(proxied.request(token=token))
            assert read_response(connection)[0] == expected
