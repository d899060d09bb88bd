"""Ed25519 keys that clients sign their jobs with; each follows from the secret key of the client's CURVE pair.

So there is no further secret to store, hand on or lose. The public half stands in the `metadata` of the client's `.key`
file, where NorFab and older versions of nfcli ignore it.
"""

from __future__ import annotations

import hmac
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_BYTES = 64

_PURPOSE = b"nfcli: signatures of jobs, Ed25519"


class SigningKey:
    """The signing key that belongs to a CURVE pair; made when it is first used, since that takes milliseconds."""

    def __init__(self, curve_secret: bytes) -> None:
        self._curve_secret = curve_secret

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        # Imported here: it takes 10 ms or more, which a shell's start doesn't need.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        return Ed25519PrivateKey.from_private_bytes(hmac.digest(self._curve_secret, _PURPOSE, "sha256"))

    @property
    def public(self) -> str:
        """The public half, as 64 hexadecimal digits."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature of a message."""
        return self._key.sign(message)


def is_signature(public: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of a message by the key whose public half is `public`, in hexadecimal digits."""
    # Imported here: most workers verify nothing.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
