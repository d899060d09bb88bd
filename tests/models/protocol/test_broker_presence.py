"""How a broker's silence, disconnection and return are judged, with a clock that the test moves."""

import math

import pytest

from nfcli.models.protocol.broker_presence import BrokerPresence, Timeouts

TIMEOUTS = Timeouts(poll=2.5, comeback=20.0, silence=2.0)


def test_a_broker_is_away_when_a_message_stays_unanswered() -> None:
    """Later messages don't extend the time; any message from it ends the absence."""
    broker = BrokerPresence(TIMEOUTS)
    assert (broker.away_at, broker.retry_at, broker.lost_at) == (math.inf, math.inf, math.inf)
    broker.record_sent(1.0)
    broker.record_sent(2.0)
    assert (broker.retry_at, broker.away_at, broker.lost_at) == (2.0, 3.0, 23.0)
    assert [broker.is_away(now) for now in (2.9, 3.0)] == [False, True]
    broker.record_received(4.0)
    assert not broker.is_away(1_000.0)


def test_without_a_time_of_silence_a_broker_is_away_at_once_and_not_asked_early() -> None:
    """Jobs end as much earlier."""
    broker = BrokerPresence(Timeouts(comeback=20.0, silence=0.0))
    broker.record_sent(1.0)
    assert (broker.is_away(1.0), broker.retry_at, broker.lost_at) == (True, math.inf, 21.0)


@pytest.mark.parametrize("is_up", [False, True])
def test_a_broker_that_disconnects_is_away_at_once(is_up: bool) -> None:
    """Also if the connection is back before anybody has noticed, until a message arrives."""
    broker = BrokerPresence(TIMEOUTS, handshakes=1)
    assert broker.update_connection(is_up=is_up, handshakes=2 if is_up else 1, now=5.0) is is_up
    assert (broker.is_away(5.0), broker.is_disconnected, broker.lost_at) == (True, True, 25.0)
    broker.update_connection(is_up=False, handshakes=2, now=6.0)
    assert broker.lost_at == 25.0
    broker.record_received(7.0)
    assert (broker.is_away(7.0), broker.is_disconnected) == (False, False)


def test_silence_before_a_disconnection_counts() -> None:
    """The time to wait is not begun again."""
    broker = BrokerPresence(Timeouts(comeback=20.0, silence=0.0), handshakes=1)
    broker.record_sent(1.0)
    broker.update_connection(is_up=False, handshakes=1, now=5.0)
    assert broker.lost_at == 21.0


def test_the_first_connection_is_not_a_return() -> None:
    """It makes requests due all the same."""
    broker = BrokerPresence(TIMEOUTS)
    assert broker.update_connection(is_up=True, handshakes=1, now=1.0)
    assert not broker.update_connection(is_up=True, handshakes=1, now=1.1)
    assert (broker.is_settling(1.1), broker.is_away(1.1)) == (False, False)


def test_workers_have_time_to_register_behind_a_new_connection() -> None:
    """As long as the broker itself would be waited for."""
    broker = BrokerPresence(TIMEOUTS, handshakes=1)
    broker.update_connection(is_up=True, handshakes=2, now=5.0)
    assert [broker.is_settling(now) for now in (5.0, 24.9, 25.0)] == [True, True, False]


@pytest.mark.parametrize(("silence", "is_settling"), [(5.0, False), (5.1, True)])
def test_workers_have_time_to_register_behind_a_long_silence(silence: float, is_settling: bool) -> None:
    """A broker that was frozen has dropped those whose keepalives it didn't read."""
    broker = BrokerPresence(TIMEOUTS)
    broker.record_sent(1.0)
    broker.record_received(1.0 + silence)
    assert broker.is_settling(1.0 + silence) is is_settling
