"""The record of a bearer token: what a worker stores, backs up and restores of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from .fields import Instant, StoredUsername, Token


@dataclass(slots=True)
class BearerTokenRecord:
    """A stored token. `created` and `expires` are seconds since the epoch (UTC); `expires` None means never.

    `written` is when it was last renewed, likewise; None: it has been as it is since its creation.

    Fields that are added here need a default; the database, backups and restores carry them without further code
    (`worker/tokens/rows.py`). A slotted class rather than a model: 100,000 of them are in memory at once.
    """

    token: Token = field(repr=False)  # a repr may end in a log
    username: StoredUsername
    created: Instant
    expires: Instant | None
    written: Instant | None = None

    @property
    def written_at(self) -> float:
        """When the record became what it is: the later of two records of a token is the valid one."""
        return self.created if self.written is None else self.written

    def is_live(self, now: float) -> bool:
        """Whether the token is valid at `now` (epoch seconds); it expires at the exact moment `expires` names."""
        return self.expires is None or now < self.expires

    def entry(self, now: float, *, iso_times: bool = False) -> dict[str, str | None]:
        """Return the fields of this record's `BearerTokenEntry` at `now` (epoch seconds).

        A plain dict: a list of 100,000 models takes three times as long to build and to serialize, since the garbage
        collector follows each of them.
        """
        to_text, never = (_iso_text, None) if iso_times else (_local_text, "None")
        return {
            "username": self.username,
            "token": self.token,
            "age": str(timedelta(seconds=max(0.0, now - self.created))),
            "creation": to_text(self.created),
            "expires": never if self.expires is None else to_text(self.expires),
        }


def _iso_text(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).astimezone().isoformat(timespec="microseconds")


def _local_text(epoch_seconds: float) -> str:
    # Straight to local time: by way of an aware instant a list of 100,000 tokens takes 0.3 s longer.
    return datetime.fromtimestamp(epoch_seconds).isoformat(" ", "microseconds")  # noqa: DTZ006  text for people
