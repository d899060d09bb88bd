"""The token store against a dict: any sequence of calls, clock steps and restarts gives the same answers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nfcli.models.errors import TokenOwnerError
from nfcli.worker.tokens.replication.hashing import DIGEST_MODULUS
from nfcli.worker.tokens.store import TokenStore
from support.tokens.token_store import delete_tokens, store_token

START = 1_780_000_000.0
YEAR = 31_536_000.0

users = st.sampled_from(["alice", "bob", "Zoë"])
tokens = st.sampled_from(["t", "token", "username", "12345", "a-very-long-token" * 20])
lifetimes = st.none() | st.integers(1, 20)
seconds = st.integers(0, 15) | st.sampled_from([0.25, 0.000001])
steps = st.integers(-15, 15) | st.sampled_from([-0.25, -YEAR, YEAR])


class TokenStoreModel(RuleBasedStateMachine):
    """The model: token -> (user, created, expires). The store's clock is checked to never go back."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock, self.ticks, self.latest = START, 0.0, 0.0
        self.crashes = 0
        self.model: dict[str, tuple[str, float, float | None]] = {}
        self.revoked: list[str] = []
        self.has_deleted = False
        self.opened: list[TokenStore] = []

    @initialize()
    def open(self) -> None:
        """Open the database, for the first time or again."""
        folder = self.folder / f"tokens-{self.crashes}"
        self.store = TokenStore(folder, clock=lambda: self.clock, ticks=lambda: self.ticks)
        self.opened.append(self.store)
        self.store.on_revoked.append(self.revoked.extend)

    def live(self) -> dict[str, tuple[str, float, float | None]]:
        """Forget what has expired by now, as nothing may ever bring it back; return the rest."""
        now = self.store.now()
        assert now >= max(self.latest, self.clock)
        self.latest = now
        self.model = {t: row for t, row in self.model.items() if row[2] is None or now < row[2]}
        return self.model

    @rule(username=users, token=tokens, expire=lifetimes)
    def save(self, username: str, token: str, expire: int | None) -> None:
        """Store or renew; another's token is refused."""
        live = self.live()
        now = round(self.latest, 6)
        owner, created, _ = live.get(token, (username, now, None))
        if owner != username:
            try:
                store_token(self.store, username, token, expire)
            except TokenOwnerError:
                return
            raise AssertionError("another user's token was given away")
        record = store_token(self.store, username, token, expire)
        if token not in live and self.has_deleted and 0 < record.created - now < 1e-5:
            created = record.created  # later than a deletion at the same moment
        live[token] = (username, created, None if expire is None else now + expire)
        assert (record.username, record.created, record.expires) == live[token]

    @rule(username=st.none() | users, token=st.none() | tokens)
    def delete(self, username: str | None, token: str | None) -> None:
        """Delete by user, token or both; listeners hear of each."""
        live = self.live()
        gone = {
            t
            for t, row in live.items()
            if (username, token) != (None, None) and token in (None, t) and username in (None, row[0])
        }
        self.revoked.clear()
        assert delete_tokens(self.store, username=username, token=token) == len(gone)
        assert gone <= set(self.revoked)
        self.model = {t: row for t, row in live.items() if t not in gone}
        self.has_deleted = True

    @rule(step=seconds)
    def wait(self, step: float) -> None:
        """Let time pass."""
        self.clock += step
        self.ticks += step

    @rule(step=steps)
    def set_clock(self, step: float) -> None:
        """Set the clock forward or back; everything was looked at before, so what has expired is known to have."""
        self.live()
        self.clock += step

    @rule()
    def sweep(self) -> None:
        """Take what has expired off the disk; nobody sees a difference."""
        self.store.sweep()
        assert self.live().keys() == self.store.index.by_token.keys()
        assert not self.store.has_expired()

    @rule()
    def restart(self) -> None:
        """Close and open, whatever the clock shows."""
        self.live()
        self.store.close()
        self.open()

    @rule()
    def crash(self) -> None:
        """Go on with what is on disk, a second after the last look at it: the worker sweeps that often."""
        self.live()
        if self.store.has_expired():
            self.store.sweep()
        old = self.folder / f"tokens-{self.crashes}"
        self.crashes += 1
        shutil.copytree(old, self.folder / f"tokens-{self.crashes}", ignore=shutil.ignore_patterns("*-shm"))
        self.latest = 0.0  # a moment at which nothing was written or expired may be seen twice
        self.open()

    @invariant()
    def answers_are_those_of_the_model(self) -> None:
        """Every question has the model's answer."""
        if not hasattr(self, "store"):
            return
        live = self.live()
        found = [(r.username, r.created, r.token, r.expires) for r in self.store.records()]
        assert [row[:2] for row in found] == sorted(row[:2] for row in found)
        assert sorted(found, key=str) == sorted(((u, c, t, e) for t, (u, c, e) in live.items()), key=str)
        assert len(self.store) == len(live)
        hashes = map(self.store.hasher.record_hash, self.store.records())
        assert self.store.digest() == sum(hashes) % DIGEST_MODULUS
        assert self.store.usernames() == sorted({username for username, _, _ in live.values()})
        for username in ("alice", "bob", "Zoë"):
            own = [r.token for r in self.store.records(username)]
            assert sorted(own) == sorted(token for token, row in live.items() if row[0] == username)
        for token in ("t", "token", "username", "12345", "unknown"):
            assert (self.store.lookup(token) is not None) == (token in live)

    def teardown(self) -> None:
        """Close and remove the databases."""
        for store in self.opened:
            store.close()
        shutil.rmtree(self.folder)


TestTokenStoreModel = pytest.mark.slow(TokenStoreModel.TestCase)
TestTokenStoreModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True)
