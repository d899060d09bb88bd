"""`BearerTokenVerifier`: servers on the MCP SDK or FastMCP ask a worker about the tokens of their clients."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ...models.environment.curve_keys import ensure_verifier_key
from ...models.environment.locations import find_environment
from ...models.errors import NfcliError, UsageError
from ...models.inventory.loader import load_inventory
from ...models.inventory.schema import SERVICE, Inventory
from ...models.tasks.auth import INTROSPECT_TASK, BearerTokenState
from ..transport.direct import DirectTransport
from .asynchronous import AsyncClient
from .client import Client

if TYPE_CHECKING:
    from mcp.server.auth.provider import AccessToken

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0


class BearerTokenVerifier:
    """Verifies bearer tokens by asking a worker, over the connection that the shell uses; an MCP SDK `TokenVerifier`.

    Each token is looked up in the worker for each request, which takes about a millisecond: no answer is kept, so that
    a deleted token is refused by the next request. Without an answer every token is refused. The key pair
    `.nfcli/verifiers/verifier.key` is created when it is missing; the worker lets that key ask about tokens and do
    nothing else. Up to 32 requests are verified at the same time.

    Args:
        inventory: path of the inventory file, as for `NorFab`.
        state: folder for what nfcli writes, as for `NorFab`.
        worker: name of the worker to ask; None: the only one in the inventory.
        resource: URL that tokens are reported to be valid for, for servers that validate it; None: none is reported.
        timeout: seconds to wait for an answer, at least 1.

    Raises:
        UsageError: the inventory has several workers and none is named, or not this one, or it has a broker.
        InventoryError: the inventory can't be read or breaks its schema.
        KeyFileError: the key pair can't be read or created.
        EnvironmentFolderError: other users could change the environment's folder or read its state.
    """

    def __init__(
        self,
        inventory: str | Path | None = None,
        *,
        state: str | Path | None = None,
        worker: str | None = None,
        resource: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        # Imported here for `verify_token`: the shell, which has no use for it, would take a second longer to start.
        from mcp.server.auth.provider import AccessToken  # noqa: PLC0415

        found = find_environment(inventory, state)
        loaded = load_inventory(found)
        environment = found.with_state(loaded.state)
        self.worker = _chosen_worker(loaded, worker)
        self._resource = resource
        self._timeout = timeout
        self._access_token = AccessToken
        environment.prepare()
        keys = ensure_verifier_key(environment)

        def connect(_identity: str = "") -> DirectTransport:
            return DirectTransport(environment, loaded, keys)

        self._client = AsyncClient(Client(environment, loaded, keys, connect(), open_transport=connect))

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return the access token that an active bearer token stands for; None for any other, and without an answer.

        Never raises; why there is no answer is logged, without the token.
        """
        try:
            results = await self._client.run_job(
                SERVICE, INTROSPECT_TASK, kwargs={"token": token}, workers=self.worker, timeout=self._timeout
            )
            found = self._read(results[self.worker])
        except NfcliError as error:
            log.warning("worker %s can't verify tokens: %s", self.worker, error)
            return None
        except Exception as error:  # noqa: BLE001  an exception would let the server answer with an error of its own
            log.error("worker %s can't verify tokens: %s", self.worker, type(error).__name__)
            return None
        return self._as_access_token(token, found)

    def _read(self, result: dict[str, Any]) -> BearerTokenState:
        if not result["failed"]:
            return BearerTokenState.model_validate(result["result"])
        if not _is_no_token(result):
            log.warning("worker %s can't verify tokens: %s", self.worker, "; ".join(result["errors"]))
        return BearerTokenState(active=False)

    def _as_access_token(self, token: str, found: BearerTokenState) -> AccessToken | None:
        if not found.active or found.username is None:
            return None
        return self._access_token(
            token=token,
            client_id=found.username,
            subject=found.username,
            scopes=found.scopes,
            # Whole seconds, rounded up: the server must not reject as expired what the worker accepts.
            expires_at=None if found.expires is None else -int(-found.expires // 1),
            resource=self._resource,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _chosen_worker(inventory: Inventory, name: str | None) -> str:
    if inventory.broker is not None:
        raise UsageError(
            "the inventory has a broker, where no key can be limited to asking about tokens: have the server ask at "
            "/introspect (man page other-servers)"
        )
    names = sorted(inventory.workers)
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        given = "several workers" if name is None else f"no worker {name}"
        raise UsageError(f"the inventory has {given}: name one with worker=, of {', '.join(names) or 'none'}")
    return name


def _is_no_token(result: dict[str, Any]) -> bool:
    """Whether the worker refused the text of a token, which no client can have been given."""
    return all(error.startswith("token: ") for error in result["errors"])
