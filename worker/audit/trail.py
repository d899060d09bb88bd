"""The audit trail: who changed which tokens and what came of it; never a token.

The line of a change is on disk (fsync) before the change is committed, and a change whose line can't be written is
refused: no change is made without a line. A line `done` may tell of a change that wasn't made, where the power failed
right behind it, or the database refused; the latter leaves a line `failed` as well.

How lines vouch for each other is in `audit_chain.py`, how they get to the disk in `audit_file.py`.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from ...models.errors import AuditError
from ...models.fields import EXPIRE_MAX_SECONDS
from ...models.protocol.jobs import Result
from ...models.tasks.audit import AuditEntry, AuditReport, Operation, Outcome
from ..logging import mask_credentials
from .file import ChainedFile
from .refusals import Refusal, RefusalLog

if TYPE_CHECKING:
    from ...models.tokens import BearerTokenRecord
    from ..tokens.store import BeforeCommit, TokenChange

log = logging.getLogger(__name__)

FINGERPRINT_DIGITS = 12
FINGERPRINTS_MAX = 100
TEXT_MAX_CHARACTERS = 256
OWN_ACTOR = "worker"
"""The actor of lines that no client has asked for."""

_HIDDEN = "***"
_SHORTEST_RECOGNIZED_TOKEN = 8
_SHOWN_CHARACTERS = 40
_SEPARATOR, _OF_TOKENS = "; ", "token: "
_TOKEN_LIKE = re.compile(rf"[A-Za-z0-9._~+/-]{{{_SHORTEST_RECOGNIZED_TOKEN},}}=*")


class AuditTrail:
    """The audit trail of one worker; open it with `AuditTrail.open`. Any thread may call any method."""

    def __init__(
        self, file: ChainedFile, key: bytes, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._file = file
        self._key = key
        self._clock = clock
        self._refusals = RefusalLog(self._write_refusal, monotonic)

    @classmethod
    def open(
        cls,
        file: Path,
        key: bytes,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> AuditTrail:
        """Open the trail, made when missing; what is wrong with its end leaves a line and stops nothing.

        Args:
            file: NAME.jsonl; its folder exists, and NAME.head belongs to it.
            key: the secret that tokens' fingerprints are made with.
            clock: seconds since the epoch.
            monotonic: seconds, from any beginning.

        Raises:
            AuditError: the files can't be opened privately, read or written.
        """
        trail = cls(ChainedFile.open(file), key, clock, monotonic)
        trail._report_recovery()
        return trail

    def _report_recovery(self) -> None:
        found = "; ".join(self._file.found)
        if not found:
            return
        log.warning(
            "opening the audit trail %s found: %s; show fastmcp audit verify tells more", self._file.path, found
        )
        try:
            self.write(operation="recover", actor=OWN_ACTOR, reason=found)
        except AuditError as error:  # a full disk must not keep a worker from checking tokens
            log.error("what was found was not written down: %s", error)

    def close(self) -> None:
        """Write what waits to be written, and close the files. Safe to repeat."""
        suppressed = self._refusals.close()
        if suppressed:
            try:
                self._write_refusal(Refusal(OWN_ACTOR, "the worker ended", None, suppressed))
            except AuditError as error:
                log.warning("%d refused requests were not written down: %s", suppressed, error)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def before_commit(self, actor: str, *, expire: int | None = None) -> BeforeCommit:
        """Return what writes the line of a change before it is committed, and raises `AuditError` to refuse it.

        An import has one line a user.

        Args:
            actor: name of the client that asked.
            expire: seconds that a stored token is to live, None for ever.
        """

        def write(change: TokenChange) -> None:
            for records in _by_user(change.records) if change.operation == "import" else [change.records]:
                users = {record.username for record in records}
                tokens = [record.token for record in records[:FINGERPRINTS_MAX]]
                username = users.pop() if len(users) == 1 else None
                self.write(
                    operation=change.operation,
                    actor=actor,
                    username=None if username is None else _masked(username, tokens),
                    tokens=tokens,
                    count=len(records),
                    expire=expire,
                )

        return write

    def write(
        self,
        *,
        operation: Operation,
        actor: str,
        username: str | None = None,
        tokens: Sequence[str] = (),
        count: int | None = None,
        expire: int | None = None,
        outcome: Outcome = "done",
        reason: str | None = None,
    ) -> None:
        """Write a line; it is on disk (fsync) when this returns.

        Args:
            operation: what was asked for.
            actor: name of the client that asked.
            username: whose tokens they are, None for those of several users or none.
            tokens: the tokens themselves, at most 100 of them are looked at; the line gets their fingerprints.
            count: how many tokens are concerned, None for as many as `tokens` has.
            expire: seconds that they live from now.
            outcome: what came of it.
            reason: why, where it wasn't done; what looks like a credential in it is masked.

        Raises:
            AuditError: it can't be written: what it tells of must not be done.
        """
        fingerprints = [self._fingerprint(token) for token in tokens[:FINGERPRINTS_MAX]]
        fields = self._fields(operation, actor, outcome, reason)
        fields |= {"username": None if username is None else _plain(username), "tokens": fingerprints}
        fields |= {"count": len(tokens) if count is None else count, "expire": expire}
        self._file.append(fields)

    def log_failed_change(
        self,
        *,
        operation: Operation,
        actor: str,
        arguments: Mapping[str, object],
        result: Result,
        is_token: Callable[[str], object],
    ) -> None:
        """Write the line of a change that was asked for and not made; on disk (fsync) when this returns.

        Args:
            operation: what was asked for.
            actor: name of the client that asked.
            arguments: as they arrived, valid or not: of any type, with a token where the name belongs.
            result: what the task answered: it failed, or nothing matched.
            is_token: tells (by truth) whether a text is a token that is stored.

        Raises:
            AuditError: it can't be written.
        """
        token, expire = arguments.get("token"), arguments.get("expire")
        tokens = [token] if isinstance(token, str) else []
        username = _text(arguments.get("username"))
        self.write(
            operation=operation,
            actor=actor,
            username=None if username is None else mask_credentials(_masked(username, tokens, is_token)),
            tokens=tokens,
            expire=expire if type(expire) is int and 1 <= expire <= EXPIRE_MAX_SECONDS else None,
            outcome="failed" if result.failed else "nothing matched",
            reason=_SEPARATOR.join(_masked(error, tokens, is_token) for error in result.errors) or None,
        )

    def refused(self, actor: str, reason: str, *, token: str | None = None) -> bool:
        """Write down a refused request some time soon, or, of too many, only count it; return which.

        Never raises and never waits. At most ten lines at once, then one in six seconds.

        Args:
            actor: name of the client, or the address it came from.
            reason: why it was refused; what looks like a credential in it is masked.
            token: the token that came with it.

        Returns:
            True where there will be a line.
        """
        return self._refusals.record(actor, reason, lambda: None if token is None else self._fingerprint(token))

    def entries(self, last: int, username: str | None = None) -> list[AuditEntry]:
        """Return the last lines, or the last ones about a user, in the order they were written.

        Raises:
            AuditError: the file can't be read.
        """
        wanted = b"" if username is None else b'"username": ' + json.dumps(username).encode()
        with closing(self._file.lines_backwards()) as lines:
            newest_first = [_entry(line) for line in islice((line for line in lines if wanted in line), last)]
        return newest_first[::-1]

    def verify(self) -> AuditReport:
        """Read the whole trail and return how long it is: no line was altered, none is missing.

        Takes about 0.3 s for 100,000 lines, during which lines can be written.

        Raises:
            AuditError: one was, or is; the message names the first of them and the file.
        """
        head = self._file.verify()
        return AuditReport(file=str(self._file.path), lines=head.seq, head=head.digest)

    def _write_refusal(self, refusal: Refusal) -> None:
        fields = self._fields("refuse", refusal.actor, "refused", refusal.reason)
        fingerprints = [] if refusal.fingerprint is None else [refusal.fingerprint]
        fields |= {"tokens": fingerprints, "count": len(fingerprints), "suppressed": refusal.suppressed}
        self._file.append(fields)

    def _fields(self, operation: Operation, actor: str, outcome: Outcome, reason: str | None) -> dict[str, Any]:
        """Return the fields of a line in their order, those about tokens without a value."""
        return {
            "time": datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds"),
            "actor": _plain(actor),
            "operation": operation,
            "username": None,
            "tokens": [],
            "count": 0,
            "expire": None,
            "outcome": outcome,
            "reason": None if reason is None else _plain(_redacted(reason)),
        }

    def _fingerprint(self, token: str) -> str:
        return hmac.digest(self._key, token.encode("utf-8", "surrogatepass"), "sha256").hex()[:FINGERPRINT_DIGITS]


def _by_user(records: Iterable[BearerTokenRecord]) -> Iterable[Sequence[BearerTokenRecord]]:
    """Return the records of each user, users in the order they come up."""
    found: dict[str, list[BearerTokenRecord]] = {}
    for record in records:
        found.setdefault(record.username, []).append(record)
    return found.values()


def _text(value: object) -> str | None:
    """Return a value that isn't to be trusted as text, None for none."""
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, (float, bool)) else f"<{type(value).__name__}>"


