"""Inputs and results of the tasks that compare the tokens of several workers and bring them together.

A token is named by its id, a keyed hash; the tokens themselves are in `bearer_token_read` and `bearer_token_merge`
alone. Ids are divided into 256 ranges by their first byte, so that workers that nearly agree exchange little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from ..fields import Instant, StoredUsername, Token
from ..tokens import BearerTokenRecord
from .base import Report, TaskInput

RANGES = 256
MAX_CHANGES = 100
"""Tokens per message, as in an import."""

HashId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="Keyed hash of a token or user, hexadecimal")]
Version = Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$", description="What was known of the token, empty: nothing")]


class TokenSetReport(Report):
    """Result of `bearer_token_compare`."""

    fleet_key: str = Field(description="Id of the fleet key that the hashes are made with")
    digest: str = Field(description="Digest of the unexpired tokens, as in get_status")
    tokens: int = Field(description="Number of unexpired tokens")
    counts: list[int] = Field(description="Number of tokens and tombstones by range of ids")
    digests: list[str] = Field(description="Digest of tokens and tombstones by range of ids")
    users: dict[str, float] = Field(description="When all tokens of a user were deleted, by the user's keyed hash")


class TokenStatesInput(TaskInput):
    """Arguments of `bearer_token_states`."""

    ranges: Annotated[
        list[Annotated[int, Field(ge=0, lt=RANGES)]],
        Field(min_length=1, max_length=RANGES, description="Ranges of ids to list, by their first byte"),
    ]


class TokenState(Report):
    """What a worker has of one token: a record, or only a tombstone."""

    id: str
    version: str
    fingerprint: str = ""
    user: str = ""
    username: str | None = None
    created: float | None = None
    written: float | None = None
    expires: float | None = None
    deleted: float | None = None

    @property
    def is_stored(self) -> bool:
        """Whether the worker has the token."""
        return self.username is not None

    @property
    def rank(self) -> tuple[float, float]:
        """The greater of two records of a token is the valid one: the later one, then the one that lives longer."""
        return rank(self.written or 0.0, self.expires)


def rank(written: float, expires: float | None) -> tuple[float, float]:
    """Return the rank of a record that was written and expires at these times."""
    return written, float("inf") if expires is None else expires


class TokenReadInput(TaskInput):
    """Arguments of `bearer_token_read`."""

    ids: Annotated[list[HashId], Field(min_length=1, max_length=MAX_CHANGES, description="Ids of the tokens to read")]


class SyncedToken(TaskInput):
    """A token with all that a worker knows of it; `version` is what it, or the worker that is to store it, has."""

    id: HashId
    version: Version = ""
    token: Annotated[Token, Field(description="Token string", repr=False)]
    username: Annotated[StoredUsername, Field(description="User name that the token is stored for")]
    created: Annotated[Instant, Field(description="When it was created, in seconds since the epoch")]
    expires: Annotated[Instant | None, Field(description="When it expires, likewise, null for never")] = None
    written: Annotated[Instant | None, Field(description="When it was last renewed, likewise, null for never")] = None

    def record(self) -> BearerTokenRecord:
        """Return the record to store."""
        return BearerTokenRecord(**self.model_dump(exclude={"id", "version"}))


class DeletedToken(TaskInput):
    """A token that was deleted elsewhere; `version` is what the worker had when it was compared."""

    id: HashId
    version: Version = ""
    deleted: Annotated[Instant, Field(description="When it was deleted, in seconds since the epoch")]


class TokenMergeInput(TaskInput):
    """Arguments of `bearer_token_merge`."""

    tokens: Annotated[
        list[SyncedToken],
        Field(min_length=1, max_length=MAX_CHANGES, repr=False, description="Tokens that another worker has"),
    ]


class TokenDeletions(TaskInput):
    """Arguments of `bearer_token_merge_deletions`."""

    deleted: Annotated[
        list[DeletedToken], Field(max_length=MAX_CHANGES, description="Tokens that were deleted on another worker")
    ]
    users: Annotated[
        dict[HashId, Instant],
        Field(max_length=MAX_CHANGES, description="When all tokens of a user were deleted on another worker"),
    ]


TokenMerge = TokenDeletions | Sequence[SyncedToken]


class Merged(Report):
    """Result of `bearer_token_merge` and `bearer_token_merge_deletions`."""

    stored: int = Field(description="Number of tokens that were stored")
    deleted: int = Field(description="Number of tokens that were deleted")
    kept: int = Field(description="Number of tokens left as they are, because they have changed or are newer here")
    conflicts: int = Field(description="Number of tokens left as they are, because another user has them here")
    expired: int = Field(description="Number of tokens that were skipped because they have expired here")


class DigestComparison(NamedTuple):
    """What the digests of several workers say, a line each: `differences` of tokens or keys, and who is `unknown`."""

    differences: list[str]
    unknown: list[str]


def compare_digests(reports: Mapping[str, Any]) -> DigestComparison:
    """Compare the results of `get_status` of several workers; those of other programs may have any form."""
    groups: dict[str, dict[str, list[str]]] = {}
    counts: dict[str, Any] = {}
    unknown = []
    for worker, report in sorted(reports.items()):
        values = report if isinstance(report, dict) else {}
        key, digest = values.get("fleet_key"), values.get("tokens_digest")
        if not isinstance(key, str) or not isinstance(digest, str):
            unknown.append(worker)
            continue
        groups.setdefault(key, {}).setdefault(digest, []).append(worker)
        counts[worker] = values.get("tokens_count")
    differences = []
    for digests in groups.values():
        if len(digests) > 1:
            sides = "; ".join(f"{', '.join(names)}: {counts[names[0]]}" for names in digests.values())
            differences.append(f"tokens differ ({sides}): see show fastmcp tokens diff")
    if len(groups) > 1:
        sides = "; ".join(f"{', '.join(chain(*digests.values()))}: {key}" for key, digests in groups.items())
        differences.append(f"tokens are not comparable, the fleet keys differ ({sides}): see man page security")
    notes = []
    if unknown and len(reports) > 1:
        notes.append(f"tokens unknown: no digest from {', '.join(unknown)}, an older nfcli or another program")
    return DigestComparison(differences, notes)
