"""A NorFab broker and the workers behind it in one ROUTER; each worker says what a script tells it to."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from typing import Any

import zmq

from nfcli.models.environment.curve_keys import KeyPair
from nfcli.models.protocol.broker_connection import BrokerAddress
from nfcli.models.protocol.broker_key import BrokerKey
from nfcli.models.protocol.frames import BROKER_SERVICE, BrokerMessage, ClientMessage, Command, decode_target

WAIT_SECONDS = 20.0
LOOK_MILLISECONDS = 10

Frames = list[bytes]
Script = Callable[[str, ClientMessage], list[Frames]]


def reply_frames(message: ClientMessage, status: str, data: Any, command: bytes = Command.RESPONSE) -> Frames:
    """Return the frames of an answer; bytes go out as they are."""
    payload = data if isinstance(data, bytes) else json.dumps(data).encode()
    return BrokerMessage(command, message.service, message.uuid, status, payload).frames()


def result(value: Any, **fields: Any) -> dict[str, Any]:
    """Return the result of a task that went well."""
    return {"result": value, "failed": False, "errors": [], "messages": [], "status": "completed", **fields}


def accepted(name: str, message: ClientMessage) -> Frames:
    """Return a worker's answer to a job that it has taken."""
    return reply_frames(message, "201", {"worker": name, "uuid": message.uuid, "status": "ACCEPTED"})


def ready(name: str, message: ClientMessage) -> Frames:
    """Return the event that announces a result."""
    event = {"worker": name, "event_type": "result_ready", "message": "completed"}
    return reply_frames(message, "200", event, Command.EVENT)


def pushes(value: Any) -> Script:
    """Be a worker that sends its result at once, as nfcli's do; of a function, what it returns for the job's data."""

    def script(name: str, message: ClientMessage) -> list[Frames]:
        if message.command != Command.POST:
            return []
        found = value(json.loads(message.data)) if callable(value) else value
        return [accepted(name, message), reply_frames(message, "200", {name: result(found)})]

    return script


def is_asked(value: Any, *, tells: bool = True, post: bool = True) -> Script:
    """Be a worker that waits to be asked for its result, as NorFab's do.

    `tells`: it says that the result is there. `post`: it says that it has taken the job.
    """

    def script(name: str, message: ClientMessage) -> list[Frames]:
        if message.command == Command.POST:
            return [*([accepted(name, message)] if post else []), *([ready(name, message)] if tells else [])]
        return [reply_frames(message, "200", {name: result(value)})]

    return script


def is_busy(name: str, message: ClientMessage) -> list[Frames]:
    """Be a worker that takes jobs and never ends them."""
    if message.command == Command.POST:
        return [accepted(name, message)]
    return [reply_frames(message, "300", {"worker": name, "uuid": message.uuid, "status": "STARTED"})]


def is_silent(_name: str, _message: ClientMessage) -> list[Frames]:
    """Be a worker that is registered and hears nothing."""
    return []


def answers(*frames: Callable[[str, ClientMessage], Frames]) -> Script:
    """Be a worker that answers a POST with these."""
    return lambda name, message: [each(name, message) for each in frames] if message.command == Command.POST else []


class Hub:
    """The broker: `workers` maps each name to its service and script; both may change at any time.

    `says_nothing`: messages are heard and not answered. `results_first`: workers' answers overtake the broker's.
    `uptimes` are listed by `show_workers`, 100 seconds by default. `log` keeps what was heard, `heard` what
    nobody has waited for.
    """

    def __init__(self, *, endpoint: str = "tcp://127.0.0.1:*", keys: KeyPair | None = None) -> None:
        self.workers: dict[str, tuple[str, Script]] = {}
        self.uptimes: dict[str, int] = {}
        self.says_nothing = False
        self.results_first = False
        self.heard: queue.SimpleQueue[ClientMessage] = queue.SimpleQueue()
        self.log: list[ClientMessage] = []
        self.keys = keys or KeyPair(*zmq.curve_keypair())
        self._client = b""
        self._outbox: queue.SimpleQueue[Frames] = queue.SimpleQueue()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        options = {zmq.LINGER: 0, zmq.ROUTER_HANDOVER: 1, zmq.CURVE_SERVER: 1, zmq.SNDHWM: 0, zmq.RCVHWM: 0}
        for option, value in options.items():
            self._router.setsockopt(option, value)
        self._router.curve_publickey, self._router.curve_secretkey = self.keys.public, self.keys.secret
        self._router.bind(endpoint)
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> BrokerAddress:
        """Where this broker is."""
        return BrokerAddress(self.endpoint, BrokerKey(self.keys.public, "a test"))

    def again(self) -> Hub:
        """Stop this one and return another at the same place, with the same key and no workers."""
        self.stop()
        return Hub(endpoint=self.endpoint, keys=self.keys)

    def stop(self) -> None:
        """Close everything; safe to call twice."""
        self._stopping.set()
        self._thread.join(WAIT_SECONDS)
        self._context.destroy(linger=0)

    def send(self, *messages: Frames) -> None:
        """Send these to the client that was heard last, from any thread."""
        for frames in messages:
            self._outbox.put(frames)

    def wait_for(self, command: bytes, count: int = 1) -> ClientMessage:
        """Wait until this many more messages of a kind have come, and return the last of them."""
        while True:
            message = self.heard.get(timeout=WAIT_SECONDS)
            count -= message.command == command
            if not count:
                return message

    def _serve(self) -> None:
        while not self._stopping.is_set():
            if self._router.poll(LOOK_MILLISECONDS):
                self._client, *frames = self._router.recv_multipart()
                message = ClientMessage.parse(frames)
                answers = [] if self.says_nothing else self._answers(message)
                # Whoever waits for it finds the answers sent.
                for answer in answers:
                    self._router.send_multipart([self._client, *answer])
                self.log.append(message)
                self.heard.put(message)
            while not self._outbox.empty():
                self._router.send_multipart([self._client, *self._outbox.get()])

    def _answers(self, message: ClientMessage) -> list[Frames]:
        if message.command == Command.MMI:
            rows = self._rows() if message.service == BROKER_SERVICE else None
            return [reply_frames(message, "200", rows), reply_frames(message, "200", rows, Command.MMI)]
        chosen = self._chosen(message)
        told = [frames for name in chosen for frames in self.workers[name][1](name, message)]
        dispatch = self._dispatch(message, chosen)
        return [*told, *dispatch] if self.results_first else [*dispatch, *told]

    def _dispatch(self, message: ClientMessage, chosen: list[str]) -> list[Frames]:
        about = {"uuid": message.uuid, "target": message.target.decode(), "service": message.service}
        if chosen:
            return [reply_frames(message, "202", {"workers": chosen, "status": "DISPATCHED", **about})]
        return [reply_frames(message, "400", {"workers": None, "status": "FAILED", "errors": ["no worker"], **about})]

    def _chosen(self, message: ClientMessage) -> list[str]:
        target = decode_target(message.target)
        serving = [name for name, (service, _) in sorted(self.workers.items()) if service == message.service]
        if target in ("all", "any"):
            return serving if target == "all" else serving[:1]
        return [name for name in self.workers if name in ([target] if isinstance(target, str) else target)]

    def _rows(self) -> list[dict[str, str]]:
        rows = [
            {"name": name, "service": service, "status": "alive", "alive (s)": str(self.uptimes.get(name, 100))}
            for name, (service, _) in self.workers.items()
        ]
        return rows or [{"name": "", "service": "", "status": ""}]
