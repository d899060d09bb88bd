"""`fastmcp tokens sync`: what each worker has afterwards, whatever happened while others were away."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from nfcli.models.environment.fleet_key import FleetKey
from nfcli.models.tokens import BearerTokenRecord
from support.shell.bench import Printed
from support.tokens.fleet import Fleet

RunIn = Callable[[Fleet, str], Printed]
SYNC = "fastmcp tokens sync"
NOTHING = {"stored": 0, "deleted": 0, "kept": 0, "expired": 0}


def changed(**counts: int) -> dict[str, int]:
    """Return the counts of one worker."""
    return NOTHING | counts


def test_a_token_that_was_deleted_while_a_worker_was_away_ends_there(fleet: Fleet, run_in: RunIn) -> None:
    """The deletion wins over the older creation; a second run changes nothing."""
    fleet.create("ann", "t", "w1", "w2", "w3")
    fleet.delete("w1", "w2", token="t")
    status, out, err = run_in(fleet, SYNC)
    assert (status, json.loads(out), err) == (0, {"w1": NOTHING, "w2": NOTHING, "w3": changed(deleted=1)}, "")
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [{}, {}, {}]
    status, out, err = run_in(fleet, SYNC)
    assert (status, set(map(str, json.loads(out).values())), err) == (0, {str(NOTHING)}, "nothing was changed\n")


def test_what_was_created_anywhere_is_everywhere_afterwards(fleet: Fleet, run_in: RunIn) -> None:
    """Nothing is lost: a worker that was away has tokens of its own."""
    fleet.create("ann", "a", "w1", "w2")
    fleet.create("bob", "b", "w3", expire=600)
    fleet.create("bob", "b", "w3", expire=900)
    assert run_in(fleet, SYNC)[0] == 0
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [{"a": "ann", "b": "bob"}] * 3
    assert len(fleet.digests()) == 1
    assert len({str(fleet.store(name).lookup("b")) for name in ("w1", "w2", "w3")}) == 1


def test_names_of_earlier_versions_are_carried_over(fleet: Fleet, run_in: RunIn) -> None:
    """They are refused for new tokens only: one of them doesn't keep the workers apart."""
    old = BearerTokenRecord("old", "bob\u200b", fleet.clock.now, None)
    fleet.store("w1").import_tokens([old], before_commit=None)
    fleet.create("ann", "a", "w1")
    status, _, err = run_in(fleet, SYNC)
    assert (status, err) == (0, "")
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [{"a": "ann", "old": "bob\u200b"}] * 3


def test_a_creation_after_a_deletion_wins(fleet: Fleet, run_in: RunIn) -> None:
    """On whichever worker each was made; also where it was a renewal on a worker that missed the deletion."""
    fleet.create("ann", "again", "w1", "w2")
    fleet.delete("w1", token="again")
    fleet.create("ann", "again", "w1")
    fleet.create("ann", "renewed", "w2", "w3")
    fleet.delete("w2", token="renewed")
    fleet.create("ann", "renewed", "w3", expire=500)
    assert run_in(fleet, SYNC)[0] == 0
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [{"again": "ann", "renewed": "ann"}] * 3
    assert len(fleet.digests()) == 1


def test_a_deleted_user_keeps_no_token_that_only_one_worker_had(fleet: Fleet, run_in: RunIn) -> None:
    """The others had none of it to delete; what the user got since stays."""
    fleet.create("ann", "only-here", "w3")
    fleet.delete("w1", "w2", username="ann")
    fleet.create("ann", "new", "w3")
    fleet.create("bob", "b", "w3")
    assert run_in(fleet, SYNC)[0] == 0
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [{"new": "ann", "b": "bob"}] * 3


def test_a_deleted_token_that_no_reached_worker_had_is_not_spread(fleet: Fleet, run_in: RunIn) -> None:
    """It was deleted where it wasn't stored, and the worker that had it was away."""
    fleet.create("ann", "t", "w3")
    fleet.delete("w1", token="t")
    assert run_in(fleet, SYNC)[0] == 0
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [{}, {}, {}]


