"""The index of tokens gives the same answers as a plain dictionary, also to threads that read while it changes."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.index import TokenIndex

moments = st.none() | st.integers(0, 5).map(float)
records = st.builds(
    BearerTokenRecord,
    st.sampled_from([f"t{number}" for number in range(12)]),
    st.sampled_from(["alice", "bob", "carol"]),
    st.just(0.0),
    moments,
)
steps = st.lists(records | st.sets(st.integers(0, 11), min_size=1), max_size=40)


def identities(records: Iterable[BearerTokenRecord]) -> set[int]:
    """Return the identities of records, which may be equal to others."""
    return set(map(id, records))


def assert_alike(index: TokenIndex, model: dict[str, BearerTokenRecord]) -> None:
    """Compare all answers of an index with those of a dictionary."""
    assert index.by_token == model
    assert (len(index), identities(index.records())) == (len(model), identities(model.values()))
    assert sorted(index.usernames()) == sorted({record.username for record in model.values()})
    for username in ("alice", "bob", "carol"):
        of_user = (record for record in model.values() if record.username == username)
        assert identities(index.of_user(username)) == identities(of_user)
    expiries = sorted(record.expires for record in model.values() if record.expires is not None)
    assert index.next_expiry == min(expiries, default=math.inf)
    for now in (-1.0, 0.0, 2.5, 5.0):
        found = index.expired(now, 100)
        assert [record.expires for record in found] == [moment for moment in expiries if moment <= now]
        assert index.expired(now, 2) == found[:2]


@settings(max_examples=300, deadline=None)
@given(st.lists(records, max_size=12), steps)
def test_an_index_answers_as_a_dictionary_does(
    first: list[BearerTokenRecord], changes: list[BearerTokenRecord | set[int]]
) -> None:
    """Records are added at once or one by one, renewed, moved to other users, and removed singly or in bulk."""
    model = {record.token: record for record in first}
    index = TokenIndex(model.values())
    assert_alike(index, model)
    for change in changes:
        if isinstance(change, BearerTokenRecord):
            model[change.token] = change
            index.put(change)
        else:
            gone = [model.pop(token) for token in sorted(model) if int(token[1:]) in change]
            index.remove(gone)
        assert_alike(index, model)


def test_a_renewal_that_changes_nothing_replaces_the_record() -> None:
    """Few removals among many records use a binary search each."""
    many = [BearerTokenRecord(f"t{n:04}", "alice", 0.0, float(n // 2)) for n in range(1000)]
    index = TokenIndex(many)
    renewed = BearerTokenRecord("t0500", "alice", 0.0, 250.0)
    index.put(renewed)
    found = index.expired(250.0, 1000)
    assert (len(found), found[500] is renewed, index.of_user("alice")[500] is renewed) == (502, True, True)


def test_removals_one_by_one_and_at_once_leave_the_same_behind() -> None:
    """Of many records, some of which expire at the same moment."""
    many = [BearerTokenRecord(f"t{n:04}", f"user-{n % 3}", 0.0, float(n // 2)) for n in range(2000)]
    gone = many[::7]
    at_once, one_by_one = TokenIndex(many), TokenIndex(many)
    at_once.remove(gone)
    for record in gone:
        one_by_one.remove([record])
    kept = [record for record in many if record not in gone]
    assert at_once.expired(1e9, 2000) == one_by_one.expired(1e9, 2000) == kept
    assert at_once.next_expiry == one_by_one.next_expiry == 0.0


def test_readers_are_safe_while_an_index_changes() -> None:
    """No read fails or returns a user's token twice, and a token that doesn't change is always found."""
    index = TokenIndex([BearerTokenRecord("kept", "alice", 0.0, None)])
    done = threading.Event()

    readings: list[Callable[[], list[str]]] = [
        lambda: [record.token for record in index.of_user("alice")],
        lambda: [record.token for record in index.records()],
        lambda: ["kept" if name == "alice" else name for name in index.usernames()],
    ]

    def read(reading: Callable[[], list[str]]) -> int:
        count = 0
        while not done.is_set() or not count:
            seen = reading()
            assert len(set(seen)) == len(seen)
            assert "kept" in seen
            assert index.next_expiry > 0
            count += 1
        return count

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            reading = [pool.submit(read, reading) for reading in readings]
            for _ in range(12):
                batch = [BearerTokenRecord(f"t{n}", f"{'alice' if n % 3 else n}", 0.0, n + 1.0) for n in range(1000)]
                for record in batch:
                    index.put(record)
                for record in batch[:500]:
                    index.remove([record])
                index.remove(batch[500:])
            done.set()
            assert min(future.result() for future in reading) > 0
    finally:
        done.set()
        sys.setswitchinterval(interval)
