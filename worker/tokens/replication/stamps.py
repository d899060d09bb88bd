"""The record of a token that is stored: its times are the same on all workers, and later than what it replaces."""

from __future__ import annotations

import math

from ....models.tasks.auth import BearerTokenStoreInput
from ....models.tokens import BearerTokenRecord
from .tombstones import STEP_SECONDS

ISSUE_SLACK_SECONDS = 10.0
SHORTEST_ISSUED_SECONDS = 100
"""A shorter lifetime is counted from when the worker stores the token: the job's delay would be a large part of it."""


def make_record(
    given: BearerTokenStoreInput,
    now: float,
    live: BearerTokenRecord | None,
    *,
    issued: float | None = None,
    deleted: float = -math.inf,
) -> BearerTokenRecord:
    """Return the record to store: new, or the renewal of `live`.

    Time is that of the client where it is near, in microseconds as the database keeps them; the expiry shows the same
    fraction. It is later than `deleted`, the latest deletion of this token or user, and than the record that is
    renewed, whatever the clocks of clients and other workers say.
    """
    lifetime = given.lifetime()
    is_near = issued is not None and abs(issued - now) <= ISSUE_SLACK_SECONDS
    is_used = is_near and (lifetime is None or lifetime >= SHORTEST_ISSUED_SECONDS)
    base = round(issued if is_used and issued is not None else now, 6)
    earliest = max(deleted, -math.inf if live is None else live.written_at) + STEP_SECONDS
    written = max(base, round(earliest, 6)) if earliest > 0 else base
    return BearerTokenRecord(
        **given.model_dump(exclude={"expire"}),
        created=written if live is None else live.created,
        expires=None if lifetime is None else base + lifetime,
        written=None if live is None else written,
    )
