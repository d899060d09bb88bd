"""`show fastmcp tokens diff` and the notes of `show fastmcp status`: which workers differ, and in what."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from nfcli.models.environment.fleet_key import FleetKey
from nfcli.models.tasks.token_sync import compare_digests
from support.shell.bench import Printed
from support.tokens.fleet import Fleet

RunIn = Callable[[Fleet, str], Printed]
DIFF = "show fastmcp tokens diff"


def test_each_difference_is_named_by_fingerprint_and_user(fleet: Fleet, run_in: RunIn) -> None:
    """Missing, deleted, expiry and conflict; what all have alike is left out, and no token is shown."""
    fleet.create("ann", "secret-same", "w1", "w2", "w3")
    fleet.create("ann", "secret-missing", "w1", "w2")
    fleet.create("ann", "secret-deleted", "w1", "w2", "w3")
    fleet.delete("w3", token="secret-deleted")
    fleet.create("bob", "secret-expiry", "w1", "w2", "w3")
    fleet.create("bob", "secret-expiry", "w2", expire=500)
    fleet.create("ann", "secret-conflict", "w1")
    fleet.create("bob", "secret-conflict", "w2")
    status, out, err = run_in(fleet, f"{DIFF} | json")
    rows = {row["fingerprint"]: row for row in json.loads(out)}
    found = {
        name: rows.pop(fleet.store("w1").hasher.fingerprint(f"secret-{name}"))
        for name in ("missing", "deleted", "expiry", "conflict")
    }
    assert rows == {}
    assert [(row["username"], row["difference"], row["on"], row["not on"]) for row in found.values()] == [
        ("ann", "missing", ["w1", "w2"], ["w3"]),
        ("ann", "deleted", ["w1", "w2"], ["w3"]),
        ("bob", "expiry", ["w1", "w2", "w3"], []),
        ("ann, bob", "conflict", ["w1", "w2"], ["w3"]),
    ]
    assert found["deleted"]["note"].startswith("deleted on w3 at 20")
    assert found["expiry"]["note"].startswith("expires never on w1; 20")
    assert found["conflict"]["note"] == "ann on w1; bob on w2"
    assert (status, err) == (
        1,
        "the tokens of w1, w2, w3 differ: bring them together with fastmcp tokens sync\n",
    )
    assert "secret" not in out + err


def test_equal_workers_have_no_differences(fleet: Fleet, run_in: RunIn) -> None:
    """A deletion that one of them has missed makes no difference, nor does the order; the exit status is 0."""
    fleet.create("ann", "a", "w1", "w2", "w3")
    fleet.delete("w1", token="never-stored")
    status, out, err = run_in(fleet, DIFF)
    assert (status, out.split(), err) == (
        0,
        ["fingerprint", "username", "difference", "on", "not", "on", "note"],
        "the tokens of w1, w2, w3 are the same\n",
    )


def test_expired_tokens_make_no_difference(fleet: Fleet, run_in: RunIn) -> None:
    """Swept on one worker and not yet on another."""
    fleet.create("ann", "t", "w1", "w2", "w3", expire=5)
    fleet.clock.now += 5
    fleet.store("w1").sweep()
    assert run_in(fleet, DIFF)[0] == 0
    assert fleet.digests() == {0}


def test_workers_can_be_chosen(fleet: Fleet, run_in: RunIn) -> None:
    """The others are not asked; one alone has nothing to be compared with."""
    fleet.create("ann", "a", "w1", "w2")
    assert run_in(fleet, f"{DIFF} workers w1,w2")[0] == 0
    status, _, err = run_in(fleet, f"{DIFF} workers w3")
    assert (status, err) == (0, "nothing to compare: w3 is the only worker asked\n")


def test_a_worker_without_digest_is_unknown(fleet: Fleet, run_in: RunIn) -> None:
    """An older nfcli or another program; the others are compared."""
    fleet.failing["w3"] = "no task 'bearer_token_compare'"
    fleet.create("ann", "a", "w1", "w2")
    status, _, err = run_in(fleet, DIFF)
    assert (status, err.splitlines()) == (
        1,
        [
            "w3: its tokens are unknown: it sends no digest of them, as an older nfcli or another program",
            "the tokens of w1, w2 are the same",
        ],
    )


def test_workers_with_different_fleet_keys_are_not_comparable(make_fleet: Callable[..., Fleet], run_in: RunIn) -> None:
    """Rather than different."""
    fleet = make_fleet("w1", "w2", keys={"w2": FleetKey(bytes(32))})
    fleet.create("ann", "a", "w1", "w2")
    status, out, err = run_in(fleet, DIFF)
    assert (status, out, "are not comparable" in err, "differ:" in err) == (1, "", True, False)


def status(digest: object, key: object = "aaaaaaaa", tokens: int = 1) -> dict[str, Any]:
    """Return the part of a worker's status that says which tokens it has."""
    return {"fleet_key": key, "tokens_digest": digest, "tokens_count": tokens}


@pytest.mark.parametrize(
    ("reports", "differences", "unknown"),
    [
        ({}, [], []),
        ({"w1": {}}, [], []),
        ({"w1": status("1"), "w2": status("1")}, [], []),
        (
            {"w1": status("1"), "w2": status("2", tokens=5), "w3": status("1")},
            ["tokens differ (w1, w3: 1; w2: 5): see show fastmcp tokens diff"],
            [],
        ),
        (
            {"w1": status("1"), "w2": status("1", key="bbbbbbbb")},
            ["tokens are not comparable, the fleet keys differ (w1: aaaaaaaa; w2: bbbbbbbb): see man page security"],
            [],
        ),
        (
            {"w1": status("1"), "w2": {"name": "w2"}, "w3": "text", "w4": status(None)},
            [],
            ["tokens unknown: no digest from w2, w3, w4, an older nfcli or another program"],
        ),
    ],
)
def test_the_digests_of_a_status_are_compared(
    reports: dict[str, Any], differences: list[str], unknown: list[str]
) -> None:
    """Equal, different, with different keys, and of a program that sends none."""
    assert compare_digests(reports) == (differences, unknown)


def test_the_status_says_which_workers_differ(fleet: Fleet, run_in: RunIn) -> None:
    """In a line after the result; the exit status is that of the command."""
    fleet.create("ann", "a", "w1", "w3")
    code, out, err = run_in(fleet, "show fastmcp status")
    assert (code, len(json.loads(out))) == (0, 3)
    assert err == "tokens differ (w1, w3: 1; w2: 0): see show fastmcp tokens diff\n"
    fleet.create("ann", "a", "w2")
    assert run_in(fleet, "fastmcp tokens sync")[0] == 0
    assert run_in(fleet, "show fastmcp status")[2] == ""
