"""A NorFab broker of our own with workers in it, which answers as a script tells it to."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
import zmq

from nfcli.models.environment.curve_keys import ensure_client_key
from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.loader import load_inventory
from nfcli.models.protocol.broker_connection import BrokerAddress, BrokerConnection
from nfcli.models.protocol.broker_presence import Timeouts
from nfcli.models.protocol.jobs import Event, is_automatic
from nfcli.shell.client.client import Client
from nfcli.shell.transport.broker import TIMEOUTS, FabricTransport

WAIT_SECONDS = 10.0
Frames = list[bytes]

RESPONSE, EVENT, MMI = b"0x05", b"0x08", b"0x11"
POST, GET = b"0x04", b"0x06"
NO_ANSWER = object()


def frames(command: bytes, uuid: str, status: str, data: Any, service: str = "fastmcp") -> Frames:
    """Return the frames of a message to a client; bytes go out as they are."""
    payload = data if isinstance(data, bytes) else json.dumps(data).encode()
    return [b"", b"NFPB01", command, service.encode(), uuid.encode(), status.encode(), payload]


def result(value: Any) -> dict[str, Any]:
    """Return a good result."""
    return {"result": value, "failed": False, "errors": []}


class Ask(NamedTuple):
    """A POST or GET as it came."""

    command: bytes
    service: str
    target: str
    uuid: str
    data: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Return the names in the target."""
        found = json.loads(self.target)
        assert isinstance(found, list)
        return [str(name) for name in found]


class FakeBroker:
    """A ROUTER that speaks as a broker of norfab 0.25.0, for its workers too.

    `workers` maps names to services; each answers a job with its own name, as soon as it is asked for it where
    `is_pushing` is false. `on_ask` may return all that is to be sent in answer to a POST or GET instead, None leaves it
    to the broker. `is_silent`: everything that comes is taken and not answered. `asked` are the POSTs, GETs and PUTs,
    `identities` their senders, `heard` gets each of them as it comes.
    """

    def __init__(self, workers: dict[str, str] | None = None, *, uses_curve: bool = True) -> None:
        self.workers = workers if workers is not None else {"w1": "fastmcp"}
        self.statuses: dict[str, str] = {}
        self.inventories: dict[str, Any] = {}
        self.is_pushing = True
        self.is_silent = False
        self.on_ask: Callable[[Ask], list[Frames] | None] = lambda _: None
        self.on_question: Callable[[str], Any] = lambda _: None
        self.uses_curve = uses_curve
        self.port: int | None = None
        self.asked: list[Ask] = []
        self.identities: list[bytes] = []
        self.questions: list[str] = []
        self.heard: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.public, self._secret = zmq.curve_keypair()
        self.start()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, at the same place as before."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = self._context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        if self.uses_curve:
            self.router.curve_publickey, self.router.curve_secretkey = self.public, self._secret
            self.router.curve_server = True
        if self.port is None:
            self.port = self.router.bind_to_random_port("tcp://127.0.0.1")
        else:
            self.router.bind(self.endpoint)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(self.router, self._stopping), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close everything; safe to call twice."""
        self._stopping.set()
        self._thread.join(WAIT_SECONDS)
        self._context.destroy(linger=0)

    def write_key(self, path: Path) -> None:
        """Write its public key as NorFab writes it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'metadata\ncurve\n    public-key = "{self.public.decode()}"\n', encoding="utf-8")

    def _serve(self, router: zmq.Socket[bytes], stopping: threading.Event) -> None:
        while not stopping.is_set():
            if router.poll(10):
                identity, _, _, command, service, target, uuid, data = router.recv_multipart()
                ask = Ask(command, service.decode(), target.decode(), uuid.decode(), json.loads(data))
                if command != MMI:
                    self.identities.append(identity)
                for reply in self._replies(ask):
                    router.send_multipart([identity, *reply])

    def _replies(self, ask: Ask) -> list[Frames]:
        if ask.command == MMI:
            if self.is_silent:
                return []
            answer = self._answer(ask)
            if answer is NO_ANSWER:
                return []
            return [frames(command, ask.uuid, "200", answer, ask.service) for command in (RESPONSE, MMI)]
        self.asked.append(ask)
        scripted = self.on_ask(ask)
        self.heard.put(ask)
        if scripted is not None:
            return scripted
        return [] if self.is_silent else self.usual(ask)

    def _answer(self, ask: Ask) -> Any:
        self.questions.append(ask.data["task"])
        scripted = self.on_question(ask.data["task"])
        if scripted is not None:
            return scripted
        if ask.data["task"] == "get_inventory":
            return self.inventories.get(ask.data["kwargs"]["name"])
        if ask.data["task"] != "show_workers":
            return {"name": "NFPBroker"} if ask.data["task"] == "get_status" else {"norfab": "0.25.0"}
        told = {"holdtime": "12.8", "keepalives tx/rx": "1 / 1", "alive (s)": "32"}
        return [
            {"name": name, "service": service, "status": self.statuses.get(name, "alive"), **told}
            for name, service in self.workers.items()
        ] or [{"name": "", "service": "", "status": ""}]

    def usual(self, ask: Ask) -> list[Frames]:
        """Return what a broker and workers that are well answer to a POST or GET."""
        reached = [name for name in ask.names if name in self.workers]
        if not reached:
            return [self.refused(ask)]
        return [self.dispatched(ask, reached), *(reply for name in reached for reply in self._worked(ask, name))]

    def dispatched(self, ask: Ask, reached: list[str]) -> Frames:
        """Return the broker's 202."""
        data = {"workers": reached, "uuid": ask.uuid, "target": ask.target, "status": "DISPATCHED"}
        return frames(RESPONSE, ask.uuid, "202", {**data, "service": ask.service})

    def refused(self, ask: Ask) -> Frames:
        """Return the broker's 400."""
        data = {"workers": None, "uuid": ask.uuid, "target": ask.target, "status": "FAILED", "errors": ["no target"]}
        return frames(RESPONSE, ask.uuid, "400", data)

    def _worked(self, ask: Ask, name: str) -> list[Frames]:
        jobs = self.jobs.setdefault(name, {})
        if ask.command == POST:
            jobs[ask.uuid] = result(name)
            status = {"worker": name, "uuid": ask.uuid, "status": "ACCEPTED"}
            accepted = frames(RESPONSE, ask.uuid, "201", status)
            if self.is_pushing:
                return [accepted, done(ask, {name: jobs[ask.uuid]})]
            return [accepted, event(ask, name, "starting"), event(ask, name, "completed", kind="result_ready")]
        if ask.uuid not in jobs:
            return [unknown(ask, name)]
        return [done(ask, {name: jobs[ask.uuid]})]


