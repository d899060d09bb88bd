"""A worker's executor with real tokens, and clients that sign their jobs; no sockets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from nfcli.models.environment.curve_keys import KeyPair, ensure_client_key, ensure_key_pair, format_certificate
from nfcli.models.environment.paths import Environment
from nfcli.models.environment.private_files import write_private
from nfcli.models.protocol.jobs import JobRequest, encode_request
from nfcli.models.protocol.signatures import JobSigner
from nfcli.models.signing_keys import SigningKey
from nfcli.worker.admission.admission import Admission
from nfcli.worker.admission.replay_memory import ReplayMemory
from nfcli.worker.audit.actor import Actor
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.executor import JobExecutor
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.transport.broker_jobs import fabric_client_name
from nfcli.worker.transport.curve_auth import AuthorizedKeys
from nfcli.worker.worker import TASK_MODULES
from support.task_context import task_context

WAIT_SECONDS = 10
START = 1_780_000_000.0
FABRIC_CLIENT = "client-nfcli-0123456789abcdef"


class AdmissionBench:
    """Worker w1 of an environment, whose client is authorized; `now` is the worker's clock, which tests set."""

    def __init__(self, environment: Environment, store: TokenStore, trail: AuditTrail) -> None:
        environment.prepare()
        self.environment = environment
        self.now = self.client_now = START
        self.pair = ensure_client_key(environment)
        self.clients = AuthorizedKeys(environment.clients_folder)
        self.context = task_context(environment, TaskRegistry(*TASK_MODULES), store, trail)
        self.trail = trail
        self.replays = self.open_replays()
        self.now = self.client_now = START + 1
        self.executor: JobExecutor | None = None
        self.restart()

    def open_replays(self) -> ReplayMemory:
        """Read the record of signed jobs as a start of the worker does."""
        return ReplayMemory(self.environment.signed_jobs_file("w1"), clock=lambda: self.now, boot_id=b"boot 1")

    def restart(self, *, required: bool = True, direct: bool = False, allowed: Sequence[str] = ()) -> None:
        """Start a new executor."""
        self.stop()
        admission = Admission(
            worker="w1",
            service="fastmcp",
            clients=self.clients,
            replays=self.replays,
            is_direct=direct,
            requires_signatures=required,
            allowed_relays=allowed,
        )
        self.executor = JobExecutor(self.context, self._identify if direct else fabric_client_name, admission=admission)
        self.executor.start()

    def _identify(self, key: str) -> Actor:
        return Actor(self.clients.name(key), authenticated="curve")

    def stop(self) -> None:
        """End the executor."""
        if self.executor is not None:
            self.executor.stop()
            self.context.stopping.clear()

    def authorize(self, name: str, *, has_signing_key: bool = True) -> KeyPair:
        """Make a client's key pair and authorize it."""
        pair = ensure_key_pair(self.environment.keys_folder, name)
        signing = SigningKey(pair.secret).public if has_signing_key else None
        content = format_certificate(pair.public, signing=signing)
        write_private(self.environment.clients_folder / f"{name}.key", content)
        return pair

    def request(self, task: str, **kwargs: Any) -> bytes:
        """Return a request that isn't signed."""
        return encode_request(task, kwargs, timeout=60)

    def sign(
        self,
        request: bytes,
        uuid: str,
        *,
        pair: KeyPair | None = None,
        client: bytes | None = None,
        service: str = "fastmcp",
        workers: Sequence[str] = ("w1",),
    ) -> bytes:
        """Sign a request by a pair, as the client with that public key."""
        pair = pair or self.pair
        signer = JobSigner((client or pair.public).decode(), SigningKey(pair.secret), lambda: self.client_now)
        return signer.sign(request, uuid=uuid, service=service, workers=workers)

    def run(self, data: bytes, uuid: str, client: str = FABRIC_CLIENT) -> dict[str, Any]:
        """Run a request of a client as it arrives; return the result."""
        assert self.executor is not None
        answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        deliver = lambda payload: answers.put(json.loads(payload)["w1"])  # noqa: E731
        self.executor.submit(client, uuid, JobRequest.parse(data), deliver)
        return answers.get(timeout=WAIT_SECONDS)

    def refusal(self, data: bytes, uuid: str, client: str = FABRIC_CLIENT) -> str:
        """Run a request that must be refused; return the reason behind the task's and the worker's name."""
        result = self.run(data, uuid, client)
        assert (result["failed"], result["result"]) == (True, None), result
        (reason,) = result["errors"]
        _, _, text = reason.partition(" was refused: ")
        return str(text)

    @property
    def tokens(self) -> list[str]:
        """The stored tokens."""
        return sorted(record.token for record in self.context.store.records())