def test_a_deletion_reaches_a_third_worker_through_a_second(make_fleet: Callable[..., Fleet], run_in: RunIn) -> None:
    """w1 and w2 agreed, w1 went away, w3 came back: w2 knows of the deletion, though it never had the token."""
    fleet = make_fleet("w1", "w2", "w3")
    fleet.create("ann", "t", "w1", "w3")
    fleet.delete("w1", token="t")
    fleet.failing["w3"] = "away"
    assert run_in(fleet, SYNC)[0] == 1
    del fleet.failing["w3"]
    fleet.failing["w1"] = "away"
    assert run_in(fleet, SYNC)[0] == 1
    assert [fleet.tokens(name) for name in ("w2", "w3")] == [{}, {}]


def test_the_newer_expiry_wins(fleet: Fleet, run_in: RunIn) -> None:
    """Shorter or longer: the last word counts; one that has expired meanwhile doesn't come back elsewhere."""
    fleet.create("ann", "short", "w1", "w2", "w3", expire=900)
    fleet.create("ann", "gone", "w1", "w2", "w3", expire=900)
    fleet.create("ann", "short", "w1", expire=300)
    fleet.create("ann", "gone", "w2", expire=5)
    fleet.clock.now += 10
    fleet.store("w2").sweep()
    assert run_in(fleet, SYNC)[0] == 0
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [{"short": "ann"}] * 3
    assert len({str(fleet.store(name).lookup("short")) for name in ("w1", "w2", "w3")}) == 1


def test_a_token_with_two_users_is_left_to_the_operator(fleet: Fleet, run_in: RunIn) -> None:
    """It is named by its fingerprint, the command fails, and everything else is brought together."""
    fleet.create("ann", "secret-t", "w1")
    fleet.create("bob", "secret-t", "w2")
    fleet.create("zoe", "z", "w2")
    status, _, err = run_in(fleet, SYNC)
    fingerprint = fleet.store("w1").hasher.fingerprint("secret-t")
    assert status == 1
    assert err == (
        f"token {fingerprint} belongs to ann on w1, bob on w2, and was left as it is: delete it with delete-token, and "
        "create another one\n"
    )
    assert fleet.tokens("w1") == {"secret-t": "ann", "z": "zoe"}
    assert fleet.tokens("w2") == {"secret-t": "bob", "z": "zoe"}
    assert fleet.tokens("w3") == {"z": "zoe"}
    fleet.delete("w1", "w2", "w3", token="secret-t")
    assert run_in(fleet, SYNC)[0] == 0
    assert len(fleet.digests()) == 1


@pytest.mark.parametrize("words", ["from w1 to w3", "to w3 from w1", "from w1 to w3 timeout 30"])
def test_from_and_to_name_who_gives_and_who_is_changed(fleet: Fleet, run_in: RunIn, words: str) -> None:
    """What only the target has stays; the others are not asked."""
    fleet.create("ann", "a", "w1")
    fleet.create("bob", "b", "w2")
    fleet.create("zoe", "z", "w3")
    fleet.calls.clear()
    status, out, _ = run_in(fleet, f"{SYNC} {words}")
    assert (status, json.loads(out)) == (0, {"w3": changed(stored=1)})
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [
        {"a": "ann"},
        {"b": "bob"},
        {"a": "ann", "z": "zoe"},
    ]
    assert "w2" not in {name for _, name in fleet.calls}


def test_a_source_does_not_bring_back_what_its_target_deleted(fleet: Fleet, run_in: RunIn) -> None:
    """Neither a token nor those of a user; there is nothing to do, and the source isn't changed."""
    fleet.create("ann", "a", "w1")
    fleet.create("bob", "b", "w1")
    fleet.delete("w3", token="a")
    fleet.delete("w3", username="bob")
    status, out, err = run_in(fleet, f"{SYNC} from w1 to w3")
    assert (status, json.loads(out), err) == (0, {"w3": NOTHING}, "nothing was changed\n")
    assert (fleet.tokens("w1"), fleet.tokens("w3")) == ({"a": "ann", "b": "bob"}, {})


