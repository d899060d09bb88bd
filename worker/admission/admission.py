"""Whether a client may run a restricted task.

Such a task manages tokens, backups, imports or the audit trail, or shows jobs or the log.

Signatures are verified in the thread that runs the job, and right before it runs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from ...models.environment.curve_keys import CLIENT_NAME
from ...models.errors import TaskError
from ...models.protocol.frames import ALL
from ...models.protocol.jobs import JobRequest
from ...models.protocol.signatures import Proof, Statement
from ...models.tasks.auth import INTROSPECT_TASK
from .replay_memory import ReplayMemory

log = logging.getLogger(__name__)

# The routing ids of the clients that workers have: NorFab's, and nfcli's own (`random_routing_id`), whose workers can't
# have the name of its clients; NorFab's can.
_WORKERS_CLIENT = re.compile(rf"(?s)(.+)-NFPClient|(?!{CLIENT_NAME}-nfcli-[0-9a-f]{{16}}\Z)(.+)-nfcli-[0-9a-f]{{16}}")


class AdmissionError(TaskError):
    """A client may not run a task."""


class ClientKeys(Protocol):
    """The authorized clients, by their public CURVE keys."""

    def is_authorized(self, key: str) -> bool:
        """Whether this key is authorized now."""

    def name(self, key: str) -> str:
        """Return the name of a client."""

    def is_verifier(self, key: str) -> bool:
        """Whether the client with this key may ask about tokens, and do nothing else."""

    def signing_key(self, key: str) -> str | None:
        """Return the public signing key of an authorized client, None if its file has none."""


@dataclass(frozen=True)
class Admission:
    """Decides who may run restricted tasks of one worker; any thread may call any method.

    `is_direct`: clients are known by their CURVE keys, which the transport has authenticated; otherwise by the names
    that they gave themselves at a broker. `requires_signatures`: the jobs must be signed. `allowed_relays` are workers
    whose jobs are accepted.
    """

    worker: str
    service: str
    clients: ClientKeys
    replays: ReplayMemory
    is_direct: bool
    requires_signatures: bool
    allowed_relays: Collection[str] = ()

    def admit(
        self, client: str, uuid: str, request: JobRequest, *, names_actor: bool, revokes: bool = False
    ) -> str | None:
        """Return the name of the client that has signed a job; None for a job that isn't signed and may run too.

        `names_actor`: the task's audit line names the client, so that a signature is worth verifying even if none is
        required. `revokes`: the task deletes tokens, so that it is run where signed jobs can't be recorded too.

        Raises:
            AdmissionError: the job must not be run, with the reason and the remedy.
        """
        task = request.task[:64]
        # Its connection proves the key, and nothing changes: such keys have no signing key.
        if self.is_direct and request.task == INTROSPECT_TASK and self.clients.is_verifier(client):
            return None
        if self.requires_signatures:
            try:
                return self._signer(client, uuid, request.proof, revokes=revokes)
            except AdmissionError as error:
                raise AdmissionError(f"task {task} of worker {self.worker} was refused: {error}") from None
        relay = _relaying_worker(client) if self.is_relay(client) else None
        if not self.is_direct and request.proof is not None and (names_actor or relay is not None):
            try:
                return self._signer(client, uuid, request.proof, revokes=revokes)
            except AdmissionError as error:
                log.debug("signature not accepted, none is required: %s", error)
        if relay is None or relay in self.allowed_relays:
            return None
        raise AdmissionError(
            f"task {task} of worker {self.worker} was refused: jobs of worker {relay} are refused here, since it runs "
            "them for clients of its own: list it under allowed_relays in the worker's inventory if that is meant"
        )

    def is_relay(self, client: str) -> bool:
        """Whether a client is another worker, which may run jobs for clients of its own."""
        return not self.is_direct and _relaying_worker(client) is not None

    def _signer(self, client: str, uuid: str, proof: Proof | None, *, revokes: bool) -> str:
        """Return the name of the client that has signed a job; AdmissionError if the signature isn't valid here."""
        if proof is None:
            raise AdmissionError(
                "it takes signed jobs only (signed_jobs: required), and this one isn't: use the shell or the API of "
                "this version of nfcli, with an authorized key"
            )
        try:
            statement = Statement.model_validate(proof.statement)
        except ValidationError:
            raise AdmissionError("what the job says about its signature is not valid") from None
        name = self._check_statement(statement, client, uuid)
        public = self.clients.signing_key(statement.client)
        if public is None:
            raise AdmissionError(
                f"client {name} is authorized, but its key file here has no signing key: run nfcli on the client's "
                "machine, and authorize its .nfcli/keys/client.key again (nfcli --authorize)"
            )
        if not proof.is_by(public):
            raise AdmissionError("its signature is wrong: the job was altered, or signed with another key")
        problem = self.replays.add(statement.client, uuid, statement.time, may_be_repeated=revokes)
        if problem is not None:
            raise AdmissionError(problem)
        return name

    def _check_statement(self, statement: Statement, client: str, uuid: str) -> str:
        """Return the name of the client that a signature is said to be of, if it is for this job and authorized."""
        if not self.clients.is_authorized(statement.client):
            raise AdmissionError(
                "it was signed by a client whose key is not authorized here: authorize it with nfcli --authorize"
            )
        if self.is_direct and statement.client != client:
            raise AdmissionError("it was signed by another client than the one that sent it")
        if statement.uuid != uuid or statement.service not in {self.service, ALL}:
            raise AdmissionError("it was signed for another job")
        if self.worker not in statement.workers:
            raise AdmissionError("it was signed for other workers")
        return self.clients.name(statement.client)


def _relaying_worker(client: str) -> str | None:
    """Return the name of the worker whose client this is, None for another client's routing id (as Latin-1)."""
    text = client.encode("latin-1", errors="replace").decode(errors="replace")
    found = _WORKERS_CLIENT.fullmatch(text)
    return None if found is None else found[1] or found[2]
