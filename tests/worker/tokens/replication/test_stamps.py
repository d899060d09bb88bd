"""The times of a record that is stored: near a client's, and later than what they replace."""

from __future__ import annotations

import math

import pytest

from nfcli.models.tasks.auth import BearerTokenStoreInput
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.replication.stamps import make_record

NOW = 1_780_000_000.123457


def made(expire: int | None = None, live: BearerTokenRecord | None = None, **times: float) -> BearerTokenRecord:
    """Return the record that is stored at `NOW`."""
    return make_record(BearerTokenStoreInput(username="ann", token="t", expire=expire), NOW, live, **times)


@pytest.mark.parametrize(
    ("issued", "expire", "is_used"),
    [
        (NOW - 10.0, None, True),
        (NOW + 10.0, 3600, True),
        (NOW - 10.1, None, False),
        (NOW + 10.1, 3600, False),
        (NOW - 5, 100, True),
        (NOW - 5, 99, False),
    ],
)
def test_a_record_has_the_time_of_a_client_that_is_near(issued: float, expire: int | None, is_used: bool) -> None:
    """Within ten seconds, for a lifetime of 100 seconds or more."""
    record = made(expire, issued=issued)
    begin = round(issued if is_used else NOW, 6)
    assert record == BearerTokenRecord("t", "ann", begin, None if expire is None else begin + expire)
    assert record.written is None


@pytest.mark.parametrize("deleted", [NOW, NOW + 5, NOW - 1e-7])
def test_a_creation_is_later_than_the_deletion_before_it(deleted: float) -> None:
    """By a microsecond at least, as the database keeps it; the lifetime counts from the time itself."""
    record = made(60, deleted=deleted)
    assert record.created == pytest.approx(deleted + 1e-6, abs=1e-6)
    assert record.created > deleted
    assert record.expires == NOW + 60


@pytest.mark.parametrize("deleted", [-math.inf, 0.0, NOW - 1])
def test_an_older_deletion_changes_nothing(deleted: float) -> None:
    """There may be none."""
    assert made(deleted=deleted) == BearerTokenRecord("t", "ann", NOW, None)


@pytest.mark.parametrize("ahead", [0.0, 3.0])
def test_a_renewal_keeps_the_creation_and_is_later_than_what_it_replaces(ahead: float) -> None:
    """Also than a record that another worker wrote by a clock that is ahead."""
    live = BearerTokenRecord("t", "ann", NOW - 50, NOW + 5, NOW + ahead)
    record = made(60, live)
    assert (record.created, record.expires) == (NOW - 50, NOW + 60)
    assert record.written is not None
    assert record.written > NOW + ahead
    assert record.written == pytest.approx(NOW + ahead + 1e-6, abs=1e-6)
    older = BearerTokenRecord("t", "ann", NOW - 50, None)
    assert made(60, older).written == NOW
