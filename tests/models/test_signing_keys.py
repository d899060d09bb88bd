"""Signing keys: the same for the same secret in every version, and signatures that only their own key makes."""

from __future__ import annotations

import pytest

from nfcli.models.signing_keys import SIGNATURE_BYTES, SigningKey, is_signature

KEY = SigningKey(b"one")
PUBLIC = "6de3931738175968e9473a80485ecc3114c2e02c0d04d8aa9313f3c4ff35c4e3"
SIGNATURE = bytes.fromhex(
    "dea156510247e01dc6151e646eedb339ecd2f74b205a5b631ebc245cc15ae3c8"
    "02ad7b72ccd72df8b1438f5589935c2b1c3130742e04d18662cce9de50fe140c"
)


def test_a_secret_gives_the_same_signing_key_in_every_version() -> None:
    """The public half is in files on many machines: with another one no worker would know the client any more."""
    assert KEY.public == PUBLIC
    assert KEY.sign(b"message") == SIGNATURE
    assert len(SIGNATURE) == SIGNATURE_BYTES == 64


@pytest.mark.parametrize(
    ("public", "message", "signature"),
    [
        (PUBLIC, b"another", SIGNATURE),
        (PUBLIC, b"message", SIGNATURE[:-1]),
        (PUBLIC, b"message", SIGNATURE + b"\0"),
        (PUBLIC, b"message", bytes(64)),
        (PUBLIC, b"message", b""),
        (SigningKey(b"another").public, b"message", SIGNATURE),
        (PUBLIC[:-2], b"message", SIGNATURE),
        (PUBLIC[:-1], b"message", SIGNATURE),
        ("x" * 64, b"message", SIGNATURE),
        ("", b"message", SIGNATURE),
    ],
)
def test_no_other_signature_is_one(public: str, message: bytes, signature: bytes) -> None:
    """What isn't even a key or a signature is answered in the same way."""
    assert is_signature(PUBLIC, b"message", SIGNATURE) is True
    assert is_signature(public, message, signature) is False
