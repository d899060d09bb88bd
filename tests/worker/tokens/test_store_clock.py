"""A token store while the clock is set: no expired token is revived, and no token outlives its lifetime."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.models.errors import TokenStoreBusyError
from nfcli.worker.tokens.database import TokenDatabase
from nfcli.worker.tokens.store import SWEEP_AGAIN_SECONDS, TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token

OpenStore = Callable[[], TokenStore]
CrashAndOpen = Callable[[TokenStore], TokenStore]

WAIT_SECONDS = 20.0
HOUR = 3600.0
YEAR = 365 * 24 * HOUR


@pytest.fixture
def crash_and_open(tmp_path: Path, clock: SimpleNamespace) -> Iterator[CrashAndOpen]:
    """Open a copy of what kill -9 would leave on disk."""
    with ExitStack() as opened:

        def again(store: TokenStore) -> TokenStore:
            copy = tmp_path / f"copy-{len(list(tmp_path.glob('copy-*')))}"
            shutil.copytree(store.database.folder, copy, ignore=shutil.ignore_patterns("*-shm"))
            clocks = {"clock": lambda: clock.now, "ticks": lambda: clock.ticks}
            return opened.enter_context(TokenStore(copy, **clocks))

        yield again


def wait(clock: SimpleNamespace, seconds: float) -> None:
    """Let time pass for both clocks."""
    clock.now += seconds
    clock.ticks += seconds


def settled(store: TokenStore) -> TokenStore:
    """Wait until the store's thread has finished its work."""
    store.run(lambda: None)
    return store


