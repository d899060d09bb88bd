"""What a worker has of each token, as other workers can compare it: by keyed hashes, without the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ....models.tasks.token_sync import RANGES, SyncedToken, TokenSetReport
from ....models.tokens import BearerTokenRecord
from .hashing import DIGEST_MODULUS, TokenHasher
from .ranges import TokenRanges
from .tombstones import Tombstones

_RANGE_MODULUS = 1 << 64


class TokenStates:
    """The states of a store's tokens. Any thread may call any method: it reads what may change meanwhile.

    `by_token` returns the records that are stored at the time of the call, `now` the store's time.
    """

    def __init__(
        self,
        hasher: TokenHasher,
        by_token: Callable[[], Mapping[str, BearerTokenRecord]],
        tombstones: Tombstones,
        now: Callable[[], float],
    ) -> None:
        self.hasher = hasher
        self._by_token = by_token
        self._tombstones = tombstones
        self._now = now
        self.ranges = TokenRanges(hasher)

    def compare(self) -> TokenSetReport:
        """Return the digests of all ranges; 500,000 tokens take about two seconds."""
        by_token, tombstones, now = self._by_token(), self._tombstones, self._now()
        counts, sums, digest, tokens = [0] * RANGES, [0] * RANGES, 0, 0
        for number, ids in enumerate(self.ranges.build(lambda: list(by_token))):
            for token in ids.copy().values():
                record = by_token.get(token)
                if record is not None and record.is_live(now):
                    value = self.hasher.record_hash(record)
                    digest, tokens = digest + value, tokens + 1
                    counts[number] += 1
                    sums[number] += value
        for token_id, deleted in list(tombstones.tokens.items()):
            counts[token_id[0]] += 1
            sums[token_id[0]] += int(self.hasher.version(token_id, deleted), 16)
        return TokenSetReport(
            fleet_key=self.hasher.key_id,
            digest=f"{digest % DIGEST_MODULUS:064x}",
            tokens=tokens,
            counts=counts,
            digests=[f"{value % _RANGE_MODULUS:016x}" for value in sums],
            users={user.hex(): deleted for user, deleted in list(tombstones.users.items())},
        )

    def states(self, ranges: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield a `TokenState` as a dict for each token and tombstone in these ranges."""
        by_token, tombstones, now = self._by_token(), self._tombstones, self._now()
        wanted = set(ranges)
        for number in sorted(wanted):
            for token_id, token in self.ranges.get(lambda: list(by_token))[number].copy().items():
                record = by_token.get(token)
                if record is not None and record.is_live(now):
                    yield self._state(token_id, record)
        for token_id, deleted in list(tombstones.tokens.items()):
            if token_id[0] in wanted:
                yield {"id": token_id.hex(), "version": self.version(token_id, None), "deleted": deleted}

    def read(self, ids: Sequence[str]) -> list[SyncedToken]:
        """Return the tokens with these ids that are still stored."""
        found = []
        for text in ids:
            record = self.find(bytes.fromhex(text))
            if record is not None:
                version = self.version(bytes.fromhex(text), record)
                fields = {
                    name: getattr(record, name) for name in ("token", "username", "created", "expires", "written")
                }
                found.append(SyncedToken(id=text, version=version, **fields))
        return found

    def find(self, token_id: bytes) -> BearerTokenRecord | None:
        """Return the live record with this id, None where there is none."""
        by_token = self._by_token()
        token = self.ranges.get(lambda: list(by_token))[token_id[0]].get(token_id)
        record = None if token is None else by_token.get(token)
        return record if record is not None and record.is_live(self._now()) else None

    def version(self, token_id: bytes, record: BearerTokenRecord | None) -> str:
        """Return the version of a token's state: of its record, else of its tombstone, empty where it has neither."""
        if record is not None:
            return self.hasher.version(token_id, record.username, record.created, record.written, record.expires)
        deleted = self._tombstones.tokens.get(token_id)
        return "" if deleted is None else self.hasher.version(token_id, deleted)

    def _state(self, token_id: bytes, record: BearerTokenRecord) -> dict[str, Any]:
        return {
            "id": token_id.hex(),
            "version": self.version(token_id, record),
            "fingerprint": self.hasher.fingerprint(record.token),
            "user": self.hasher.user_id(record.username).hex(),
            "username": record.username,
            "created": record.created,
            "written": record.written_at,
            "expires": record.expires,
        }
