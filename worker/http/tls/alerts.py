"""TLS alerts of handshakes that fail: why, in the words of the client's library.

The event loop closes the connection of a failed handshake before it sends what the TLS library has to say about it; the
client would only see that the connection ends.
"""

from __future__ import annotations

import ssl
from typing import Any


class _ServerObject(ssl.SSLObject):
    """One connection's TLS; an error of its handshake has the alert to send as its attribute `alert`."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.alert = self.outgoing.read()  # type: ignore[attr-defined]
            raise


class ServerContext(ssl.SSLContext):
    """A server's TLS context whose connections keep the alerts of failed handshakes."""

    sslobject_class = _ServerObject

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Return a connection's TLS."""
        made = super().wrap_bio(incoming, outgoing, *args, **kwargs)
        if isinstance(made, _ServerObject):
            made.outgoing = outgoing
        return made


def alert_of(error: ssl.SSLError) -> bytes:
    """Return the alert that the client of a failed handshake should get, b"" if there is none."""
    alert = getattr(error, "alert", b"")
    return alert if isinstance(alert, bytes) else b""
