"""Changes of many tokens in one transaction: replace all tokens, import tokens.

They run in the store's own thread and change the database before the index.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...models.tokens import BearerTokenRecord
from .changes import BeforeCommit, ImportResult, ReplaceResult, TokenChange, bind_hook
from .database import TokenDatabase
from .index import TokenIndex


def replace(
    database: TokenDatabase,
    old: TokenIndex,
    given: Sequence[BearerTokenRecord],
    now: float,
    before_commit: BeforeCommit | None,
) -> tuple[TokenIndex, ReplaceResult, list[str]]:
    """Replace the tokens of `old`; return the new index, the counts, and the revoked tokens.

    Raises:
        TokenStoreError: the disk refused; nothing changed.
    """
    live = [record for record in given if record.is_live(now)]
    index = TokenIndex(live)
    records = index.records()
    database.replace(records, now=now, before_commit=bind_hook(before_commit, TokenChange("restore", tuple(records))))
    owners = {record.token: record.username for record in records}
    gone = [record for record in old.records() if owners.get(record.token) != record.username]
    removed = sum(record.is_live(now) for record in gone)
    return index, ReplaceResult(len(records), removed, len(given) - len(live)), [record.token for record in gone]


def import_tokens(
    database: TokenDatabase,
    index: TokenIndex,
    given: Sequence[BearerTokenRecord],
    now: float,
    before_commit: BeforeCommit | None,
) -> tuple[ImportResult, list[str]]:
    """Store the tokens that `index` lacks, all or none; return the counts, and the revoked tokens.

    Raises:
        TokenStoreError: the disk refused; nothing changed.
    """
    new: dict[str, BearerTokenRecord] = {}
    refused = []
    live = [record for record in given if record.is_live(now)]
    for record in live:
        held = index.by_token.get(record.token)
        if held is None or not held.is_live(now):
            held = new.setdefault(record.token, record)
        if held.username != record.username:
            refused.append(record)
    records = tuple(new.values())
    revoked = [token for token in new if token in index.by_token]
    if records:
        database.put(*records, now=now, before_commit=bind_hook(before_commit, TokenChange("import", records)))
        for record in records:
            index.put(record)
    present = len(live) - len(records) - len(refused)
    return ImportResult(len(records), present, tuple(refused), len(given) - len(live)), revoked
