"""Which signals a worker sends its broker when; tests pass the time as numbers."""

from __future__ import annotations

import pytest

from nfcli.models.protocol.frames import Command
from nfcli.worker.transport.registration import Registration

NEVER_SILENT = float("inf")  # a time at which the broker is silent already
READY, KEEPALIVE, DISCONNECT = Command.READY, Command.KEEPALIVE, Command.DISCONNECT


@pytest.fixture
def registration() -> Registration:
    """Return one that was begun at 100 s and connected at 101 s; intervals of 2.5 s, 15 s to hold."""
    registration = Registration(100.0)
    registration.connected(101.0)
    return registration


def sent(registration: Registration, until: float, *, heard: float | None = None) -> list[tuple[float, list[bytes]]]:
    """Return the signals due up to a time, with their times; `heard` is when the broker's last keepalive comes."""
    found = []
    while (now := registration.next_change(NEVER_SILENT)) <= until:
        if heard is not None and heard <= now:
            registration.keepalive_received(heard)
            heard = None
        found.append((now, registration.due_signals(now)))
    return found


def test_ready_comes_first_and_keepalives_follow(registration: Registration) -> None:
    """The first keepalive at once: an older registration of the name would expire soon."""
    assert sent(registration, 107.0, heard=101.5) == [
        (101.0, [READY, KEEPALIVE]),
        (103.5, [KEEPALIVE]),
        (106.0, [KEEPALIVE]),
    ]
    assert registration.due_signals(107.0) == []


def test_a_stale_entry_is_removed_first_and_once() -> None:
    """It may be registered for another service, and the broker ignores a further READY."""
    registration = Registration(100.0, has_stale_entry=True)
    assert registration.due_signals(100.0) == [DISCONNECT, READY, KEEPALIVE]
    registration.connected(101.0)
    assert registration.due_signals(101.0) == [READY, KEEPALIVE]


def test_a_new_connection_registers_at_once(registration: Registration) -> None:
    """The broker may have been restarted."""
    registration.due_signals(101.0)
    registration.connected(102.0)
    assert registration.due_signals(102.0) == [READY, KEEPALIVE]


def test_only_keepalives_are_sent_while_the_broker_is_silent(registration: Registration) -> None:
    """A READY that it reads once another worker has the name would register a worker that doesn't exist."""
    registration.due_signals(101.0)
    registration.keepalive_received(102.0)
    assert registration.next_change(108.0) == 103.5
    assert sent(registration, 111.5) == [
        (103.5, [KEEPALIVE]),
        (106.0, [KEEPALIVE]),
        (108.5, [KEEPALIVE]),
        (111.0, [KEEPALIVE]),
    ]
    assert [registration.is_silent(109.4), registration.is_silent(109.5)] == [False, True]
    registration.keepalive_received(112.0)
    assert registration.due_signals(113.5) == [KEEPALIVE]


def test_the_next_change_is_the_silence_if_that_is_earlier(registration: Registration) -> None:
    """Another worker with the name is found before the hold time ends."""
    for now in (101.0, 103.5, 106.0):
        registration.due_signals(now)
    registration.keepalive_received(100.2)
    assert registration.next_change(106.0) == pytest.approx(107.7)
    assert registration.next_change(108.0) == 108.5


def test_after_the_hold_time_the_connection_is_lost(registration: Registration) -> None:
    """Counted from the broker's last keepalive, or from the connection."""
    assert (registration.lost_at(), registration.is_lost(115.9), registration.is_lost(116.0)) == (116.0, False, True)
    registration.keepalive_received(110.0)
    assert (registration.lost_at(), registration.is_lost(116.0)) == (125.0, False)


def test_a_suspended_process_registers_again(registration: Registration) -> None:
    """Meanwhile the broker may have removed it, and its last keepalives wait to be read."""
    registration.due_signals(101.0)
    registration.keepalive_received(121.0)
    assert registration.due_signals(121.0) == [READY, KEEPALIVE]
    assert registration.next_change(121.0) == 123.5


def test_a_broker_that_keeps_refusing_gets_one_ready_an_interval(registration: Registration) -> None:
    """Otherwise the two would reply to each other endlessly."""
    registration.due_signals(101.0)
    registration.reregister(101.1)
    assert registration.due_signals(101.1) == []
    assert registration.due_signals(103.5) == [READY, KEEPALIVE]
    registration.keepalive_received(106.0)
    registration.reregister(106.0)
    assert registration.due_signals(106.0) == [READY, KEEPALIVE]


def test_signals_that_could_not_be_sent_are_due_again_soon(registration: Registration) -> None:
    """The connection may accept messages a little later."""
    assert registration.due_signals(101.0) == [READY, KEEPALIVE]
    registration.send_failed(101.0)
    assert registration.due_signals(101.0) == []
    assert registration.due_signals(101.125) == [READY, KEEPALIVE]