def done(ask: Ask, results: Any) -> Frames:
    """Return a 200 with the results of workers."""
    return frames(RESPONSE, ask.uuid, "200", results)


def unknown(ask: Ask, name: str) -> Frames:
    """Return the 404 of a worker."""
    return frames(RESPONSE, ask.uuid, "404", {"worker": name, "uuid": ask.uuid, "status": "JOB NOT FOUND"})


def running(ask: Ask, name: str) -> Frames:
    """Return the 300 of a worker."""
    return frames(RESPONSE, ask.uuid, "300", {"worker": name, "uuid": ask.uuid, "status": "STARTED"})


def event(ask: Ask, name: str, message: str, *, kind: str = "progress") -> Frames:
    """Return an event of a worker."""
    data = {"worker": name, "service": "fastmcp", "uuid": ask.uuid, "event_type": kind, "message": message}
    return frames(EVENT, ask.uuid, "200", data)


class Site:
    """An environment of the workers `own` that belongs to a fake broker, and the notices of its clients."""

    def __init__(
        self,
        folder: Path,
        broker: Any,
        /,
        *own: str,
        about: dict[str, Any] | None = None,
        fleet: list[str] | None = None,
        **more: Any,
    ) -> None:
        self.broker = broker
        self.notices: list[str] = []
        self.notified = threading.Event()
        self.progress: list[tuple[str, str]] = []
        reached = {"endpoint": broker.endpoint, "shared_key": broker.public.decode(), **(about or {})}
        workers = {name: [{"service": "fastmcp", "port": 0}] for name in own}
        topology = {"workers": list(own), **more}
        inventory = {"broker": reached, "workers": workers, "topology": topology, "fleet": fleet}
        file = folder / "inventory.yaml"
        file.write_text(yaml.safe_dump(inventory), encoding="utf-8")
        self.environment = Environment(folder, file)
        self.environment.prepare()

    def notify(self, text: str) -> None:
        """Keep a notice."""
        self.notices.append(text)
        self.notified.set()

    def client(
        self,
        *,
        timeouts: Timeouts = TIMEOUTS,
        connect: Callable[..., BrokerConnection] = BrokerConnection,
        **options: Any,
    ) -> Client:
        """Make a client."""
        inventory, keys = load_inventory(self.environment), ensure_client_key(self.environment)
        assert inventory.broker is not None
        address = BrokerAddress.find(self.environment, inventory.broker)
        open_transport = partial(
            FabricTransport,
            *(self.environment, inventory, keys, address),
            notice=self.notify,
            timeouts=timeouts,
            connect=connect,
        )
        return Client(
            *(self.environment, inventory, keys, open_transport()),
            open_transport=lambda identity: open_transport(identity=identity),
            on_event=self._record,
            **options,
        )

    def _record(self, event: Event) -> None:
        if not is_automatic(event):
            self.progress.append((event["worker"], event["message"]))


def outcome(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return each worker's value, or its status and errors."""
    return {
        name: (result["status"], result["errors"]) if result["failed"] else result["result"]
        for name, result in results.items()
    }


def run(client: Client, workers: Any = "all", timeout: float = WAIT_SECONDS, service: str = "fastmcp") -> Any:
    """Run a job and return its outcome."""
    return outcome(client.run_job(service, "x", workers=workers, timeout=timeout))
