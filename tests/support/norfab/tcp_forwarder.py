"""A TCP connection by way of this process, which can keep back what comes from one side, as a bad network does."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

TO_BROKER, TO_WORKER = 0, 1


class Forwarder:
    """Forwards connections to a port of this machine; `endpoint` is where it listens.

    Nothing is lost: what was held back arrives late, behind one another, as with TCP itself.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._is_free = (threading.Event(), threading.Event())
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        for direction in (TO_BROKER, TO_WORKER):
            self.release(direction)
        self._threads[0].start()

    def hold(self, direction: int) -> None:
        """Forward nothing more in a direction, on connections of now and later, until `release`."""
        self._is_free[direction].clear()

    def release(self, direction: int) -> None:
        """Forward what was held back, and all that comes."""
        self._is_free[direction].set()

    def close(self) -> None:
        """End all connections."""
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for event in self._is_free:
            event.set()
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._sockets):
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets.append(far)
                ways = ((near, far, TO_BROKER), (far, near, TO_WORKER))
                started = [threading.Thread(target=self._forward, args=way) for way in ways]
                self._threads += started
                for thread in started:
                    thread.start()

    def _forward(self, source: socket.socket, target: socket.socket, direction: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._is_free[direction].wait()
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
