"""Who may talk to the worker: the live list of client keys, and the ZAP handler that asks it.

A key is looked at twice: by ZAP when a client connects, and on every message by the `User-Id` that ZAP attached, so a
key taken out of `.nfcli/clients/` is out at once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from ...models.environment.curve_keys import read_public_key
from ...models.errors import KeyFileError

log = logging.getLogger(__name__)

SHORT_NAME_CHARACTERS = 8
ZAP_DOMAIN = "nfcli"
ZAP_ENDPOINT = "inproc://zeromq.zap.01"  # fixed by ZeroMQ RFC 27

_Signature = tuple[int, int, int]


class AllowedClients:
    """The public keys in a folder of `*.key` files, as they are on disk at the moment of asking.

    Safe to call from any thread. A known key costs one `stat`; an unknown one a scan of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._files: dict[str, dict[Path, _Signature]] = {}
        self._ignored: set[tuple[Path, _Signature | None]] = set()

    def allows(self, key: str) -> bool:
        """Whether a file with this public key (40 characters of Z85) lies in the folder now."""
        with self._lock:
            if self._is_unchanged(key):
                return True
            self._scan()
            return key in self._files

    def name(self, key: str) -> str:
        """Return the name of a client: its file's without `.key`, the first of several; `short_name` if it has none."""
        with self._lock:
            if not self._is_unchanged(key):
                self._scan()
            files = self._files.get(key, {})
            return next((path.stem for path, known in files.items() if _signature(path) == known), short_name(key))

    def _is_unchanged(self, key: str) -> bool:
        return any(_signature(path) == known for path, known in self._files.get(key, {}).items())

    def _scan(self) -> None:
        files: dict[str, dict[Path, _Signature]] = {}
        ignored = set()
        for path in sorted(self.folder.glob("*.key")):
            signature = _signature(path)
            try:
                key = read_public_key(path).decode()
            except KeyFileError as error:
                ignored.add((path, signature))
                if (path, signature) not in self._ignored:  # strangers make us scan as often as they like
                    log.warning("client key ignored: %s", error)
                continue
            if signature is not None:
                files.setdefault(key, {})[path] = signature
        self._files, self._ignored = files, ignored


def short_name(key: str) -> str:
    """Return what a client is called whose key lies in no file: the beginning of the key."""
    return key[:SHORT_NAME_CHARACTERS]


def _signature(path: Path) -> _Signature | None:
    try:
        status = os.stat(path)  # noqa: PTH116  once per message: half the cost of Path.stat
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class Access:
    """The ZAP handler of a ZeroMQ context, started again should its thread die.

    While it is down nobody new gets in (`zap_enforce_domain`), and messages of those already connected are still
    checked against the live list.

    Args:
        context: the context of the sockets that are guarded.
        clients: who is let in.
        refused: is told who was refused and why, and returns whether the log should tell as well; it must neither wait
            nor raise.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        clients: AllowedClients,
        refused: Callable[[str, str], bool],
    ) -> None:
        self._context = context
        self._clients = clients
        self._refused = refused
        self._authenticator: ThreadAuthenticator | None = None

    def start(self) -> None:
        """Start answering ZAP requests; call before the first socket binds."""
        authenticator = ThreadAuthenticator(self._context, log=logging.getLogger(f"{__name__}.zap"))
        authenticator.start()
        authenticator.configure_curve_callback(ZAP_DOMAIN, credentials_provider=self)
        self._authenticator = authenticator

    def callback(self, _domain: str, key: bytes) -> bool:
        """Answer pyzmq's authenticator; an exception here would end its thread, so there is none."""
        try:
            allowed = self._clients.allows(key.decode())
        except Exception as error:  # noqa: BLE001  an answer of no is the only safe one
            log.error("client key refused: %s", type(error).__name__)
            return False
        if not allowed and self._refused(short_name(key.decode()), "unknown client key"):
            log.warning("a client whose key is not in %s was refused", self._clients.folder)
        return allowed

    def supervise(self) -> None:
        """Start the handler again if its thread has died; called now and then by the thread that owns the ROUTER."""
        if self._authenticator is not None and self._authenticator.is_alive():
            return
        log.error("the ZAP handler died: starting it again")
        try:
            self.stop()
            self.start()
        except zmq.ZMQError as error:
            log.error("the ZAP handler can't be started yet: %s", error.strerror)

    def stop(self) -> None:
        """End the handler; needed before the context can be terminated."""
        authenticator, self._authenticator = self._authenticator, None
        if authenticator is None:
            return
        if not authenticator.is_alive():
            # pyzmq's stop() would send to a thread that no longer reads; and a closed socket gives its inproc name
            # back only later, an unbound one at once.
            authenticator.pipe.close(linger=0)
            authenticator.pipe = None  # type: ignore[assignment]
            authenticator.zap_socket.unbind(ZAP_ENDPOINT)
        authenticator.stop()
