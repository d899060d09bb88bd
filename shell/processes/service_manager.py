"""Reports to the service manager that started this process, as `sd_notify(3)` of systemd specifies.

systemd gives the address of a datagram socket in NOTIFY_SOCKET, and with a watchdog the time in which it wants to hear
from the service in WATCHDOG_USEC.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, MutableMapping

ADDRESS, WATCHDOG, WATCHDOG_PROCESS = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
MAX_STATUS_CHARACTERS = 200
_MICROSECONDS = 1_000_000


class ServiceManager:
    """The service manager of this process; without one, every method does nothing.

    The variables are removed from `environ`: child processes are not the service. `watchdog_seconds` is the time
    between two pings of the watchdog, `next_ping` is when the next one is due by `monotonic`; infinite without one.
    """

    def __init__(
        self,
        environ: MutableMapping[str, str] = os.environ,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._address = environ.pop(ADDRESS, "")
        microseconds, process = environ.pop(WATCHDOG, ""), environ.pop(WATCHDOG_PROCESS, "")
        is_watched = (
            bool(self._address)
            and microseconds.isdecimal()
            and int(microseconds) > 0
            and process in {"", str(os.getpid())}
        )
        self.watchdog_seconds = int(microseconds) / _MICROSECONDS / 3 if is_watched else math.inf
        self.next_ping = math.inf

    def report_ready(self, status: str) -> None:
        """Report that the service has started, or has read its configuration again."""
        self._send("READY=1", _status(status))
        if self.watchdog_seconds < math.inf:
            self.next_ping = self._monotonic()

    def report_status(self, status: str) -> None:
        """Report what the service does now, a line for people."""
        self._send(_status(status))

    def report_reloading(self) -> None:
        """Report that the service reads its configuration again; `report_ready` follows."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._monotonic() * _MICROSECONDS)}")

    def report_stopping(self) -> None:
        """Report that the service stops; pings are no longer due."""
        self._send("STOPPING=1")
        self.next_ping = math.inf

    def ping(self) -> None:
        """Send the watchdog a ping, if one is due."""
        if self._monotonic() >= self.next_ping:
            self._send("WATCHDOG=1")
            self.next_ping = self._monotonic() + self.watchdog_seconds

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.settimeout(1.0)
                connection.sendto("\n".join(lines).encode(), address)
        except OSError:  # the manager is away, or there is no descriptor: the service goes on
            return


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:MAX_STATUS_CHARACTERS]}"
