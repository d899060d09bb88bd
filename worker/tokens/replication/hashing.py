"""Keyed hashes of tokens, users and records: comparable between workers of one fleet, and meaningless to others.

Without the fleet's key a hash can't be used to test guesses of a token (BLAKE2b with a key, RFC 7693).
"""

from __future__ import annotations

import hmac
from hashlib import blake2b

from ....models.environment.fleet_key import FleetKey
from ....models.tokens import BearerTokenRecord

ID_BYTES = 16
DIGEST_BYTES = 32
DIGEST_MODULUS = 1 << 8 * DIGEST_BYTES
VERSION_BYTES = 8

_PURPOSE, _FINGERPRINT_PURPOSE = b"token-digest", b"audit-fingerprint"
_FINGERPRINT_DIGITS = 12


class TokenHasher:
    """Hashes with the key that is derived from a fleet key; `key_id` is the fleet key's id.

    The digest of a set of records is the sum of their `record_hash` modulo `DIGEST_MODULUS`: it doesn't depend on their
    order, and a change of one record changes it by one subtraction and one addition.
    """

    def __init__(self, key: FleetKey) -> None:
        self.key_id = key.id
        self._key = key.derive(_PURPOSE)
        self._fingerprint_key = key.derive(_FINGERPRINT_PURPOSE)

    def token_id(self, token: str) -> bytes:
        """Return the id of a token."""
        return blake2b(
            token.encode("utf-8", "surrogatepass"), digest_size=ID_BYTES, key=self._key, person=b"token"
        ).digest()

    def fingerprint(self, token: str) -> str:
        """Return the fingerprint of a token as the audit trail has it."""
        return hmac.digest(self._fingerprint_key, token.encode(), "sha256").hex()[:_FINGERPRINT_DIGITS]

    def user_id(self, username: str) -> bytes:
        """Return the id of a user."""
        return blake2b(
            username.encode("utf-8", "surrogatepass"), digest_size=ID_BYTES, key=self._key, person=b"user"
        ).digest()

    def record_hash(self, record: BearerTokenRecord) -> int:
        """Return the summand of a record in the digest of its set: of token, user and expiry."""
        expires = None if record.expires is None else float(record.expires)
        # A record that isn't valid is hashed too: the database refuses it later.
        text = f"{record.token}\0{record.username}\0{expires!r}".encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=DIGEST_BYTES, key=self._key, person=b"record").digest())

    def version(self, *state: object) -> str:
        """Return a short hash of the state of one token, by which a later change of it is noticed."""
        return blake2b(repr(state).encode(), digest_size=VERSION_BYTES, key=self._key, person=b"version").hexdigest()
