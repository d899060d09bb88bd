"""Revocations: tokens that are removed from the database at once, or as soon as its disk allows it.

A token that is deleted is revoked, whatever its disk does. Space that is kept back is released first. What can't be
committed nevertheless is recorded in the journal, so that a restart revokes it again, and committed as soon as the disk
can be written. Nothing else is written before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ....models.errors import AuditDiskError, NfcliError, RevocationPendingError, TokenStoreDiskError
from ....models.tokens import BearerTokenRecord
from ..changes import BeforeCommit, TokenChange, bind_once
from ..database import TokenDatabase
from ..replication.tombstones import RowChange, Tombstones
from .disk_space import Reserve, space_problem
from .journal import RevocationJournal

log = logging.getLogger(__name__)

_DISK_REFUSALS = (TokenStoreDiskError, AuditDiskError)
"""The errors of a change that the disk refuses: it is full, read-only, over a quota, or fails."""

CommitHook = Callable[[], None] | None


@dataclass(frozen=True)
class Revocation:
    """The records that a deletion removes, its commit hook, and its tombstones."""

    records: Sequence[BearerTokenRecord]
    before_commit: CommitHook
    tombstones: RowChange

    @property
    def tokens(self) -> list[str]:
        """The tokens of the records."""
        return [record.token for record in self.records]


def open_database(folder: Path, lock_timeout_seconds: float) -> TokenDatabase:
    """Open a token database; on a disk that refuses it, once more without the space that is kept back.

    Raises:
        EnvironmentFolderError, TokenStoreError: as `TokenDatabase` does.
    """
    try:
        return TokenDatabase(folder, lock_timeout_seconds)
    except TokenStoreDiskError:
        if not Reserve(folder).release():
            raise
        return TokenDatabase(folder, lock_timeout_seconds)


class Revocations:
    """Removes tokens from one database. Properties and `problem` are for any thread, all else for the database's."""

    def __init__(self, database: TokenDatabase, now: Callable[[], float], tombstones: Tombstones) -> None:
        self._database = database
        self._tombstones = tombstones
        self._now = now
        self._reserve = Reserve(database.folder)
        self._journal = RevocationJournal(database.folder)
        self._pending: list[Revocation] = []

    @property
    def pending(self) -> int:
        """How many tokens are revoked and not yet removed from the database."""
        return sum(len(each.records) for each in list(self._pending))

    @property
    def is_settled(self) -> bool:
        """Whether nothing is pending, and space is kept back for what may come."""
        return not self._pending and self._journal.is_empty and self._journal.exists() and self._reserve.exists()

    def resume(self, stored: list[BearerTokenRecord], hook: BeforeCommit | None) -> list[BearerTokenRecord]:
        """Remove the tokens that an earlier process has revoked and could not remove; return the others.

        Raises:
            TokenStoreDiskError: the journal can't be read.
        """
        try:
            records = self._journal.read(stored)
        except (OSError, NfcliError) as error:
            raise self._journal_error("read", error) from error
        tokens = {record.token for record in records}
        if tokens:
            log.warning("removing tokens that were revoked while the disk refused it: %d", len(tokens))
            before_commit = bind_once(hook, TokenChange("delete", tuple(records)))
            tombstones = self._tombstones.plan(self._now(), records=records)
            self._pending.append(Revocation(records, before_commit, tombstones))
            self._tombstones.apply(tombstones)
        self.maintain()
        return [record for record in stored if record.token not in tokens]

    def remove(
        self, deletion: Revocation, on_revoked: Callable[[], None], *, username: str | None, token: str | None
    ) -> None:
        """Remove tokens, all of a user or the one `token`; `on_revoked` is called once they count as revoked.

        Raises:
            RevocationPendingError: the disk refuses; the tokens are revoked.
            TokenStoreError, AuditError: another process holds the database, it is damaged, or the trail was altered.
        """
        refusal = None
        try:
            self._remove_with_reserve(deletion)
        except _DISK_REFUSALS as error:
            self._pending.append(deletion)
            refusal = _pending_error(error, deletion.tokens, is_recorded=self._record(username, token))
        on_revoked()
        self._tombstones.apply(deletion.tombstones)
        if refusal is not None:
            raise refusal

    def _remove_with_reserve(self, revocation: Revocation) -> None:
        try:
            self._remove(revocation)
        except _DISK_REFUSALS:
            if not self._reserve.release():
                raise
            log.warning("the space kept back for revocations on the disk of %s is in use", self._database.folder)
            self._remove(revocation)

    def _remove(self, revocation: Revocation) -> None:
        tokens, tombstones = revocation.tokens, revocation.tombstones
        if tokens or tombstones:
            hook = revocation.before_commit
            self._database.remove(tokens, now=self._now(), before_commit=hook, tombstones=tombstones)

    def _record(self, username: str | None, token: str | None) -> bool:
        try:
            self._journal.record(username=username, token=token)
        except (OSError, NfcliError) as error:
            log.critical("a revocation holds until the worker ends, its journal can't be written: %s", error)
            return False
        return True

    def settle(self) -> None:
        """Complete what is pending.

        Raises:
            TokenStoreError, AuditError: the disk still refuses; what remains stays pending.
        """
        while self._pending:
            first = self._pending[0]
            self._remove_with_reserve(first)
            del self._pending[0]
            log.warning("revoked tokens removed from the database: %d", len(first.records))
        try:
            self._journal.clear()
        except (OSError, NfcliError) as error:
            raise self._journal_error("written", error) from error

    def maintain(self) -> None:
        """Complete what is pending and keep space back, if the disk allows it; `problem` tells what it doesn't."""
        with suppress(NfcliError, OSError):
            self.settle()
            self._journal.prepare()
            self._reserve.restore()

    def problem(self, *, is_thorough: bool = False) -> str | None:
        """Return what is wrong with the disk, None if it can be written and has space kept back for revocations.

        With `is_thorough` a file is written and removed, which a quota or a failing disk may refuse.
        """
        problem = space_problem(self._database.folder, is_thorough=is_thorough)
        if self._pending:
            reason = problem or f"the disk of {self._database.folder} refused it: check it"
            return f"tokens revoked and not yet removed from disk: {self.pending}: {reason}"
        if problem is None and not self.is_settled:
            return f"no space is kept back for revocations on the disk of {self._database.folder}: make room on it"
        return problem

    def _journal_error(self, attempted: str, error: Exception) -> TokenStoreDiskError:
        reason = (isinstance(error, OSError) and error.strerror) or error
        where = f"the journal of revocations in {self._database.folder}"
        return TokenStoreDiskError(f"{where} can't be {attempted} ({reason}), nothing changed: check that disk")


def _pending_error(error: NfcliError, tokens: Sequence[str], *, is_recorded: bool) -> RevocationPendingError:
    reason = str(error).replace(", nothing changed", "")
    if is_recorded:
        held, remedy = "revoked, also after a restart", "the worker then removes it"
    else:
        held, remedy = "revoked until the worker ends", "the worker then removes it, don't restart it before"
    return RevocationPendingError(f"{held}, and not yet removed from disk: {reason}; {remedy}", tokens)
