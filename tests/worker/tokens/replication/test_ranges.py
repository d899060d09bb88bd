"""Ids of tokens by range: kept while a comparison lasts, and right while tokens change."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nfcli.models.environment.fleet_key import FleetKey
from nfcli.worker.tokens.replication.hashing import TokenHasher
from nfcli.worker.tokens.replication.ranges import TokenRanges

HASHER = TokenHasher(FleetKey(bytes(32)))
TOKENS = [f"t{number}" for number in range(1000)]


class Stored(list[str]):
    """Tokens that count how often they are read."""

    reads = 0

    def read(self) -> list[str]:
        """Return the tokens."""
        self.reads += 1
        return list(self)


@pytest.fixture
def ticks() -> SimpleNamespace:
    """Return the time of the fixture `ranges`."""
    return SimpleNamespace(now=100.0)


@pytest.fixture
def ranges(ticks: SimpleNamespace) -> TokenRanges:
    """Return ranges with a clock."""
    return TokenRanges(HASHER, lambda: ticks.now)


def test_each_id_is_in_the_range_of_its_first_byte(ranges: TokenRanges) -> None:
    """There are 256; all tokens are there by their id."""
    built = ranges.get(lambda: TOKENS)
    assert len(built) == 256
    assert [digest for number, each in enumerate(built) for digest in each if digest[0] != number] == []
    found = {digest: token for each in built for digest, token in each.items()}
    assert found == {HASHER.token_id(token): token for token in TOKENS}


def test_ranges_are_kept_until_nobody_has_used_them_for_30_seconds(ranges: TokenRanges, ticks: SimpleNamespace) -> None:
    """Each use counts."""
    stored = Stored(TOKENS)
    ranges.get(stored.read)
    for _ in range(3):
        ticks.now += 29.9
        ranges.expire()
        assert ranges.get(stored.read) is ranges.get(stored.read)
    assert stored.reads == 1
    ticks.now += 30
    ranges.expire()
    ranges.get(stored.read)
    assert stored.reads == 2
    ranges.build(stored.read)
    ticks.now += 29.9
    ranges.expire()
    ranges.get(stored.read)
    assert stored.reads == 3


def test_tokens_that_are_stored_meanwhile_are_added(ranges: TokenRanges) -> None:
    """Nothing is kept for tokens before there are ranges, nor after all tokens were replaced."""
    ranges.add(["early"])
    stored = Stored(["a"])
    ranges.get(stored.read)
    ranges.add(["b", "c"])
    assert {token for each in ranges.get(stored.read) for token in each.values()} == {"a", "b", "c"}
    ranges.drop()
    ranges.add(["late"])
    assert {token for each in ranges.get(stored.read) for token in each.values()} == {"a"}
