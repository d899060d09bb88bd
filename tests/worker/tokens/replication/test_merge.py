"""The merge of one worker's tokens into another's: the later change is valid, and what changed meanwhile is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.models.environment.fleet_key import FleetKey
from nfcli.models.tasks.token_sync import DeletedToken, Merged, SyncedToken, TokenDeletions, TokenState
from nfcli.worker.tokens.changes import TokenChange
from nfcli.worker.tokens.store import TokenStore
from support.tokens.token_store import delete_tokens, store_token

KEY = FleetKey(bytes(range(32)))
NOTHING = Merged(stored=0, deleted=0, kept=0, conflicts=0, expired=0)


@pytest.fixture
def sites(tmp_path: Path, clock: SimpleNamespace) -> Iterator[tuple[TokenStore, TokenStore]]:
    """Open the stores of two workers of a fleet."""
    clocks = {"clock": lambda: clock.now, "ticks": lambda: clock.ticks}
    with ExitStack() as opened:
        one, other = [
            opened.enter_context(TokenStore(tmp_path / name, **clocks, fleet_key=KEY)) for name in ("w1", "w2")
        ]
        yield one, other


def state_of(store: TokenStore, token: str) -> TokenState | None:
    """Return the state of a token."""
    token_id = store.hasher.token_id(token).hex()
    states = (TokenState(**each) for each in store.states.states(range(256)))
    return next((state for state in states if state.id == token_id), None)


def carried(source: TokenStore, target: TokenStore, token: str) -> SyncedToken:
    """Read a token of one worker, for another that has what it has now."""
    (found,) = source.states.read([source.hasher.token_id(token).hex()])
    held = state_of(target, token)
    return found.model_copy(update={"version": "" if held is None else held.version})


def deletion(source: TokenStore, target: TokenStore, token: str) -> TokenDeletions:
    """Return one worker's deletion of a token, for another that has what it has now."""
    token_id = source.hasher.token_id(token)
    held = state_of(target, token)
    version = "" if held is None else held.version
    deleted = DeletedToken(id=token_id.hex(), version=version, deleted=source.tombstones.tokens[token_id])
    return TokenDeletions(deleted=[deleted], users={})


def test_states_have_no_token(sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace) -> None:
    """Fingerprint, user and times, or the time of the deletion; expired tokens are left out."""
    store, _ = sites
    record = store_token(store, "ann", "secret-1", 60)
    store_token(store, "ann", "secret-2", 5)
    delete_tokens(store, token="secret-3")
    clock.now += 5
    stored, deleted = sorted(store.states.states(range(256)), key=lambda each: "deleted" in each)
    assert (stored["username"], stored["created"], stored["expires"]) == ("ann", record.created, record.expires)
    assert stored["fingerprint"] == store.hasher.fingerprint("secret-1")
    assert deleted.keys() == {"id", "version", "deleted"}
    assert "secret" not in repr([stored, deleted])
    assert (store.states.compare().tokens, sum(store.states.compare().counts)) == (1, 2)
    assert store.states.compare().digest == f"{store.digest():064x}"


def test_a_token_is_stored_as_the_other_worker_has_it(sites: tuple[TokenStore, TokenStore]) -> None:
    """With creation, renewal and expiry; the digests are equal then, and repeating it changes nothing."""
    one, other = sites
    store_token(one, "ann", "t", 50)
    record = store_token(one, "ann", "t", 500)
    change = carried(one, other, "t")
    heard: list[TokenChange] = []
    assert other.merge([change], before_commit=heard.append) == NOTHING.model_copy(update={"stored": 1})
    assert other.lookup("t") == record
    assert heard == [TokenChange("sync", (record,))]
    assert other.digest() == one.digest()
    assert other.merge([change], before_commit=heard.append) == NOTHING.model_copy(update={"kept": 1})
    assert len(heard) == 1


def test_a_deletion_is_stronger_than_an_older_record(
    sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace
) -> None:
    """The record goes, its token is revoked, and the tombstone is known on both."""
    one, other = sites
    for store in sites:
        store_token(store, "ann", "t", None)
    clock.now += 1
    delete_tokens(one, token="t")
    revoked: list[str] = []
    other.on_revoked.append(revoked.extend)
    assert other.merge(deletion(one, other, "t"), before_commit=None) == NOTHING.model_copy(update={"deleted": 1})
    assert (other.lookup("t"), revoked) == (None, ["t"])
    assert other.tombstones.tokens == one.tombstones.tokens
    assert other.states.compare().digests == one.states.compare().digests


def test_a_creation_after_the_deletion_is_kept(sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace) -> None:
    """On the worker that didn't hear of the deletion, also if it was a renewal there."""
    one, other = sites
    for store in sites:
        store_token(store, "ann", "t", None)
    clock.now += 1
    delete_tokens(one, token="t")
    clock.now += 1
    store_token(other, "ann", "t", None)
    assert other.merge(deletion(one, other, "t"), before_commit=None) == NOTHING.model_copy(update={"kept": 1})
    assert one.merge([carried(other, one, "t")], before_commit=None).stored == 1
    assert one.lookup("t") == other.lookup("t")
    assert one.tombstones.tokens == {}


def test_a_users_deletion_takes_tokens_that_only_this_worker_had(
    sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace
) -> None:
    """Those written before it; the others and other users' stay."""
    one, other = sites
    store_token(other, "ann", "before", None)
    store_token(other, "bob", "b", None)
    clock.now += 1
    delete_tokens(one, username="ann")
    clock.now += 1
    store_token(other, "ann", "after", None)
    users = {user.hex(): deleted for user, deleted in one.tombstones.users.items()}
    merged = other.merge(TokenDeletions(deleted=[], users=users), before_commit=None)
    assert merged == NOTHING.model_copy(update={"deleted": 1})
    assert [record.token for record in other.records()] == ["after", "b"]
    assert other.tombstones.users == one.tombstones.users


