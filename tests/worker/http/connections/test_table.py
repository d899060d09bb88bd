"""Which connections close when there are too many: a table of them, and clients of one worker."""

from __future__ import annotations

import logging
import resource
import select
import socket
from collections.abc import Callable
from typing import Any

import pytest

from nfcli.worker.http.connections import table
from nfcli.worker.http.connections.table import ConnectionTable, HttpLimits
from support.mcp.served_worker import TOKEN, read_response
from support.strangers import connections, is_closed, open_ones

Serve = Callable[..., Any]
ELSEWHERE = "127.0.0.2"


class FakeConnection:
    """A connection of an address that records whether it was aborted."""

    def __init__(self, peer: str, *, is_busy: bool = False) -> None:
        self.peer = peer
        self.is_busy = is_busy
        self.is_open = True

    def abort(self) -> None:
        """Record it."""
        self.is_open = False


@pytest.fixture
def limits() -> HttpLimits:
    """Return counters."""
    return HttpLimits()


@pytest.fixture
def connected(limits: HttpLimits, monkeypatch: pytest.MonkeyPatch) -> ConnectionTable:
    """Return a table for ten connections, eight of one address, two that aren't known."""
    monkeypatch.setattr(table, "MAX_CONNECTIONS", 10)
    monkeypatch.setattr(table, "MAX_CONNECTIONS_PER_ADDRESS", 8)
    monkeypatch.setattr(table, "MAX_UNKNOWN_PER_ADDRESS", 2)
    return ConnectionTable(limits)


def add(
    table: ConnectionTable, peer: str, count: int = 1, *, is_known: bool = False, is_busy: bool = False
) -> list[FakeConnection]:
    """Add connections of an address; those that may not stay are closed."""
    added = []
    for _ in range(count):
        connection = FakeConnection(peer, is_busy=is_busy)
        connection.is_open = table.add(connection)
        if is_known:
            table.mark_known(connection)
        added.append(connection)
    return added


def are_open(connections: list[FakeConnection]) -> list[bool]:
    """Return which of them are open."""
    return [connection.is_open for connection in connections]


def test_longest_unused_connection_of_an_address_closes_for_a_new_one(
    connected: ConnectionTable, limits: HttpLimits
) -> None:
    """Idle ones that aren't known, by their last request."""
    first, second = add(connected, "a", 2)
    connected.mark_used(first)
    third, fourth = add(connected, "a", 2)
    assert are_open([first, second, third, fourth]) == [False, False, True, True]
    assert (len(connected), limits.counters()["connections_closed"]) == (2, 2)


def test_busy_connections_stay_and_the_new_one_is_refused(connected: ConnectionTable) -> None:
    """An active request is never ended for a connection that may bring none."""
    assert are_open(add(connected, "a", 3, is_busy=True)) == [True, True, False]
    assert are_open(add(connected, "b", 2, is_busy=True)) == [True, True]


def test_known_connections_have_room_of_their_own(connected: ConnectionTable) -> None:
    """Those that aren't known close first; known ones then, when their address has all that one may have."""
    known = add(connected, "a", 6, is_known=True)
    strangers = add(connected, "a", 2)
    more = add(connected, "a", 2, is_known=True)
    assert are_open([*known, *strangers, *more]) == [*[True] * 6, False, False, True, True]
    assert are_open([*known, *add(connected, "a")]) == [False, *[True] * 6]


def test_address_with_most_unknown_connections_loses_one_for_another_address(connected: ConnectionTable) -> None:
    """When all addresses together have too many: known ones only where no unknown one is idle."""
    known = add(connected, "a", 7, is_known=True)
    one, two = add(connected, "b")[0], add(connected, "c", 2)
    new = add(connected, "d", 1)
    assert are_open([*known, one, *two, *new]) == [*[True] * 7, True, False, True, True]
    for connection in (one, two[1], new[0]):
        connection.is_busy = True
    assert are_open([*known, *add(connected, "e")]) == [False, *[True] * 7]


def test_no_connection_is_kept_after_its_end(connected: ConnectionTable) -> None:
    """Closed ones leave room, and a connection that was never added may end."""
    for _ in range(50):
        for connection in add(connected, "a", 2):
            connected.remove(connection)
            connected.remove(connection)
            connected.mark_used(connection)
            connected.mark_known(connection)
    assert len(connected) == 0


def test_addresses_of_an_ipv6_network_count_as_one(connected: ConnectionTable) -> None:
    """A host can use every address of its /64."""
    one, two, three, other = (add(connected, f"2001:db8:0:{n}::{i}")[0] for n, i in ((1, 1), (1, 2), (1, 3), (2, 1)))
    assert are_open([one, two, three, other]) == [False, True, True, True]


