"""What a change of many tokens does to the stored ones, decided before anything is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ....models.tasks.token_sync import Merged, SyncedToken, TokenDeletions, TokenMerge, rank
from ....models.tokens import BearerTokenRecord
from ..changes import ImportResult
from .states import TokenStates
from .tombstones import Kind, Tombstones


def find_differences(
    old: Sequence[BearerTokenRecord], new: Sequence[BearerTokenRecord]
) -> tuple[list[BearerTokenRecord], list[BearerTokenRecord]]:
    """Return the records of tokens that their user has in one set only: of the old one, and of the new one."""

    def only(here: Sequence[BearerTokenRecord], there: Sequence[BearerTokenRecord]) -> list[BearerTokenRecord]:
        owners = {record.token: record.username for record in there}
        return [record for record in here if owners.get(record.token) != record.username]

    return only(old, new), only(new, old)


@dataclass(frozen=True)
class ImportPlan:
    """The records that an import writes, the tokens whose expired records they replace, and its outcome."""

    records: tuple[BearerTokenRecord, ...]
    revoked: list[str]
    result: ImportResult


def plan_import(
    given: Sequence[BearerTokenRecord], stored: Mapping[str, BearerTokenRecord], tombstones: Tombstones, now: float
) -> ImportPlan:
    """Return what an import of these records writes: see `TokenStore.import_tokens`."""
    new: dict[str, BearerTokenRecord] = {}
    refused = []
    live = [record for record in given if record.is_live(now)]
    kept = [record for record in live if not tombstones.covers(record)]
    for record in kept:
        held = stored.get(record.token)
        if held is None or not held.is_live(now):
            held = new.setdefault(record.token, record)
        if held.username != record.username:
            refused.append(record)
    records = tuple(new.values())
    present, deleted = len(kept) - len(records) - len(refused), len(live) - len(kept)
    result = ImportResult(len(records), present, tuple(refused), len(given) - len(live), deleted)
    return ImportPlan(records, [token for token in new if token in stored], result)


@dataclass
class MergePlan:
    """The records that a merge deletes or stores, the deletions that it makes known, and its outcome.

    `revoked` are the tokens whose expired records are replaced.
    """

    operation: Literal["delete", "sync"]
    records: list[BearerTokenRecord] = field(default_factory=list)
    deletions: dict[tuple[Kind, bytes], float] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    kept: int = 0
    conflicts: int = 0
    expired: int = 0

    def result(self) -> Merged:
        """Return the outcome once the plan is carried out."""
        count, is_deletion = len(self.records), self.operation == "delete"
        return Merged(
            stored=0 if is_deletion else count,
            deleted=count if is_deletion else 0,
            kept=self.kept,
            conflicts=self.conflicts,
            expired=self.expired,
        )


class MergePlanner:
    """Decides what a merge changes.

    A change is made only if the token is still what the comparison has found, and only if it is newer than that: of two
    records the later one is valid, and a deletion is stronger than every record that was written before it.
    """

    def __init__(
        self, states: TokenStates, by_token: Mapping[str, BearerTokenRecord], tombstones: Tombstones, now: float
    ) -> None:
        self._states = states
        self._hasher = states.hasher
        self._by_token = by_token
        self._tombstones = tombstones
        self._now = now

    def plan(self, changes: TokenMerge) -> MergePlan:
        """Return what these changes do."""
        return self._plan_deletions(changes) if isinstance(changes, TokenDeletions) else self._plan_stored(changes)

    def _plan_deletions(self, changes: TokenDeletions) -> MergePlan:
        plan = MergePlan("delete")
        removed: dict[str, BearerTokenRecord] = {}
        for user, deleted in changes.users.items():
            plan.deletions["user", bytes.fromhex(user)] = deleted
        for record in self._covered_by(changes.users):
            removed[record.token] = record
            plan.deletions["token", self._hasher.token_id(record.token)] = record.written_at
        for change in changes.deleted:
            token_id = bytes.fromhex(change.id)
            held = self._states.find(token_id)
            if held is not None and held.token in removed:
                plan.deletions["token", token_id] = max(change.deleted, held.written_at)
            elif self._states.version(token_id, held) != change.version or (
                held is not None and held.written_at > change.deleted
            ):
                plan.kept += 1
            else:
                plan.deletions["token", token_id] = change.deleted
                if held is not None:
                    removed[held.token] = held
        plan.records = list(removed.values())
        return plan

    def _covered_by(self, users: Mapping[str, float]) -> Iterable[BearerTokenRecord]:
        if not users:
            return
        known: dict[str, float] = {}
        for record in list(self._by_token.values()):
            name = record.username
            if name not in known:
                known[name] = users.get(self._hasher.user_id(name).hex(), -math.inf)
            if record.written_at <= known[name]:
                yield record

    def _plan_stored(self, given: Sequence[SyncedToken]) -> MergePlan:
        plan = MergePlan("sync")
        for token in {each.id: each for each in given}.values():
            record = token.record()
            held = self._by_token.get(record.token)
            is_held = held is not None and held.is_live(self._now)
            if is_held and held is not None and held.username != record.username:
                plan.conflicts += 1
            elif not record.is_live(self._now):
                plan.expired += 1
            elif self._is_outdated(token, record, held if is_held else None):
                plan.kept += 1
            else:
                plan.records.append(record)
                if held is not None and not is_held:
                    plan.revoked.append(record.token)
        return plan

    def _is_outdated(self, given: SyncedToken, record: BearerTokenRecord, held: BearerTokenRecord | None) -> bool:
        token_id = self._hasher.token_id(record.token)
        return (
            token_id.hex() != given.id
            or self._states.version(token_id, held) != given.version
            or self._tombstones.covers(record)
            or (held is not None and rank(held.written_at, held.expires) >= rank(record.written_at, record.expires))
        )