def test_setting_the_clock_back_revives_nothing(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """A token that was found expired stays expired, and time continues from there."""
    store = open_store()
    store_token(store, "alice", "secret-token", 10)
    wait(clock, 10)
    assert store.lookup("secret-token") is None
    latest = clock.now
    clock.now -= HOUR
    assert (store.lookup("secret-token"), store.records(), store.now()) == (None, [], latest)
    wait(clock, 5)
    assert store.now() == latest + 5


@pytest.mark.parametrize("step", [-YEAR, -HOUR, -60.0, 0.0, 60.0, HOUR, YEAR])
def test_a_token_expires_in_time_whatever_the_clock_was_set_to_before(
    open_store: OpenStore, clock: SimpleNamespace, step: float
) -> None:
    """A lifetime of sixty seconds is exact, also for a token that is stored while the clock is behind."""
    store = open_store()
    clock.now += step
    store_token(store, "alice", "secret-token", 60)
    wait(clock, 59.9)
    assert store.lookup("secret-token") is not None
    wait(clock, 0.2)
    assert store.lookup("secret-token") is None


def test_steps_back_do_not_extend_a_token_s_life(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """It expires after its minute even if the clock is set back by an hour repeatedly."""
    store = open_store()
    store_token(store, "alice", "secret-token", 60)
    for _ in range(6):
        wait(clock, 9.9)
        assert store.lookup("secret-token") is not None
        clock.now -= HOUR
    wait(clock, 0.7)
    assert store.lookup("secret-token") is None


def test_a_jump_of_a_year_and_back_revives_nothing(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """A single look-up during the jump is enough, also across restarts; new tokens get their full lifetime."""
    store = open_store()
    store_token(store, "alice", "secret-token", 3600)
    store_token(store, "alice", "lasting-token", None)
    clock.now += YEAR
    assert store.lookup("secret-token") is None
    clock.now -= YEAR
    for _ in range(3):
        store_token(settled(store), "alice", "new-token", 60)
        wait(clock, 30)
        assert [record.token for record in store.records()] == ["lasting-token", "new-token"]
        store.close()
        store = open_store()
        assert (store.lookup("secret-token"), store.lookup("new-token") is None) == (None, False)
    wait(clock, 31)
    assert [record.token for record in store.records()] == ["lasting-token"]


@pytest.mark.parametrize("back", [10.0, HOUR, YEAR])
def test_time_continues_over_a_restart_with_the_clock_set_back(
    open_store: OpenStore, clock: SimpleNamespace, back: float
) -> None:
    """The database has the high-water mark, also of a store that was only read."""
    store = open_store()
    token = store_token(store, "alice", "secret-token", 60)
    wait(clock, 50)
    store.close()
    clock.now -= back
    store = open_store()
    assert (store.now(), store.records()[0].expires) == (token.created + 50, token.expires)
    wait(clock, 11)
    assert store.lookup("secret-token") is None
    clock.now += back + 100
    assert store.now() == clock.now


@pytest.mark.parametrize("write", ["store", "delete", "sweep", "replace"])
def test_each_write_saves_the_high_water_mark(
    open_store: OpenStore, crash_and_open: CrashAndOpen, clock: SimpleNamespace, write: str
) -> None:
    """In the same transaction: a crash keeps both or none."""
    store = open_store()
    store_token(store, "alice", "short", 10)
    store_token(store, "alice", "long", None)
    wait(clock, 100)
    seen = store.now()
    {
        "store": lambda: store_token(store, "bob", "new", 60),
        "delete": lambda: delete_tokens(store, token="long"),
        "sweep": store.sweep,
        "replace": lambda: store.replace([], before_commit=None),
    }[write]()
    clock.now -= HOUR
    assert crash_and_open(store).now() == seen


def test_what_was_seen_expired_stays_expired_after_a_crash(
    open_store: OpenStore, crash_and_open: CrashAndOpen, clock: SimpleNamespace, raw_database: RawDatabase
) -> None:
    """The look-up that found it expired schedules its removal from disk without waiting."""
    store = open_store()
    revoked: list[object] = []
    store.on_revoked.append(revoked.append)
    store_token(store, "alice", "secret-token", 10)
    store_token(store, "alice", "lasting-token", None)
    wait(clock, 10)
    assert store.lookup("secret-token") is None
    settled(store)
    assert (raw_database.keys(), revoked, store.has_expired()) == (
        ["bearer_token::lasting-token"],
        [["secret-token"]],
        False,
    )
    clock.now -= HOUR
    store = crash_and_open(store)
    assert [record.token for record in store.records()] == ["lasting-token"]


def test_closing_removes_expired_tokens_from_disk(
    open_store: OpenStore, raw_database: RawDatabase, clock: SimpleNamespace
) -> None:
    """It saves the high-water mark, so that setting the clock back while the worker is down changes nothing."""
    store = open_store()
    revoked: list[object] = []
    store.on_revoked.append(revoked.append)
    store_token(store, "alice", "secret-token", 10)
    wait(clock, 10)
    store.close()
    assert (raw_database.keys(), revoked) == ([], [["secret-token"]])
    clock.now -= HOUR
    assert open_store().lookup("secret-token") is None


def test_a_closing_that_can_not_sweep_closes(
    open_store: OpenStore, raw_database: RawDatabase, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process holds the lock: one line is logged, and the worker ends in time."""
    store = open_store()
    store_token(store, "alice", "secret-token", 10)
    wait(clock, 10)
    with raw_database.connect() as other:
        other.execute("BEGIN EXCLUSIVE")
        store.close()
        other.execute("ROLLBACK")
    (message,) = caplog.messages
    assert message.startswith("expired tokens were not swept: token store busy")
    assert open_store().records() == []


@pytest.fixture
def removals(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Count the removals from disk; each waits until `go` is set, and fails while `error` is.

    `operations` counts what the store's thread does: each time, it first limits the wait for the database's lock.
    """
    seen = SimpleNamespace(count=0, operations=0, go=threading.Event(), error=None)
    seen.go.set()
    remove, limit_wait = TokenDatabase.remove, TokenDatabase.limit_wait

    def limited(database: TokenDatabase, seconds: float) -> None:
        seen.operations += 1
        limit_wait(database, seconds)

    def counted(database: TokenDatabase, *args: object, **options: object) -> None:
        assert seen.go.wait(WAIT_SECONDS)
        seen.count += 1
        if seen.error is not None:
            raise seen.error
        remove(database, *args, **options)

    monkeypatch.setattr(TokenDatabase, "remove", counted)
    monkeypatch.setattr(TokenDatabase, "limit_wait", limited)
    return seen


def test_many_look_ups_schedule_one_sweep_and_wait_for_none(
    open_store: OpenStore, clock: SimpleNamespace, removals: SimpleNamespace
) -> None:
    """Four threads make a thousand look-ups while the first sweep is waiting for the disk."""
    store = open_store()
    for number in range(5):
        store_token(store, "alice", f"t{number}", 10)
    wait(clock, 10)
    removals.go.clear()
    removals.operations = 0

    def look_up(number: int) -> object:
        return store.lookup(f"t{number % 5}")

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(look_up, range(1000))) == {None}
    removals.go.set()
    assert len(settled(store).index) == 0
    # A sweep for each thread that asked at the very same moment, and `settled`.
    assert removals.operations <= 4 + 1
    assert removals.count == 1
    store_token(store, "alice", "another", 10)
    wait(clock, 10)
    removals.operations = 0
    assert store.lookup("another") is None
    assert (len(settled(store).index), removals.operations, removals.count) == (0, 1 + 1, 2)


def test_look_ups_retry_a_failed_sweep_only_later(
    open_store: OpenStore, clock: SimpleNamespace, removals: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """They never raise; the sweep is retried after a pause, and each failure is logged once."""
    store = open_store()
    store_token(store, "alice", "secret-token", 10)
    wait(clock, 10)
    removals.error = TokenStoreBusyError("token store busy, nothing changed")
    for _ in range(5):
        assert store.lookup("secret-token") is None
        settled(store)
    assert removals.count == 1
    wait(clock, SWEEP_AGAIN_SECONDS)
    for _ in range(5):
        assert store.lookup("secret-token") is None
        settled(store)
    assert removals.count == 2
    assert caplog.messages == ["expired tokens were not swept: token store busy, nothing changed"] * 2
    removals.error = None
    wait(clock, SWEEP_AGAIN_SECONDS)
    assert store.lookup("secret-token") is None
    assert not settled(store).has_expired()


def test_a_look_up_during_closing_does_not_raise(tmp_path: Path, clock: SimpleNamespace) -> None:
    """The store's thread ends after the token was found to be expired; the answer is the same."""
    closing: list[Callable[[], object]] = []

    def ticks() -> float:
        while closing:
            closing.pop()()
        return float(clock.ticks)

    with TokenStore(tmp_path / "tokens", clock=lambda: clock.now, ticks=ticks) as store:
        store_token(store, "alice", "secret-token", 10)
        wait(clock, 10)
        closing.append(store.close)
        assert store.lookup("secret-token") is None
        assert not closing


@pytest.mark.parametrize(
    "columns",
    [
        {"value": "soon"},
        {"value": ""},
        {"value": "nan"},
        {"value": "inf"},
        {"value": "-1"},
        {"value": "253370764800"},
        {"value": 1_780_000_000.0},
        {"value": b"1780000000"},
        {"value": None},
        {"tag": None},
        {"mode": 4},
        {"filename": "x.val"},
    ],
    ids=str,
)
def test_an_invalid_high_water_mark_is_ignored(  # noqa: PLR0917  fixtures
    open_store: OpenStore,
    tokens_folder: Path,
    raw_database: RawDatabase,
    clock: SimpleNamespace,
    caplog: pytest.LogCaptureFixture,
    columns: dict[str, object],
) -> None:
    """One line reports it, it doesn't count as a token, and the next write replaces it."""
    open_store().close()
    raw_database.run("DELETE FROM Cache")
    raw_database.plant(**{"key": "latest_time", "tag": "", "value": repr(clock.now), **columns})
    store = open_store()
    assert (store.now(), store.invalid_rows) == (clock.now, 0)
    said = f"ignoring invalid high-water timestamp in token database {tokens_folder}"
    assert caplog.messages == [said]
    caplog.clear()
    wait(clock, 100)
    store_token(store, "alice", "secret-token", None)
    store.close()
    clock.now -= 50
    assert open_store().now() == clock.now + 50
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("back", "said"), [(60.0, None), (61.0, "0:01:01"), (3723.4, "1:02:03"), (YEAR, "365 days, 0:00:00")]
)
def test_a_clock_that_is_behind_is_reported_once(
    open_store: OpenStore, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture, back: float, said: str | None
) -> None:
    """The message says by how much, what that means, and the remedy."""
    open_store().close()
    clock.now -= back
    store = open_store()
    line = (
        f"the clock is {said} behind the latest time that the token database in {store.database.folder} has seen: "
        "tokens expire by the later time, set the clock right"
    )
    assert caplog.messages == ([] if said is None else [line])


def test_a_clock_that_is_ahead_is_not_reported(
    open_store: OpenStore, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """The clock of a worker that was down for a year is ahead, as expected."""
    caplog.set_level(logging.INFO)
    open_store().close()
    clock.now += YEAR
    assert open_store().now() == clock.now
    assert caplog.messages == []