def test_few_file_descriptors_allow_fewer_connections(limits: HttpLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them are left to the rest of the process; macOS grants 256 by default."""
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (20, 1_000))
    few = ConnectionTable(limits)
    assert are_open([connection for number in range(11) for connection in add(few, f"a{number}")]) == [
        False,
        *[True] * 10,
    ]


def test_known_connection_that_has_ended_is_not_the_one_to_close(connected: ConnectionTable) -> None:
    """The next oldest one is."""
    first, *others = add(connected, "a", 8, is_known=True)
    connected.remove(first)
    assert are_open([*others, *add(connected, "a", 2, is_known=True)]) == [False, *[True] * 8]


def test_address_with_most_known_connections_loses_one_where_no_unknown_one_is_idle(
    connected: ConnectionTable, caplog: pytest.LogCaptureFixture, limits: HttpLimits
) -> None:
    """Whichever came first; a line names the limit of all addresses."""
    few, many = add(connected, "a", 3, is_known=True), add(connected, "b", 7, is_known=True)
    assert are_open([*few, *many, *add(connected, "c", is_busy=True)]) == [*[True] * 3, False, *[True] * 7]
    assert caplog.messages == ["HTTP connections closed: more than 10 of all addresses together"]
    assert limits.counters()["connections_closed"] == 1


def test_counters_begin_at_zero_and_have_the_names_of_get_stats(limits: HttpLimits) -> None:
    """One for each limit."""
    assert limits.counters() == dict.fromkeys(limits.counters(), 0)
    assert {"connections_closed", "requests_too_long", "clients_too_slow", "waits_for_descriptors"} <= set(
        limits.counters()
    )


def test_flood_of_connections_logs_one_line(connected: ConnectionTable, caplog: pytest.LogCaptureFixture) -> None:
    """It names the address and the limit."""
    add(connected, "192.0.2.1", 50)
    assert caplog.messages == ["HTTP connections of 192.0.2.1 closed: more than 2 connections without a valid token"]


def test_silent_connections_of_one_address_shut_nobody_out(
    served_worker: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither other addresses nor clients at the same one; a connection that had a valid token stays."""
    caplog.set_level(logging.WARNING)
    worker = served_worker()
    with worker.connect() as client:
        client.sendall(worker.request())
        assert read_response(client)[0] == 200
        with connections(worker.url, 520) as held:
            assert worker.get("/health")[0] == 200
            assert worker.post()[0] == 200
            assert worker.post(source=ELSEWHERE)[0] == 200
            assert len(open_ones(held)) <= table.MAX_UNKNOWN_PER_ADDRESS
            client.sendall(worker.request())
            assert read_response(client)[0] == 200
            assert worker.http.counters()["connections_closed"] >= 420
    assert [message for message in caplog.messages if "HTTP connections" in message] == [
        "HTTP connections of 127.0.0.1 closed: more than 100 connections without a valid token"
    ]


def test_silent_connections_of_many_addresses_shut_nobody_out(served_worker: Serve) -> None:
    """The limit of all addresses together closes the oldest of those that have most."""
    worker = served_worker()
    with connections(worker.url, 600, [f"127.0.1.{number}" for number in range(1, 13)]) as held:
        assert worker.post()[0] == 200
        assert worker.get("/health")[0] == 200
        assert len(open_ones(held)) <= table.MAX_CONNECTIONS


def test_connections_with_begun_requests_shut_nobody_out(served_worker: Serve) -> None:
    """Heads and bodies that never end, and requests without a token, are not active requests."""
    worker = served_worker()
    begun = (b"POST /mcp HTTP/1.1\r\nhost: loc", b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
    with connections(worker.url, 240) as held:
        for number, each in enumerate(open_ones(held)):
            try_send(each, begun[number % 2])
        with connections(worker.url, 100):
            assert worker.post()[0] == 200


def test_client_with_a_token_does_not_close_itself_out(served_worker: Serve) -> None:
    """Connections that had a valid token are beyond the limit of those that hadn't."""
    worker = served_worker()
    with connections(worker.url, 100) as opened:
        held = open_ones(opened)
        for each in held:
            each.sendall(worker.request("ping"))
            assert read_response(each)[0] == 200
        with connections(worker.url, 100):
            assert worker.get("/mcp", f"authorization: Bearer {TOKEN}")[0] == 405
            assert len(open_ones(held)) == len(held)


def try_send(connection: socket.socket, data: bytes) -> None:
    """Send, to a client that may be closed just now."""
    if select.select([], [connection], [], 1)[1]:
        try:
            connection.sendall(data)
        except OSError:
            assert is_closed(connection)


def test_connections_of_proxies_have_no_limit_per_address(limits: HttpLimits, connected: ConnectionTable) -> None:
    """They carry the requests of many clients; others that aren't known close before them."""
    assert connected is not None  # its limits
    behind = ConnectionTable(limits, {"192.0.2.1"})
    of_proxy, unknown = add(behind, "192.0.2.1", 9), add(behind, "198.51.100.1")
    more = add(behind, "192.0.2.1")
    assert [each.is_open for each in (*of_proxy, *more)] == [True] * 10
    assert [each.is_open for each in unknown] == [False]
