"""When a worker tells its broker what: time is a number here."""

from __future__ import annotations

import pytest

from nfcli.models.protocol.frames import Command
from nfcli.worker.transport.registration import Registration

NEVER_SILENT = float("inf")  # a time at which silence is no news any more
READY, KEEPALIVE, DISCONNECT = Command.READY, Command.KEEPALIVE, Command.DISCONNECT


@pytest.fixture
def registration() -> Registration:
    """Return one that was begun at 100 s and connected at 101 s; intervals of 2.5 s, 15 s to hold."""
    registration = Registration(100.0)
    registration.connected(101.0)
    return registration


def sent(registration: Registration, until: float, *, heard: float | None = None) -> list[tuple[float, list[bytes]]]:
    """Return what goes out up to a time, each when it is due; `heard` is the last that comes of the broker."""
    found = []
    while (now := registration.next_change(NEVER_SILENT)) <= until:
        if heard is not None and heard <= now:
            registration.keepalive_received(heard)
            heard = None
        found.append((now, registration.due_signals(now)))
    return found


def test_ready_comes_first_and_keepalives_follow(registration: Registration) -> None:
    """The first keepalive at once: an older registration of this name would soon be over."""
    assert sent(registration, 107.0, heard=101.5) == [
        (101.0, [READY, KEEPALIVE]),
        (103.5, [KEEPALIVE]),
        (106.0, [KEEPALIVE]),
    ]
    assert registration.due_signals(107.0) == []


def test_what_a_dead_worker_left_is_removed_first_and_once() -> None:
    """It may be registered for another service, and a READY on top means nothing."""
    registration = Registration(100.0, has_stale_entry=True)
    assert registration.due_signals(100.0) == [DISCONNECT, READY, KEEPALIVE]
    registration.connected(101.0)
    assert registration.due_signals(101.0) == [READY, KEEPALIVE]


def test_a_new_connection_registers_at_once(registration: Registration) -> None:
    """Whoever has come back may have been restarted."""
    registration.due_signals(101.0)
    registration.connected(102.0)
    assert registration.due_signals(102.0) == [READY, KEEPALIVE]


def test_keepalives_go_on_alone_while_the_broker_is_silent(registration: Registration) -> None:
    """A READY that it reads when the name has changed hands would register a worker that isn't there."""
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


def test_the_next_change_is_the_silence_where_that_comes_first(registration: Registration) -> None:
    """Whoever has the name by then is found before the hold time is over."""
    for now in (101.0, 103.5, 106.0):
        registration.due_signals(now)
    registration.keepalive_received(100.2)
    assert registration.next_change(106.0) == pytest.approx(107.7)
    assert registration.next_change(108.0) == 108.5


def test_after_the_hold_time_the_connection_is_lost(registration: Registration) -> None:
    """Counted from the broker's last keepalive, or from when the connection came about."""
    assert (registration.lost_at(), registration.is_lost(115.9), registration.is_lost(116.0)) == (116.0, False, True)
    registration.keepalive_received(110.0)
    assert (registration.lost_at(), registration.is_lost(116.0)) == (125.0, False)


def test_a_pause_of_the_process_itself_is_followed_by_a_registration(registration: Registration) -> None:
    """Stopped by a signal, or the machine asleep: the broker has taken it for dead, its last keepalives wait here."""
    registration.due_signals(101.0)
    registration.keepalive_received(121.0)
    assert registration.due_signals(121.0) == [READY, KEEPALIVE]
    assert registration.next_change(121.0) == 123.5


def test_a_broker_that_keeps_refusing_gets_one_ready_an_interval(registration: Registration) -> None:
    """Else the two would answer each other without end."""
    registration.due_signals(101.0)
    registration.reregister(101.1)
    assert registration.due_signals(101.1) == []
    assert registration.due_signals(103.5) == [READY, KEEPALIVE]
    registration.keepalive_received(106.0)
    registration.reregister(106.0)
    assert registration.due_signals(106.0) == [READY, KEEPALIVE]


def test_what_could_not_be_sent_is_sent_in_a_moment(registration: Registration) -> None:
    """The connection may be there a little later than it is known."""
    assert registration.due_signals(101.0) == [READY, KEEPALIVE]
    registration.send_failed(101.0)
    assert registration.due_signals(101.0) == []
    assert registration.due_signals(101.125) == [READY, KEEPALIVE]
