"""Authentication of direct clients: the authorized keys, and the ZAP authenticator that checks them.

A key is checked twice: by ZAP when a client connects, and on every message by the `User-Id` that ZAP attached. So a key
that is removed from `.nfcli/clients/` is refused at once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.auth.thread import ThreadAuthenticator

from ...models.environment.curve_keys import read_client_key
from ...models.errors import KeyFileError

log = logging.getLogger(__name__)

ZAP_DOMAIN = "nfcli"
ZAP_ENDPOINT = "inproc://zeromq.zap.01"  # fixed by ZeroMQ RFC 27

_State = tuple[int, int, int]


class Access(Enum):
    """What a client may do: everything, or ask about tokens."""

    FULL = "full"
    VERIFY = "verify"


class _KeyFile(NamedTuple):
    """A key file: what `stat` says of it while it is unchanged, the signing key in it, and what the key may do."""

    state: _State
    signing: str | None
    access: Access


class AuthorizedKeys:
    """The public keys in a folder of `*.key` files, as they are on disk at the time of the call.

    Those in the folder `verifiers` may ask about tokens and nothing else, unless they are in `folder` too. Any thread
    may call any method. A known key takes one `stat`, an unknown one a scan of the folders.
    """

    def __init__(self, folder: Path, verifiers: Path | None = None) -> None:
        self.folder = folder
        self._verifiers = verifiers
        self._lock = threading.Lock()
        self._files: dict[str, dict[Path, _KeyFile]] = {}
        self._ignored: set[tuple[Path, _State | None]] = set()

    def is_authorized(self, key: str) -> bool:
        """Whether a file in the folder has this public key (40 characters of Z85), which may do everything."""
        return self.access(key) is Access.FULL

    def is_verifier(self, key: str) -> bool:
        """Whether the client with this public key may ask about tokens, and do nothing else."""
        return self.access(key) is Access.VERIFY

    def access(self, key: str) -> Access | None:
        """Return what the client with this public key may do, None if no file has it."""
        with self._lock:
            found, is_current = self._known_access(key)
            if not is_current:
                self._scan()
                found, _ = self._known_access(key)
            return found

    def _known_access(self, key: str) -> tuple[Access | None, bool]:
        """Return what a key may do by the files that were read and are unchanged, and whether those say all."""
        files = self._files.get(key, {}).items()
        unchanged = {known.access for path, known in files if _state(path) == known.state}
        if Access.FULL in unchanged:
            return Access.FULL, True
        return (Access.VERIFY if unchanged else None), unchanged == {known.access for _, known in files} != set()

    def name(self, key: str) -> str:
        """Return the name of a client: that of its first file without `.key`, or `key_prefix` if it has none."""
        with self._lock:
            if not self._is_unchanged(key):
                self._scan()
            files = self._files.get(key, {})
            return next((path.stem for path, known in files.items() if _state(path) == known.state), key_prefix(key))

    def signing_key(self, key: str) -> str | None:
        """Return the public signing key of an authorized client, None if its file has none."""
        with self._lock:
            if not self._is_unchanged(key):
                self._scan()
            unchanged = (known for path, known in self._files.get(key, {}).items() if _state(path) == known.state)
            return next((known.signing for known in unchanged if known.signing is not None), None)

    def _is_unchanged(self, key: str) -> bool:
        return any(_state(path) == known.state for path, known in self._files.get(key, {}).items())

    def _scan(self) -> None:
        files: dict[str, dict[Path, _KeyFile]] = {}
        ignored = set()
        folders = [(self.folder, Access.FULL)]
        folders += [] if self._verifiers is None else [(self._verifiers, Access.VERIFY)]
        for path, access in ((path, access) for folder, access in folders for path in sorted(folder.glob("*.key"))):
            state = _state(path)
            try:
                found = read_client_key(path)
            except KeyFileError as error:
                ignored.add((path, state))
                if (path, state) not in self._ignored:  # unknown clients cause scans at any rate
                    log.warning("client key ignored: %s", error)
                continue
            if state is not None:
                files.setdefault(found.public.decode(), {})[path] = _KeyFile(state, found.signing, access)
        self._files, self._ignored = files, ignored


def key_prefix(key: str) -> str:
    """Return the name of a client whose key no file has: the beginning of the key."""
    return key[:8]


def _state(path: Path) -> _State | None:
    try:
        status = os.stat(path)  # noqa: PTH116  once per message: half the cost of Path.stat
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class ZapAuthenticator:
    """The ZAP handler of a ZeroMQ context, restarted if its thread dies.

    While it is down no client can connect (`zap_enforce_domain`), and messages of connected clients are still checked
    against the authorized keys. `refused` records a refused client and the reason, and returns whether to log it too;
    it must neither block nor raise. `handler` is pyzmq's, None while it isn't started.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], clients: AuthorizedKeys, refused: Callable[[str, str], bool]
    ) -> None:
        self._context = context
        self._clients = clients
        self._refused = refused
        self.handler: ThreadAuthenticator | None = None

    def start(self) -> None:
        """Start replying to ZAP requests; call before the first socket binds."""
        authenticator = ThreadAuthenticator(self._context, log=logging.getLogger(f"{__name__}.zap"))
        authenticator.start()
        authenticator.configure_curve_callback(ZAP_DOMAIN, credentials_provider=self)
        self.handler = authenticator

    def callback(self, _domain: str, key: bytes) -> bool:
        """Return whether a key is authorized, to pyzmq's authenticator; never raises, which would end its thread."""
        try:
            is_authorized = self._clients.access(key.decode()) is not None
        except Exception as error:  # noqa: BLE001  fail closed
            log.error("client key refused: %s", type(error).__name__)
            return False
        if not is_authorized and self._refused(key_prefix(key.decode()), "unknown client key"):
            log.warning("client refused: its key is not in %s", self._clients.folder)
        return is_authorized

    def supervise(self) -> None:
        """Restart the handler if its thread has died; called regularly by the thread that owns the ROUTER."""
        if self.handler is not None and self.handler.is_alive():
            return
        log.error("ZAP handler died; restarting it")
        try:
            self.stop()
            self.start()
        except zmq.ZMQError as error:
            log.error("ZAP handler not restarted yet: %s", error.strerror)

    def stop(self) -> None:
        """End the handler; needed before the context can be terminated."""
        authenticator, self.handler = self.handler, None
        if authenticator is None:
            return
        if not authenticator.is_alive():
            # pyzmq's stop() would send to a thread that no longer reads; and a closed socket frees its inproc name only
            # later, an unbound one at once.
            authenticator.pipe.close(linger=0)
            authenticator.pipe = None  # type: ignore[assignment]
            authenticator.zap_socket.unbind(ZAP_ENDPOINT)
        authenticator.stop()