def _redacted(reason: str) -> str:
    """Return error lines without what may be a credential; behind `token: ` is what is wrong with the field."""
    return _SEPARATOR.join(
        f"{_OF_TOKENS}{mask_credentials(line[len(_OF_TOKENS) :])}"
        if line.startswith(_OF_TOKENS)
        else mask_credentials(line)
        for line in reason.split(_SEPARATOR)
    )


def _plain(text: str) -> str:
    """Return text of bounded length that JSON can carry."""
    return text.encode("utf-8", "replace").decode()[:TEXT_MAX_CHARACTERS]


def _masked(text: str, tokens: Iterable[str], is_token: Callable[[str], object] = lambda _text: False) -> str:
    """Return text without tokens: the given ones, and those that `is_token` knows.

    A token of a few letters is taken for one only where it is the whole text: it would blank out half of any other.
    """
    for token in tokens:
        if text == token:
            return _HIDDEN
        if len(token) >= _SHORTEST_RECOGNIZED_TOKEN:
            # Error lines show the first 40 characters of a value.
            text = text.replace(token, _HIDDEN).replace(token[:_SHOWN_CHARACTERS], _HIDDEN)
    if is_token(text):
        return _HIDDEN
    return _TOKEN_LIKE.sub(lambda match: _HIDDEN if is_token(match[0]) else match[0], text)


def _entry(line: bytes) -> AuditEntry:
    try:
        return AuditEntry.model_validate_json(line)
    except ValidationError:
        return AuditEntry(reason="this line is damaged: look with show fastmcp audit verify")
