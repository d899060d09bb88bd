"""Tokens that are deleted while clients use them as fast as they can, at a real worker process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from nfcli import Client
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.mcp.served_worker import WAIT_SECONDS, read_response
from support.programs import ProgramStarter
from support.workers import EnvironmentFactory, RunningWorker

pytestmark = pytest.mark.slow

THREADS = 4
ROUNDS = 10
MARGIN_SECONDS = 0.05
PING = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'


class Hammer:
    """A client in a thread of its own that pings until `stop`, and twice more.

    `answers` are (moment of asking, moment of the answer, status); `has_begun` is set when some have come,
    `was_refused` when one wasn't 200.
    """

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self.answers: list[tuple[float, float, int]] = []
        self.has_begun = threading.Event()
        self.was_refused = threading.Event()
        self._may_end = threading.Event()
        head = f"POST /mcp HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {token}\r\n"
        head += "content-type: application/json\r\naccept: application/json\r\n"
        self._request = f"{head}content-length: {len(PING)}\r\n\r\n".encode() + PING
        self._address = (parts.hostname, parts.port)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with socket.create_connection(self._address, timeout=WAIT_SECONDS) as connection:
            left = 2
            while left:
                left -= self._may_end.is_set()
                asked = time.monotonic()
                connection.sendall(self._request)
                status = read_response(connection)[0]
                self.answers.append((asked, time.monotonic(), status))
                if status != 200:
                    self.was_refused.set()
                if len(self.answers) > 2:
                    self.has_begun.set()

    def stop(self) -> None:
        """Have it ask twice more, and wait for its end."""
        self._may_end.set()
        self._thread.join(WAIT_SECONDS)


@pytest.fixture(scope="module")
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make the environment of a worker that lets all clients of this machine be wrong as often as they like."""
    return environment_factory(auth_bearer={"max_wrong_tokens_per_minute": 0})


@pytest.fixture(params=["client", "shell"])
def delete(
    request: pytest.FixtureRequest, client: Client, environment: Environment, start_program: ProgramStarter
) -> Callable[[str], Any]:
    """Return what deletes a token and comes back with the answer: the Python client, and the shell."""
    if request.param == "shell":
        program = start_program(environment=environment)
        program.run_line("pwd")
        return lambda token: program.run_line(f"fastmcp auth delete-token token {token}")

    def run(token: str) -> Any:
        return client.run_job("fastmcp", "bearer_token_delete", kwargs={"token": token})[DEFAULT_WORKER]["result"]

    return run


def hammers(url: str, token: str) -> list[Hammer]:
    """Start clients that use a token; each has been answered some times when this returns."""
    started = [Hammer(url, token) for _ in range(THREADS)]
    for hammer in started:
        assert hammer.has_begun.wait(WAIT_SECONDS)
    return started


def test_no_request_after_the_answer_to_a_deletion_is_served(
    worker: RunningWorker, client: Client, delete: Callable[[str], Any]
) -> None:
    """Requests are answered all the time, 200 until then and 401 ever after."""
    for number in range(ROUNDS):
        token = f"t{number}"
        client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "ann", "token": token})
        clients = hammers(worker.url, token)
        answer = delete(token)
        acknowledged = time.monotonic()
        for hammer in clients:
            hammer.stop()
        assert "true" in str(answer).lower()
        for hammer in clients:
            assert hammer.answers[0][2] == 200
            assert {status for asked, _, status in hammer.answers if asked > acknowledged} == {401}


def test_no_request_after_the_moment_of_expiry_is_served(worker: RunningWorker, client: Client) -> None:
    """And all before it are."""
    before = time.monotonic()
    client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "ann", "token": "short", "expire": 1})
    after = time.monotonic()
    clients = hammers(worker.url, "short")
    for hammer in clients:
        assert hammer.was_refused.wait(WAIT_SECONDS)
    for hammer in clients:
        hammer.stop()
    for hammer in clients:
        assert {status for _, answered, status in hammer.answers if answered < before + 1 - MARGIN_SECONDS} == {200}
        assert {status for asked, _, status in hammer.answers if asked > after + 1 + MARGIN_SECONDS} <= {401}
        assert hammer.answers[-1][2] == 401