def test_from_alone_changes_all_others(fleet: Fleet, run_in: RunIn) -> None:
    """And not the source."""
    fleet.create("ann", "a", "w1")
    fleet.create("bob", "b", "w2")
    status, out, _ = run_in(fleet, f"{SYNC} from w1")
    assert (status, json.loads(out)) == (0, {"w2": changed(stored=1), "w3": changed(stored=1)})
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [{"a": "ann"}, {"a": "ann", "b": "bob"}, {"a": "ann"}]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("from w1 to w1", "from and to name the same worker, w1: name another one"),
        ("from all", "sync: from: must be names separated by commas, not all or any"),
        ("to any", "sync: to: must be names separated by commas, not all or any"),
        ("from w1,,w2", "sync: from: must be all, any, or names separated by commas"),
    ],
)
def test_wrong_names_are_refused(fleet: Fleet, run_in: RunIn, words: str, line: str) -> None:
    """One line; no worker is asked."""
    status, out, err = run_in(fleet, f"{SYNC} {words}")
    assert (status, out, line in err, err.count("\n")) == (2, "", True, 1), err
    assert fleet.calls == []


@pytest.mark.parametrize("words", ["from w9", "to w9", "to w1,w9", "from w9 to w1", "from w1 to w9"])
def test_a_worker_that_does_not_exist_is_refused(fleet: Fleet, run_in: RunIn, words: str) -> None:
    """As in every other command: nothing is sent, also not to the workers that there are."""
    fleet.create("ann", "a", "w1")
    fleet.calls.clear()
    assert run_in(fleet, f"{SYNC} {words}") == (3, "", "unknown worker 'w9': there is w1, w2, w3\n")
    assert fleet.calls == []


@pytest.mark.parametrize("change", ["created", "renewed", "deleted"])
def test_what_is_changed_while_it_runs_is_kept(fleet: Fleet, run_in: RunIn, change: str) -> None:
    """And becomes part of the outcome in the next round."""
    fleet.create("ann", "t", *(["w1"] if change == "created" else ["w1", "w2", "w3"]))
    fleet.create("ann", "t", "w1", expire=500)
    changes = {
        "created": lambda: fleet.create("ann", "t", "w2", expire=9_000),
        "renewed": lambda: fleet.create("ann", "t", "w2", expire=9_000),
        "deleted": lambda: fleet.delete("w2", token="t"),
    }

    def between_comparison_and_write(task: str, _worker: str) -> None:
        if task == "bearer_token_merge":
            fleet.before = lambda _task, _worker: None
            changes[change]()

    fleet.before = between_comparison_and_write
    assert run_in(fleet, SYNC)[0] == 0
    record = fleet.store("w2").lookup("t")
    assert len(fleet.digests()) == 1
    if change == "deleted":
        assert record is None
    else:
        assert record is not None
        assert record.expires == pytest.approx(fleet.clock.now + 9_000)


