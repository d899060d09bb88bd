"""Bearer tokens: what the four auth tasks take and give, and the record that is kept of each token."""

from __future__ import annotations

from datetime import datetime, timedelta


class BearerTokenRecord:
    """A stored token. `created` and `expires` are seconds since the epoch (UTC); `expires` None means never.

    A slotted class rather than a model: a worker holds one for every token, and 100,000 of them must stay small.
    """

    __slots__ = ("created", "expires", "token", "username")

    def __init__(self, token: str, username: str, created: float, expires: float | None) -> None:
        self.token = token
        self.username = username
        self.created = created
        self.expires = expires

    def __repr__(self) -> str:
        """Leave the token out: a repr may end in a log."""
        return f"BearerTokenRecord(username={self.username!r}, created={self.created}, expires={self.expires})"

    def is_live(self, now: float) -> bool:
        """Whether the token still counts at `now` (epoch seconds); it dies at the very moment `expires` names."""
        return self.expires is None or now < self.expires

    def entry(self, now: float) -> dict[str, str]:
        """Return the fields of this record's `BearerTokenEntry` as seen at `now` (epoch seconds).

        A plain dict: a list of 100,000 models takes three times as long to make and to serialize, since the garbage
        collector follows each of them.
        """
        return {
            "username": self.username,
            "token": self.token,
            "age": str(timedelta(seconds=max(0.0, now - self.created))),
            "creation": _local_text(self.created),
            "expires": "None" if self.expires is None else _local_text(self.expires),
        }


def _local_text(epoch_seconds: float) -> str:
    # Straight to local time: by way of an aware instant a list of 100,000 tokens takes 0.3 s longer.
    return datetime.fromtimestamp(epoch_seconds).isoformat(" ", "microseconds")  # noqa: DTZ006  text for people
