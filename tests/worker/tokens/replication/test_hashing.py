"""Hashes of tokens, users and records: the same in every version, since workers of a fleet compare them."""

from __future__ import annotations

import pytest

from nfcli.models.environment.fleet_key import FleetKey
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.replication.hashing import DIGEST_MODULUS, TokenHasher

HASHER = TokenHasher(FleetKey(bytes(range(32))))


def test_hashes_are_the_same_in_every_version() -> None:
    """Of a token, of a user, of a token in the audit trail, of the state of a token."""
    assert HASHER.key_id == "8adc89f9"
    assert HASHER.token_id("t1").hex() == "2f454cf9a8c874ce12e158626a784f07"
    assert HASHER.token_id("\ud800").hex() == "acc551443daa62bab2dab8ac300c41c2"
    assert HASHER.user_id("ann").hex() == "01ed167abe0d7b5a0575e015cd6d79cf"
    assert HASHER.user_id("\ud800").hex() == "c2c9e7172ba7c821a26336f5b34452ce"
    assert HASHER.fingerprint("t1") == "554663a2a6d6"
    assert HASHER.version("a", None, 1.5) == "d68b34fe9827ddd5"


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        (None, 0xA6D3C5E89A462CD16775B3377A2C17FE38913F340370442B7911FD4EAF007C13),
        (60, 0xA25C0D0602A04B726B9C1A7373843BE3FCDE6C9D18035278C176380D98D1A7EF),
        (60.0, 0xA25C0D0602A04B726B9C1A7373843BE3FCDE6C9D18035278C176380D98D1A7EF),
        (1.5e9, 0xBA51568E0B94282CC77A2A757DE03A0797EB2089ECA5FD1EE386D4439A057F4A),
    ],
)
def test_a_record_has_the_same_hash_in_every_version(expires: float | None, expected: int) -> None:
    """It depends on token, user and expiry, not on the creation; the modulus is that of 32 bytes."""
    for created in (5.0, 6.0):
        assert HASHER.record_hash(BearerTokenRecord("t1", "ann", created, expires)) == expected
    assert DIGEST_MODULUS == 2**256


def test_a_record_that_is_not_valid_has_a_hash_too() -> None:
    """The database refuses it, after its hash was made."""
    expected = 0x36CB2A8CB027ECB84BEFAA17694624361954F6DA6CFE52CFEA371C1AB99C6569
    assert HASHER.record_hash(BearerTokenRecord("t1", "\ud800", 5.0, None)) == expected


def test_a_token_and_a_user_of_one_text_have_different_ids() -> None:
    """A deletion of one isn't that of the other; another fleet has others."""
    other = TokenHasher(FleetKey(bytes(32)))
    assert len({HASHER.token_id("x"), HASHER.user_id("x"), other.token_id("x"), other.user_id("x")}) == 4
