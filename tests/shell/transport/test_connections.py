"""The client's sockets: bounded when they are created, distinct peers, and closed without delay."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from nfcli.models.environment.paths import DEFAULT_WORKER
from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol.connection import Connection
from nfcli.shell.client.client import Client
from nfcli.shell.transport import direct
from nfcli.shell.transport.base import not_running
from support.fabric.rogue_worker import WAIT_SECONDS, answer, result, rogue_and_client


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Any, Client]]:
    """Return a worker that answers each job with `good`, and a client of it."""
    with rogue_and_client(tmp_path) as (rogue, client):
        rogue.script = lambda uuid: [answer(uuid, "200", result("good"))]
        yield rogue, client


def outcome(client: Client, timeout: float = WAIT_SECONDS) -> object:
    """Run a job; return its value or its errors."""
    done = client.run_job("fastmcp", "x", timeout=timeout)[DEFAULT_WORKER]
    return done["errors"] if done["failed"] else done["result"]


def test_bounds_are_set_when_a_socket_is_created(tmp_path: Path) -> None:
    """By default ZeroMQ bounds no message, and unsent ones delay the end of the program."""
    with zmq.Context() as context:
        connection = Connection(context, f"ipc://{tmp_path}/socket", routing_id=b"x", keys=None, server_key=None)
        dealer = connection.dealer
        options = (dealer.getsockopt(zmq.LINGER), dealer.getsockopt(zmq.MAXMSGSIZE))
        connection.close()
    assert options == (0, 512 * 1024 * 1024)


def test_clients_of_one_program_are_distinct_peers(both: tuple[Any, Client]) -> None:
    """A ROUTER ignores a second connection with the routing id of an open one."""
    rogue, first = both
    assert outcome(first) == "good"
    with rogue.client() as second:
        assert outcome(second) == "good"
        assert outcome(first) == "good"


def test_a_worker_that_has_ended_gets_no_job(both: tuple[Any, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock goes with its process; the end of its connection may be noticed later."""
    monkeypatch.setattr(direct, "LOCK_SECONDS", 0.0)
    rogue, client = both
    assert outcome(client) == "good"
    rogue.lock.release()
    with pytest.raises(NoWorkersError, match=f"^{re.escape(not_running(DEFAULT_WORKER))}$"):
        client.run_job("fastmcp", "x", timeout=WAIT_SECONDS)


def test_an_answer_over_the_limit_is_refused(both: tuple[Any, Client]) -> None:
    """The connection ends and the job fails with one line; the next one is answered."""
    rogue, _ = both
    good, rogue.script = rogue.script, lambda uuid: [answer(uuid, "200", result("x" * 20_000))]
    with rogue.client(max_message_bytes=10_000) as client:
        (line,) = outcome(client)  # type: ignore[misc]
        assert re.fullmatch(rf"worker {DEFAULT_WORKER} [^\n]*has gone away[^\n]*", line)
        rogue.script = good
        assert outcome(client) == "good"


def test_unsent_messages_do_not_delay_the_end(both: tuple[Any, Client]) -> None:
    """By default ZeroMQ waits for ever to send them."""
    rogue, _ = both
    client = rogue.client(connect_seconds=0.1)
    with socket.socket() as silent:  # bound and not listening
        silent.bind(("127.0.0.1", 0))
        rogue.lock.publish(endpoint=f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(NoWorkersError, match="no worker answered"):
            client.run_job("fastmcp", "x")
        closing = threading.Thread(target=client.close, daemon=True)
        closing.start()
        closing.join(WAIT_SECONDS)
    assert not closing.is_alive()
