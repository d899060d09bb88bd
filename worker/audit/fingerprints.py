"""Fingerprints of tokens: equal for equal tokens, and useless without the key."""

from __future__ import annotations

import hmac

FINGERPRINT_DIGITS = 12
FINGERPRINT_PURPOSE = b"audit-fingerprint"
"""Of the fleet key."""


class Fingerprints:
    """Makes the fingerprints of tokens; any thread may call any method.

    `key` is that of new lines, which all workers of a fleet share. `older_keys` are those of lines that earlier
    versions wrote.
    """

    def __init__(self, key: bytes, *older_keys: bytes) -> None:
        self._keys = (key, *older_keys)

    def of(self, token: str) -> str:
        """Return the fingerprint of a token in new lines."""
        return _fingerprint(self._keys[0], token)

    def all_of(self, token: str) -> frozenset[str]:
        """Return the fingerprints that a token has in new and in older lines."""
        return frozenset(_fingerprint(key, token) for key in self._keys)


def _fingerprint(key: bytes, token: str) -> str:
    return hmac.digest(key, token.encode("utf-8", "surrogatepass"), "sha256").hex()[:FINGERPRINT_DIGITS]
