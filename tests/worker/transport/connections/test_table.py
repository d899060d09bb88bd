"""Which of the direct clients' connections close when there are too many, or when messages have no end."""

from __future__ import annotations

import resource
from collections import Counter
from types import SimpleNamespace

import pytest

from nfcli.worker.transport.connections import table
from nfcli.worker.transport.connections.table import PeerTable

HANDSHAKE_SECONDS = 5.0
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow ten connections, six that have not authenticated, three of one address; enough descriptors."""
    monkeypatch.setattr(table, "MAX_CONNECTIONS", 10)
    monkeypatch.setattr(table, "MAX_CONNECTING", 6)
    monkeypatch.setattr(table, "MAX_CONNECTING_PER_ADDRESS", 3)
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (1_000, 1_000))


class Bench:
    """A table with a clock and counts of messages that a test sets."""

    def __init__(self) -> None:
        self.clock = SimpleNamespace(now=1_000.0)
        self.messages: Counter[int] = Counter()
        self.table = PeerTable(self.messages, HANDSHAKE_SECONDS, lambda: self.clock.now)

    def add(self, network: str, *descriptors: int) -> list[int]:
        """Add connections; return the descriptors of those that close for them."""
        closed = []
        for descriptor in descriptors:
            found = self.table.add(descriptor, network, descriptor)
            if found is not None:
                closed.append(found[0].descriptor)
                self.table.remove(found[0].descriptor)
        return closed


@pytest.fixture
def bench() -> Bench:
    """Return an empty table."""
    return Bench()


def test_oldest_connection_of_an_address_closes_for_a_new_one(bench: Bench) -> None:
    """Among those that have not authenticated; other addresses lose none."""
    assert bench.add("b", 1) == []
    assert bench.add("a", 2, 3, 4, 5, 6) == [2, 3]


def test_address_with_most_connections_loses_one_for_another_address(bench: Bench) -> None:
    """When all addresses together have too many."""
    assert bench.add("a", 1) + bench.add("b", 2, 3) + bench.add("c", 4, 5, 6) == []
    assert bench.add("d", 7) == [4]


def test_connection_with_a_message_is_not_closed_for_one_without(bench: Bench) -> None:
    """It has authenticated; a message of an earlier connection with the same descriptor is none of its own."""
    bench.messages[1] += 1
    assert bench.add("a", 1, 2, 3) == []
    bench.messages[2] += 1
    assert bench.add("a", 4) == []
    assert bench.add("a", 5) == [1]


def test_connection_that_outlives_the_handshake_is_not_closed_for_a_new_one(bench: Bench) -> None:
    """ZeroMQ closes by then what has not authenticated: an idle client may be silent."""
    assert bench.add("a", 1, 2, 3) == []
    bench.clock.now += HANDSHAKE_SECONDS + 1.1
    assert bench.add("a", 4, 5, 6) == []
    assert bench.add("a", 7) == [4]


def test_authenticated_connections_are_limited_too(bench: Bench) -> None:
    """New ones close first, except for one that has just come."""
    for number in range(10):
        assert bench.add("a", number) == []
        bench.messages[number] += 1
    assert bench.add("b", 10) == [0]
    bench.messages[10] += 1
    assert bench.add("b", 11) == [1]
    assert len(bench.table) == 10


def test_few_descriptors_allow_fewer_connections(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of them."""
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (20, 1_000))
    assert [closed for number in range(6) for closed in bench.add(f"a{number}", number)] == [0, 1, 2]


def test_descriptor_that_is_used_again_is_a_new_connection(bench: Bench) -> None:
    """Its end may not have been reported."""
    assert bench.add("a", 1) + bench.add("b", 1, 1) == []
    assert [peer.network for peer in bench.table] == ["b"]
    bench.table.remove(1)
    bench.table.remove(1)
    assert len(bench.table) == 0


def measure(bench: Bench, *totals: int) -> list[int]:
    """Measure the bytes of connections 0, 1 …; return the descriptors of those that close."""
    for peer, total in zip(bench.table, totals, strict=True):
        peer.measure(bench.messages[peer.descriptor], total)
    return [peer.descriptor for peer in bench.table.too_long()]


def test_message_without_end_closes_its_connection(bench: Bench) -> None:
    """What came since the last whole message counts, from the beginning of the connection on."""
    bench.add("a", 0, 1)
    assert measure(bench, 16 * MIB, 0) == []
    bench.messages[0] += 1
    assert measure(bench, 30 * MIB, 16 * MIB + 1) == [1]
    assert measure(bench, 46 * MIB, 0) == []
    assert measure(bench, 46 * MIB + 1, 0) == [0]


def test_messages_without_end_of_many_connections_are_limited_together(bench: Bench) -> None:
    """The longest close until the others are within the limit."""
    for number in range(6):
        bench.add(f"a{number}", number)
    assert measure(bench, *[10 * MIB] * 6) == []
    assert measure(bench, 10 * MIB, 16 * MIB, 15 * MIB, 10 * MIB, 10 * MIB, 10 * MIB) == [1]
    assert measure(bench, *[16 * MIB] * 6) == [5, 4]


def test_longest_message_counts_once(bench: Bench) -> None:
    """The others are within the limit without it."""
    for number in range(4):
        bench.add(f"a{number}", number)
    assert measure(bench, 100 * MIB, 16 * MIB, 16 * MIB, 16 * MIB) == [0]


def test_growth_of_memory_counts_for_a_socket_file_once_bytes_wait(bench: Bench) -> None:
    """What the process held before, and what it grows by while none wait, isn't the client's."""
    bench.add("", 0)
    (peer,) = bench.table
    for total in (None, 100 * MIB, None, 116 * MIB):
        peer.measure(0, total)
        assert bench.table.too_long() == []
    peer.measure(0, 117 * MIB)
    assert bench.table.too_long() == [peer]
    peer.measure(1, None)
    assert bench.table.too_long() == []
