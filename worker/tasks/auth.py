"""The tasks that manage bearer tokens.

None of them is ever an MCP tool: credentials can't be managed through the endpoint that they protect.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...models.errors import TaskError
from ...models.protocol.jobs import Result
from ...models.tasks.auth import (
    BearerTokenCheckInput,
    BearerTokenDeleteInput,
    BearerTokenEntry,
    BearerTokenListInput,
    BearerTokenState,
    BearerTokenStoreInput,
)
from ...models.tokens import BearerTokenRecord
from ..jobs.task import task
from ..jobs.task_context import TaskContext
from ..tokens.index import Position

_Row = dict[str, str | None]
_POSITION = TypeAdapter(Position)


@task(arguments=BearerTokenStoreInput, result=bool, mcp=False, audit="create")
def bearer_token_store(worker: TaskContext, arguments: BearerTokenStoreInput) -> bool:
    """Store a bearer token for a user, or renew the expiry of one the user already has.

    Without `expire` the token lives for `auth_bearer.token_ttl` seconds of the worker's inventory; if that is null, or
    `expire` is `never`, for ever. A token of another user is refused. The token is on disk when the task returns true,
    and before it the line of the audit trail.
    """
    lifetime = arguments.lifetime(worker.inventory.auth_bearer.token_ttl)
    worker.store.store(
        arguments.model_copy(update={"expire": lifetime}),
        before_commit=worker.audit.before_commit(worker.client, expire=lifetime),
        issued=worker.issued,
    )
    return True


@task(arguments=BearerTokenListInput, result=list[BearerTokenEntry], mcp=False, audit="list", shows_tokens=True)
def bearer_token_list(worker: TaskContext, arguments: BearerTokenListInput) -> list[_Row] | dict[str, Any]:
    """List the live bearer tokens of all users or of one, by user name and then by creation.

    The line of the audit trail is on disk before the task returns: a listing shows tokens in clear text. A client that
    requests pages gets one, with a line of its own.
    """
    records, cursor = _select(worker, arguments.username)
    worker.audit.write(operation="list", actor=worker.client, username=arguments.username, count=len(records))
    now, iso_times = worker.store.now(), worker.result_format.has_iso_times
    rows = [record.entry(now, iso_times=iso_times) for record in records]
    return rows if worker.result_format.page is None else {"rows": rows, "next": cursor}


def _select(worker: TaskContext, username: str | None) -> tuple[list[BearerTokenRecord], str | None]:
    """Return the records that the client requests, and the cursor of the page after them if there is one."""
    page = worker.result_format.page
    if page is None:
        return worker.store.records(username), None
    after = None if page.after is None else _read_cursor(page.after)
    records = worker.store.records(username, after=after, limit=page.limit + 1)
    if len(records) <= page.limit:
        return records, None
    del records[page.limit :]
    last = records[-1]
    return records, json.dumps(Position(last.username, last.created, last.token))


def _read_cursor(cursor: str) -> Position:
    try:
        return _POSITION.validate_json(cursor, strict=True)
    except ValidationError:
        raise TaskError("the cursor is not one of this task: request the first page again") from None


@task(arguments=BearerTokenDeleteInput, result=bool, mcp=False, audit="delete")
def bearer_token_delete(worker: TaskContext, arguments: BearerTokenDeleteInput) -> Result:
    """Delete one bearer token or all of a user; given both, the token only if it is that user's.

    The result is true when something was deleted, and then it is gone from disk; false when nothing matched.
    """
    if arguments.username is None and arguments.token is None:
        raise TaskError("either username or token must be provided")
    before_commit = worker.audit.before_commit(worker.client)
    if worker.store.delete(username=arguments.username, token=arguments.token, before_commit=before_commit):
        return Result(result=True)
    return Result(result=False, messages=["no matching token"])


@task(arguments=BearerTokenCheckInput, result=bool, mcp=False, run_inline=True)
def bearer_token_check(worker: TaskContext, arguments: BearerTokenCheckInput) -> bool:
    """Return whether a bearer token is stored and has not expired."""
    return worker.store.lookup(arguments.token) is not None


@task(arguments=BearerTokenCheckInput, result=BearerTokenState, mcp=False, run_inline=True)
def bearer_token_introspect(worker: TaskContext, arguments: BearerTokenCheckInput) -> BearerTokenState:
    """Return whether a bearer token is active, and whose it is.

    Clients whose key is in `.nfcli/verifiers/` may run this task and no other.
    """
    record = worker.store.lookup(arguments.token)
    if record is None:
        return BearerTokenState(active=False)
    return BearerTokenState(
        active=True,
        username=record.username,
        scopes=list(worker.inventory.auth_bearer.token_scopes),
        created=record.created,
        expires=record.expires,
    )