def test_a_token_that_its_users_deletion_covers_is_deleted_though_its_own_deletion_is_older(
    sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace
) -> None:
    """Its tombstone is as late as the record that it removes, so that no copy of that comes back."""
    one, other = sites
    store_token(one, "ann", "t", None)
    delete_tokens(one, token="t")
    clock.now += 1
    held = store_token(other, "ann", "t", None)
    clock.now += 1
    delete_tokens(one, username="ann")
    users = {user.hex(): deleted for user, deleted in one.tombstones.users.items()}
    changes = deletion(one, other, "t").model_copy(update={"users": users})
    assert other.merge(changes, before_commit=None) == NOTHING.model_copy(update={"deleted": 1})
    assert other.lookup("t") is None
    assert other.tombstones.tokens == {other.hasher.token_id("t"): held.written_at}


@pytest.mark.parametrize("meanwhile", ["created", "renewed", "deleted"])
def test_what_changed_since_the_comparison_is_kept(
    sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace, meanwhile: str
) -> None:
    """Even where the worker's clock is behind, so that its change seems to be the older one."""
    one, other = sites
    if meanwhile != "created":
        store_token(other, "ann", "t", 50)
    clock.now += 100 if meanwhile == "created" else 1
    store_token(one, "ann", "t", 500)
    change = carried(one, other, "t")
    clock.now -= 50 if meanwhile == "created" else 0.5
    if meanwhile == "deleted":
        delete_tokens(other, token="t")
    else:
        store_token(other, "ann", "t", 5_000)
    found = other.lookup("t")
    assert other.merge([change], before_commit=None) == NOTHING.model_copy(update={"kept": 1})
    assert other.lookup("t") is found


def test_a_change_that_seems_older_than_the_merge_is_kept(
    sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace
) -> None:
    """The worker's clock is behind: only the version shows that it changed after the comparison."""
    one, other = sites
    clock.now += 100
    store_token(one, "ann", "created", None)
    store_token(one, "ann", "deleted", None)
    changes = [carried(one, other, token) for token in ("created", "deleted")]
    other.now = lambda: clock.now - 50
    store_token(other, "ann", "created", 500)
    delete_tokens(other, token="deleted")
    assert other.merge(changes, before_commit=None) == NOTHING.model_copy(update={"kept": 2})
    assert [(record.token, record.expires) for record in other.records()] == [("created", clock.now + 450)]


def test_a_renewal_that_seems_older_than_a_deletion_elsewhere_is_kept(
    sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace
) -> None:
    """It was made after the comparison, by a worker whose clock is behind."""
    one, other = sites
    store_token(other, "ann", "t", None)
    clock.now += 100
    delete_tokens(one, token="t")
    change = deletion(one, other, "t")
    other.now = lambda: clock.now - 50
    renewed = store_token(other, "ann", "t", 500)
    assert other.merge(change, before_commit=None) == NOTHING.model_copy(update={"kept": 1})
    assert other.lookup("t") is renewed


def test_a_token_of_another_user_is_a_conflict(sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace) -> None:
    """Neither side is changed: which of the two is meant, nobody but the operator knows."""
    one, other = sites
    store_token(one, "ann", "t", None)
    clock.now += 1
    store_token(other, "bob", "t", None)
    change = carried(other, one, "t")
    assert one.merge([change], before_commit=None) == NOTHING.model_copy(update={"conflicts": 1})
    held = one.lookup("t")
    assert held is not None
    assert held.username == "ann"


def test_a_token_that_has_expired_here_is_skipped(sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace) -> None:
    """As where this worker's clock is ahead."""
    one, other = sites
    store_token(one, "ann", "t", 50)
    change = carried(one, other, "t")
    clock.now += 50
    assert other.merge([change], before_commit=None) == NOTHING.model_copy(update={"expired": 1})
    assert len(other) == 0


def test_a_record_under_a_wrong_id_is_not_stored(sites: tuple[TokenStore, TokenStore]) -> None:
    """As from a client that has mixed up two tokens."""
    one, other = sites
    store_token(one, "ann", "t", None)
    change = carried(one, other, "t").model_copy(update={"id": "0" * 32})
    assert other.merge([change], before_commit=None) == NOTHING.model_copy(update={"kept": 1})


def test_a_refused_merge_changes_nothing(sites: tuple[TokenStore, TokenStore]) -> None:
    """The audit trail's line could not be written, for instance."""

    def refuse(_change: object) -> None:
        raise ValueError("refused")

    one, other = sites
    store_token(one, "ann", "t", None)
    store_token(other, "ann", "u", None)
    delete_tokens(one, token="u")
    before = other.states.compare()
    for changes in ([carried(one, other, "t")], deletion(one, other, "u")):
        with pytest.raises(ValueError, match="refused"):
            other.merge(changes, before_commit=refuse)
    assert other.states.compare() == before


def test_ids_follow_tokens_that_are_stored_while_they_are_kept(
    sites: tuple[TokenStore, TokenStore], clock: SimpleNamespace
) -> None:
    """A deletion finds a token that was stored after the comparison."""
    one, other = sites
    assert other.states.compare().tokens == 0
    store_token(other, "ann", "t", None)
    clock.now += 1
    delete_tokens(one, token="t")
    outdated = deletion(one, other, "t")
    assert other.merge(outdated, before_commit=None).deleted == 1
    other.replace([], before_commit=None)
    assert other.states.find(other.hasher.token_id("t")) is None