def test_an_interrupted_run_is_completed_by_the_next_one(fleet: Fleet, run_in: RunIn) -> None:
    """Ctrl-C at every job in turn."""
    for number in range(5):
        fleet.create("ann", f"t{number}", f"w{number % 3 + 1}")
    fleet.create("bob", "b", "w1", "w2")
    fleet.delete("w2", token="b")
    jobs = 0

    def interrupt(_task: str, _worker: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    fleet.before = interrupt
    while True:
        jobs += 1
        left = jobs
        try:
            assert run_in(fleet, SYNC)[0] == 0
        except KeyboardInterrupt:
            continue
        break
    assert jobs > 5
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [{f"t{number}": "ann" for number in range(5)}] * 3


def test_a_worker_that_fails_is_named_and_the_others_agree(fleet: Fleet, run_in: RunIn) -> None:
    """Also one of another program, which has no such task, and one that goes while it runs."""
    fleet.create("ann", "a", "w1")
    fleet.failing["w3"] = "no task 'bearer_token_compare'"
    status, out, err = run_in(fleet, SYNC)
    assert (status, json.loads(out)) == (1, {"w1": NOTHING, "w2": changed(stored=1)})
    assert err == "w3: its tokens are unknown: it sends no digest of them, as an older nfcli or another program\n"
    del fleet.failing["w3"]
    fleet.create("bob", "b", "w2")

    def lose(task: str, worker: str) -> None:
        if (task, worker) == ("bearer_token_merge", "w1"):
            fleet.failing["w3"] = "gone"

    fleet.before = lose
    status, _, err = run_in(fleet, SYNC)
    assert (status, err) == (1, "w3: its tokens are unknown: no worker answers of w3\n")
    assert fleet.tokens("w1") == fleet.tokens("w2") == {"a": "ann", "b": "bob"}


def test_workers_with_different_fleet_keys_are_not_changed(make_fleet: Callable[..., Fleet], run_in: RunIn) -> None:
    """Their hashes say nothing about each other."""
    other = FleetKey(bytes(32))
    fleet = make_fleet("w1", "w2", keys={"w2": other})
    fleet.create("ann", "a", "w1")
    status, out, err = run_in(fleet, SYNC)
    key = fleet.store("w1").hasher.key_id
    assert (status, out) == (1, "")
    sides = "; ".join(f"{name}: {key}" for key, name in sorted({key: "w1", other.id: "w2"}.items()))
    assert err == (
        f"tokens are not comparable, nothing changed: the fleet keys differ ({sides}): give all workers one key, see "
        "man page security\n"
    )
    assert fleet.tokens("w2") == {}


def test_a_deletion_by_a_worker_whose_clock_is_behind_still_wins(fleet: Fleet, run_in: RunIn) -> None:
    """It deleted the token that it had, so it is later than that, whatever its clock says."""
    fleet.create("ann", "t", "w1", "w2", "w3")
    fleet.clock.now += 300
    fleet.create("ann", "t", "w1", "w2", expire=9_000)
    assert run_in(fleet, SYNC)[0] == 0
    fleet.store("w3").now = lambda: fleet.clock.now - 300  # type: ignore[method-assign]
    fleet.delete("w3", token="t")
    assert run_in(fleet, SYNC)[0] == 0
    assert [fleet.tokens(name) for name in ("w1", "w2", "w3")] == [{}, {}, {}]


def test_every_change_has_its_line_in_the_audit_trail(fleet: Fleet, run_in: RunIn) -> None:
    """A line for each user and worker, and one for each reading of tokens; none has a token."""
    fleet.create("ann", "secret-a", "w1")
    fleet.create("bob", "secret-b", "w1", "w3")
    fleet.delete("w1", token="secret-b")
    before = {name: len(worker.audit.entries(1_000)) for name, worker in fleet.workers.items()}
    assert run_in(fleet, SYNC)[0] == 0
    lines = {
        name: [(line.operation, line.username, line.outcome) for line in worker.audit.entries(1_000)[before[name] :]]
        for name, worker in fleet.workers.items()
    }
    assert lines == {
        "w1": [("list", None, "done")] * 2,
        "w2": [("sync", "ann", "done")],
        "w3": [("delete", "bob", "done"), ("sync", "ann", "done")],
    }
    for name, worker in fleet.workers.items():
        assert "secret" not in worker.environment.audit_file(name).read_text()


def test_large_sets_go_in_pieces(make_fleet: Callable[..., Fleet], run_in: RunIn) -> None:
    """No message has more than a hundred tokens."""
    fleet = make_fleet("w1", "w2")
    for number in range(250):
        fleet.create("ann", f"t{number}", "w1")
    fleet.calls.clear()
    status, out, _ = run_in(fleet, SYNC)
    assert (status, json.loads(out)["w2"]) == (0, changed(stored=250))
    assert fleet.calls.count(("bearer_token_merge", "w2")) == fleet.calls.count(("bearer_token_read", "w1")) == 3
    assert len(fleet.digests()) == 1
