"""What the system says about a connection that ZeroMQ owns, by its file descriptor.

ZeroMQ reports a descriptor after it has used it, so that it may be another connection's by then, or no socket at all,
and may become one at any time: `socket_at` is for reading figures, `SocketHolder` for all that mustn't hit another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

_TCP_INFO_BYTES = 256
_BYTES_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received of Linux's struct tcp_info
_INT = struct.Struct("i")
_STATM = Path("/proc/self/statm")


@contextlib.contextmanager
def socket_at(descriptor: int) -> Iterator[socket.socket | None]:
    """Borrow the socket of a descriptor for the length of the block; None if it is no socket (any more)."""
    try:
        borrowed = socket.socket(fileno=descriptor)
    except OSError:
        yield None
        return
    try:
        yield borrowed
    finally:
        borrowed.detach()


class SocketHolder:
    """Holds one socket at a time by a second descriptor, so that the first one may be closed and used again meanwhile.

    That descriptor is kept for it: it works when the process has none left. Belongs to one thread.
    """

    def __init__(self) -> None:
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._kept = os.dup(self._nothing)

    @contextlib.contextmanager
    def socket_at(self, descriptor: int) -> Iterator[socket.socket | None]:
        """Hold the socket of a descriptor for the length of the block; None if it is no socket (any more)."""
        try:
            os.dup2(descriptor, self._kept, inheritable=False)
        except OSError:  # closed
            yield None
            return
        try:
            with socket_at(self._kept) as held:
                yield held
        finally:
            os.dup2(self._nothing, self._kept, inheritable=False)

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self._kept)
        os.close(self._nothing)


def identity(borrowed: socket.socket) -> int:
    """Return a number that no other socket of this system has while the program runs."""
    return os.fstat(borrowed.fileno()).st_ino


def local_address(borrowed: socket.socket) -> object:
    """Return what the socket is bound to: the port, or the path of a socket file; None if it is closed."""
    try:
        name = borrowed.getsockname()
    except OSError:
        return None
    return name[1] if isinstance(name, tuple) else name


def peer_address(borrowed: socket.socket) -> str:
    """Return the client's IP address, empty for a socket file and for a closed connection."""
    try:
        name = borrowed.getpeername()
    except OSError:
        return ""
    return str(name[0]) if isinstance(name, tuple) else ""


def received_bytes(borrowed: socket.socket) -> int | None:
    """Return how many bytes have arrived on a TCP connection; None for others, and where the system doesn't tell."""
    if borrowed.family == socket.AF_UNIX or sys.platform != "linux":
        return None
    try:
        found: int = _BYTES_RECEIVED.unpack_from(
            borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        )[0]
    except (OSError, struct.error):  # closed, or an old kernel
        return None
    return found


def has_unread(borrowed: socket.socket) -> bool:
    """Whether bytes have arrived that nobody has read yet."""
    try:
        waiting: int = _INT.unpack(fcntl.ioctl(borrowed, termios.FIONREAD, bytes(_INT.size)))[0]
    except OSError:
        return False
    return waiting > 0


def resident_bytes() -> int:
    """Return the resident memory of this process, 0 where the system doesn't tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0
