"""What a change of many tokens does to the stored ones, decided before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ....models.tokens import BearerTokenRecord
from ..changes import ImportResult
from .tombstones import Tombstones


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
