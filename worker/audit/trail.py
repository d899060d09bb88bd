"""The audit trail: who changed which tokens, and the outcome; it never contains a token.

The line of a change is on disk (fsync) before the change is committed, and a change whose line can't be written is
refused: no change is made without a line. Only a deletion is not refused by a full disk: its tokens are revoked, and
it is committed with its line once the disk allows that. A line `done` may describe a change that wasn't committed, if
the power failed right after it or the database refused the commit; the latter adds a line `failed` as well.

`chain.py` links the lines, `file.py` writes them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from ...models.errors import AuditError
from ...models.fields import MAX_EXPIRE_SECONDS
from ...models.protocol.jobs import Result
from ...models.tasks.audit import AuditEntry, AuditReport, Operation, Outcome
from ..logging import mask_credentials
from .actor import Actor, as_actor, peer_address
from .file import ChainedFile
from .fingerprints import Fingerprints
from .line_filter import LineFilter
from .refusals import Refusal, RefusalLog
from .text import SEPARATOR, as_text, masked, plain, redacted

if TYPE_CHECKING:
    from ...models.tokens import BearerTokenRecord
    from ..tokens.changes import BeforeCommit, TokenChange

log = logging.getLogger(__name__)

MAX_FINGERPRINTS = 100
OWN_ACTOR = Actor("worker")
"""The actor of lines that no client caused."""


class AuditTrail:
    """The audit trail of one worker. Any thread may call any method."""

    def __init__(
        self,
        file: Path,
        key: bytes,
        *older_keys: bytes,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the trail, creating it when missing; problems at its end are recorded in a line of their own.

        `file` is NAME.jsonl in an existing folder, and NAME.head belongs to it. `key` is the secret key of the tokens'
        fingerprints, `older_keys` are those of lines that earlier versions wrote. `clock` returns seconds since the
        epoch, `monotonic` seconds from any origin.

        Raises:
            AuditError: the files can't be opened privately, read or written.
        """
        self._file = ChainedFile(file)
        self.on_append = self._file.on_append
        self._fingerprints = Fingerprints(key, *older_keys)
        self._clock = clock
        self._refusals = RefusalLog(self._write_refusal, monotonic)
        if found := "; ".join(self._file.found):
            log.warning("problems in the audit trail %s: %s; run show fastmcp audit verify", file, found)
            try:
                self.write(operation="recover", actor=OWN_ACTOR, reason=found)
            except AuditError as error:  # a full disk must not keep a worker from starting
                log.error("cannot record the problems in the audit trail: %s", error)

    def close(self) -> None:
        """Write the queued lines, and close the files. Safe to repeat."""
        suppressed = self._refusals.close()
        if suppressed:
            try:
                self._write_refusal(Refusal(OWN_ACTOR, "the worker ended", None, suppressed))
            except AuditError as error:
                log.warning("cannot record %d refused requests: %s", suppressed, error)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def actor_of(
        self, client: Actor | str, *, uuid: str, origin: str, peer: str, is_token: Callable[[str], object]
    ) -> Actor:
        """Return the actor of a job: its client, and what is known of the job.

        `origin` is what the client says of itself, `peer` the address of its connection as libzmq reports it.
        `is_token` says (by truth value) whether a text is a stored token.
        """
        actor = as_actor(client)
        return actor.with_job(uuid=uuid, origin=origin, address=peer_address(peer), is_token=is_token)

    def before_commit(
        self, actor: Actor | str, *, expire: int | None = None, reason: str | None = None
    ) -> BeforeCommit:
        """Return a commit hook that writes the line of a change, and raises `AuditError` to refuse it.

        Imports and synchronizations have one line for each user, a restore one for the tokens that it adds, whose
        `count` is that of all tokens, and one for those that it removes. `expire` is the lifetime of a stored token in
        seconds, `reason` is recorded as it is.

        Raises:
            ValueError: `actor` is empty, as in jobs of a task that doesn't declare `audit=`.
        """
        if not as_actor(actor).name:
            raise ValueError("a change without an actor can't be audited: declare `audit=` of the task")

        def write(change: TokenChange) -> None:
            by_user = change.operation in {"import", "sync"}
            for records in _by_user(change.records) if by_user else [change.records]:
                self._write_change(change.operation, actor, records, count=change.count, expire=expire, reason=reason)
            if change.removed:
                self._write_change("delete", actor, change.removed, reason="not in the backup that was restored")

        return write

    def _write_change(
        self, operation: Operation, actor: Actor | str, records: Sequence[BearerTokenRecord], **fields: Any
    ) -> None:
        """Write the lines of some records of a change; they name the user if all are of one."""
        users, tokens = {record.username for record in records}, [record.token for record in records]
        username = masked(users.pop(), tokens) if len(users) == 1 else None
        self.write(operation=operation, actor=actor, username=username, tokens=tokens, **fields)

    def write(
        self,
        *,
        operation: Operation,
        actor: Actor | str,
        username: str | None = None,
        tokens: Sequence[str] = (),
        count: int | None = None,
        expire: int | None = None,
        outcome: Outcome = "done",
        reason: str | None = None,
    ) -> None:
        """Write a line; it is on disk (fsync) when this returns.

        The fields are those of `AuditEntry`, except that `tokens` are the tokens themselves: the line gets the
        fingerprints of a hundred, and further lines those of the others. `count` defaults to their number. Text in
        `reason` that looks like a credential is masked.

        Raises:
            AuditError: the line can't be written: the operation must not be carried out.
        """
        fields = self._fields(operation, actor, outcome, reason)
        fields |= {"username": None if username is None else plain(username)}
        fields |= {"count": len(tokens) if count is None else count, "expire": expire}
        self._file.append(*self._parts(fields, tokens))

    def _parts(self, fields: dict[str, Any], tokens: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the fields of as many lines as the tokens need; all but the first are numbered, from 2."""
        for start in range(0, len(tokens) or 1, MAX_FINGERPRINTS):
            part = {"part": start // MAX_FINGERPRINTS + 1} if start else {}
            yield {
                **fields,
                "tokens": list(map(self._fingerprints.of, tokens[start : start + MAX_FINGERPRINTS])),
                **part,
            }

    def log_failed_change(
        self,
        *,
        operation: Operation,
        actor: Actor | str,
        arguments: Mapping[str, object],
        result: Result,
        is_token: Callable[[str], object],
    ) -> None:
        """Record a failed change; the line is on disk (fsync) when this returns.

        The job's `arguments` are not validated: of any type, possibly with a token in place of the user name. The task
        failed or matched nothing. `is_token` says (by truth value) whether a text is a stored token.

        Raises:
            AuditError: the line can't be written.
        """
        token, expire = arguments.get("token"), arguments.get("expire")
        tokens = [token] if isinstance(token, str) else []
        username = as_text(arguments.get("username"))
        self.write(
            operation=operation,
            actor=actor,
            username=None if username is None else mask_credentials(masked(username, tokens, is_token)),
            tokens=tokens,
            expire=expire if type(expire) is int and 1 <= expire <= MAX_EXPIRE_SECONDS else None,
            outcome="failed" if result.failed else "nothing matched",
            reason=SEPARATOR.join(masked(error, tokens, is_token) for error in result.errors) or None,
        )

    def refused(self, actor: Actor | str, reason: str, *, token: str | None = None) -> bool:
        """Record a refused request asynchronously, or only count it when there are too many; return which.

        Never raises and never waits. At most ten lines at once, then one every six seconds. `actor` is the name of the
        client, or its address, `token` that in the request. Text in `reason` that looks like a credential is masked.
        """
        return self._refusals.record(actor, reason, lambda: None if token is None else self._fingerprints.of(token))

    def entries(
        self,
        last: int,
        username: str | None = None,
        *,
        token: str | None = None,
        operation: Operation | None = None,
        since: str | None = None,
    ) -> list[AuditEntry]:
        """Return the newest lines that match, oldest first; lines of earlier versions match like new ones.

        `since` is a time in the form that lines have.

        Raises:
            AuditError: the file can't be read.
        """
        fingerprints = None if token is None else self._fingerprints.all_of(token)
        selected = LineFilter.of(username=username, operation=operation, since=since, fingerprints=fingerprints)
        with closing(self._file.lines_backwards()) as lines:
            newest_first = [_entry(line) for line in islice(selected.select(lines), last)]
        return newest_first[::-1]

    def verify(self) -> AuditReport:
        """Verify the entire trail and return its length: no line was altered, none is missing.

        Takes about 0.3 s for 100,000 lines, during which lines can be written.

        Raises:
            AuditError: the message names the file and the first line that is altered or missing.
        """
        head = self._file.verify()
        return AuditReport(file=str(self._file.path), lines=head.seq, head=head.digest)

    def _write_refusal(self, refusal: Refusal) -> None:
        fields = self._fields("refuse", refusal.actor, "refused", refusal.reason)
        fingerprints = [] if refusal.fingerprint is None else [refusal.fingerprint]
        fields |= {"tokens": fingerprints, "count": len(fingerprints), "suppressed": refusal.suppressed}
        self._file.append(fields)

    def _fields(self, operation: Operation, actor: Actor | str, outcome: Outcome, reason: str | None) -> dict[str, Any]:
        """Return the fields of a line in order, those about tokens empty."""
        actor = as_actor(actor)
        return {
            "time": datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds"),
            "actor": plain(actor.name),
            "authenticated": actor.authenticated,
            "origin": actor.origin or None,
            "address": actor.address or None,
            "job": actor.job or None,
            "operation": operation,
            "username": None,
            "tokens": [],
            "count": 0,
            "expire": None,
            "outcome": outcome,
            "reason": None if reason is None else plain(redacted(reason)),
        }


def _by_user(records: Iterable[BearerTokenRecord]) -> Iterable[Sequence[BearerTokenRecord]]:
    """Group records by user, in order of first appearance."""
    found: dict[str, list[BearerTokenRecord]] = {}
    for record in records:
        found.setdefault(record.username, []).append(record)
    return found.values()


def _entry(line: bytes) -> AuditEntry:
    try:
        return AuditEntry.model_validate_json(line)
    except ValidationError:
        return AuditEntry(reason="this line is damaged: run show fastmcp audit verify")
