"""The client in fabric mode against a scripted broker: targets, results, answers of the wrong shape."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol.broker_presence import Timeouts
from nfcli.models.protocol.jobs import OUTCOME_UNKNOWN
from nfcli.shell.client.client import Client
from nfcli.shell.transport.broker import TIMEOUTS
from support.fabric.fake_broker import (
    GET,
    NO_ANSWER,
    POST,
    RESPONSE,
    FakeBroker,
    Site,
    done,
    event,
    frames,
    result,
    run,
    running,
    unknown,
)

pytestmark = pytest.mark.slow

# Asks again after a moment, so that no test waits long for the answer.
hasty = pytest.mark.parametrize("timeouts", [Timeouts(poll=0.05, silence=0.1)], ids=["hasty"], indirect=True)
# Asks no worker that hasn't reported its result ready.
patient = pytest.mark.parametrize("timeouts", [Timeouts(poll=60.0, silence=60.0)], ids=["patient"], indirect=True)


@pytest.fixture
def broker() -> Iterator[Any]:
    """Run a broker with the workers `w1`, `w2` and, of another service, `n1`."""
    broker = FakeBroker({"w1": "fastmcp", "w2": "fastmcp", "n1": "nornir"})
    yield broker
    broker.stop()


@pytest.fixture
def site(tmp_path: Path, broker: Any) -> Any:
    """Return an environment of that broker without workers of its own."""
    return Site(tmp_path, broker)


@pytest.fixture
def timeouts(request: pytest.FixtureRequest) -> Timeouts:
    """Return how long clients wait: the default, or what the test's mark sets."""
    return getattr(request, "param", TIMEOUTS)


@pytest.fixture
def client(site: Site, timeouts: Timeouts) -> Iterator[Client]:
    """Return a client of that environment."""
    with site.client(timeouts=timeouts) as client:
        yield client


def commands(broker: Any) -> list[bytes]:
    """Return the commands that the broker has received."""
    return [ask.command for ask in broker.asked]


@patient
@pytest.mark.parametrize("is_pushing", [True, False])
@pytest.mark.parametrize(
    ("workers", "answered"),
    [("all", ["w1", "w2"]), ("w2", ["w2"]), (["w2", "w1"], ["w1", "w2"]), (["w1", "w1"], ["w1"])],
)
def test_the_targeted_workers_answer(
    broker: Any,
    client: Client,
    workers: Any,
    answered: list[str],
    is_pushing: bool,
) -> None:
    """One POST goes to all of them; results are pushed or fetched at once."""
    broker.is_pushing = is_pushing
    assert run(client, workers) == {name: name for name in answered}
    assert [ask.names for ask in broker.asked if ask.command == POST] == [answered]


def test_any_prefers_workers_that_are_alive_and_tries_the_next(broker: Any, client: Client) -> None:
    """Dead ones come last; one that the broker has dropped is replaced."""
    broker.statuses["w1"] = "dead"
    assert [run(client, "any") for _ in range(8)] == [{"w2": "w2"}] * 8
    broker.statuses = {}
    broker.on_ask = lambda ask: [broker.refused(ask)] if ask.names == ["w1"] else None
    assert [run(client, "any") for _ in range(8)] == [{"w2": "w2"}] * 8


@pytest.mark.parametrize(
    ("service", "workers", "message"),
    [
        ("nosuch", "all", "no worker serves 'nosuch': the broker has fastmcp, nornir"),
        ("fastmcp", "n1", "unknown worker 'n1': there is w1, w2"),
        ("fastmcp", ["w1", "x", "y"], "unknown worker 'x', 'y': there is w1, w2"),
        ("fastmcp", [], "the list of workers is empty: name at least one, or use all"),
    ],
)
def test_unknown_targets_are_refused_before_anything_is_sent(
    broker: Any, client: Client, service: str, workers: Any, message: str
) -> None:
    """The broker would forward the job to any worker that is named, of whatever service."""
    with pytest.raises(NoWorkersError) as caught:
        run(client, workers, service=service)
    assert (str(caught.value), broker.asked) == (message, [])


def test_a_worker_of_this_machine_that_is_not_registered_is_named(tmp_path: Path, broker: Any) -> None:
    """It is a target, so it has a failed result; the others' results arrive."""
    line = "worker w9 "
    with Site(tmp_path, broker, "w9").client() as client:
        results = run(client)
        status, (error,) = results.pop("w9")
        assert (results, status, error.startswith(line)) == ({"w1": "w1", "w2": "w2"}, "error", True)
        with pytest.raises(NoWorkersError, match=f"^{line}"):
            run(client, "w9")


def test_a_worker_that_registered_for_another_service_gets_no_job(tmp_path: Path, broker: Any) -> None:
    """The broker would forward it; the worker that is expected under this name is missing."""
    broker.workers["w9"] = "nornir"
    with Site(tmp_path, broker, "w9").client() as client:
        assert [name for name, value in run(client).items() if value == name] == ["w1", "w2"]
        with pytest.raises(NoWorkersError, match=r"^worker w9 of topology\.workers is not registered"):
            run(client, "w9")
    assert [ask.names for ask in broker.asked] == [["w1", "w2"]]


def test_the_broker_s_inventory_decides_the_service_of_a_worker(tmp_path: Path, broker: Any) -> None:
    """It is requested once for each unregistered worker; without a service there, ours is assumed."""
    broker.inventories = {"r1": {"service": "fastmcp"}, "r2": {"service": "nornir"}, "r4": ["?"], "w1": {}}
    with Site(tmp_path, broker, workers=["r1", "r2", "r3", "r4", "w1"]).client() as client:
        assert [client.worker_names("fastmcp"), client.worker_names()] == [
            ["r1", "r3", "r4", "w1", "w2"],
            ["n1", "r1", "r2", "r3", "r4", "w1", "w2"],
        ]
    assert broker.questions.count("get_inventory") == 4


def test_a_post_has_the_shape_that_norfab_expects(broker: Any, client: Client) -> None:
    """Target, uuid and data; nfcli's own keys stand behind NorFab's."""
    started = time.time()
    client.run_job("fastmcp", "echo", uuid="u-1", kwargs={"a": "ö"}, timeout=7)
    *frames, data = broker.asked[0]
    assert frames == [POST, "fastmcp", '["w1","w2"]', "u-1"]
    assert list(data.items())[:4] == [("task", "echo"), ("kwargs", {"a": "ö"}), ("args", []), ("timeout", 7)]
    assert started + 7 <= data["deadline"] + 0.001 < started + 9
    assert list(data)[-2:] == ["signed", "signature"]


def test_one_message_may_hold_results_of_several_workers(broker: Any, client: Client) -> None:
    """Those of workers that are not targets are ignored."""
    joint = {"w1": result(1), "w2": result(2), "n1": result(3), "": result(4)}
    broker.on_ask = lambda ask: [broker.dispatched(ask, ask.names), done(ask, joint)]
    assert run(client) == {"w1": 1, "w2": 2}
    assert run(client, "w2") == {"w2": 2}


@pytest.mark.parametrize("data", [1, "x", None, [], {}, {"failed": "no"}, {"failed": True, "errors": "x"}])
def test_a_result_of_the_wrong_shape_is_one_line_for_its_worker(broker: Any, client: Client, data: Any) -> None:
    """The other worker's result is unaffected."""
    broker.on_ask = lambda ask: [broker.dispatched(ask, ask.names), done(ask, {"w1": data, "w2": result(2)})]
    assert run(client) == {"w1": ("error", ["the worker's answer is not a result"]), "w2": 2}


@pytest.mark.parametrize("data", [b"not json", b"\xff", [1], 5])
def test_an_answer_that_is_not_a_mapping_fails_the_only_missing_worker(broker: Any, client: Client, data: Any) -> None:
    """It names no worker; if several were missing, it could be from any of them."""
    broker.on_ask = lambda ask: [broker.dispatched(ask, ask.names), done(ask, data)]
    assert run(client, "w1") == {"w1": ("error", ["the worker's answer is not a result"])}


def test_noise_is_skipped(broker: Any, client: Client) -> None:
    """Garbage, other jobs' messages, duplicates, unknown statuses, workers that are not targets."""

    def noisy(ask: Any) -> list[Any]:
        data = {"worker": "n1", "error": "no"}
        other = ask._replace(uuid="another")
        return [
            *(
                [b"garbage"],
                [b"", b"NFPB01", RESPONSE],
                frames(b"0x05", ask.uuid, "999", {}),
                frames(b"0x09", "x", "200", b""),
            ),
            *(
                done(other, {"w1": result("foreign")}),
                broker.refused(other),
                frames(RESPONSE, ask.uuid, "202", {"workers": 5}),
            ),
            *(broker.dispatched(ask, ask.names), broker.dispatched(ask, ask.names), broker.refused(ask)),
            *(
                frames(RESPONSE, ask.uuid, "500", data),
                frames(RESPONSE, ask.uuid, "500", [1]),
                frames(RESPONSE, ask.uuid, "500", {}),
            ),
            *(
                unknown(ask, "n1"),
                running(ask, "w1"),
                event(ask, "n1", "hello"),
                event(ask, "n1", "", kind="result_ready"),
            ),
            *(done(ask, b"not json"), done(ask, [1]), done(ask, {}), done(ask, {"w3": 1})),
            *(done(ask, {"w1": result(1)}), done(ask, {"w1": result("late")}), done(ask, {"w2": result(2)})),
        ]

    broker.on_ask = noisy
    assert run(client) == {"w1": 1, "w2": 2}
    assert (run(client), commands(broker)) == ({"w1": 1, "w2": 2}, [POST, POST])


@pytest.mark.parametrize(
    ("data", "line"),
    [({"worker": "w1", "error": "kaboom"}, "kaboom"), ({"error": "nameless"}, "nameless"), ({}, "status 500")],
)
def test_an_error_status_of_a_worker_fails_that_worker(broker: Any, client: Client, data: Any, line: str) -> None:
    """NorFab's client fails the whole job."""
    broker.on_ask = lambda ask: [broker.dispatched(ask, ask.names), frames(RESPONSE, ask.uuid, "500", data)]
    assert run(client, "w1") == {"w1": ("error", [line])}


def test_progress_of_targeted_workers_is_reported(broker: Any, site: Any, client: Client) -> None:
    """But not the automatic messages of every job, and none of other workers."""
    said = [("w1", "starting"), ("w1", "half way"), ("n1", "psst"), ("w2", "at it"), ("w2", "")]
    broker.on_ask = lambda ask: [
        broker.dispatched(ask, ask.names),
        *(event(ask, name, text) for name, text in said),
        done(ask, {"w1": result(1), "w2": result(2)}),
    ]
    assert run(client) == {"w1": 1, "w2": 2}
    assert site.progress == [("w1", "half way"), ("w2", "at it")]


@hasty
def test_a_result_whose_event_was_lost_is_fetched(broker: Any, client: Client) -> None:
    """The client polls the missing workers until it arrives."""
    states = iter([running, running])

    def slow(ask: Any) -> list[Any] | None:
        if ask.command == POST:
            return [*broker.usual(ask)[:1], done(ask, {"w1": result(1)})]
        assert ask.names == ["w2"]
        answer = next(states, None)
        return None if answer is None else [broker.dispatched(ask, ask.names), answer(ask, "w2")]

    broker.on_ask = slow
    assert run(client) == {"w1": 1, "w2": "w2"}
    assert commands(broker) == [POST, GET, GET, GET]


@hasty
def test_a_lost_202_costs_no_result(broker: Any, client: Client) -> None:
    """And causes no second POST."""
    broker.on_ask = lambda ask: broker.usual(ask)[:0] if ask.command == POST else None
    assert run(client, "w1") == {"w1": "w1"}
    assert commands(broker) == [POST, GET]


@hasty
@pytest.mark.parametrize("is_alone", [True, False])
def test_a_worker_that_the_broker_drops_has_a_failed_result(broker: Any, client: Client, is_alone: bool) -> None:
    """The GET is answered with 400, or with a 202 that doesn't name it."""

    def purged(ask: Any) -> list[Any] | None:
        if ask.command == POST:
            return [broker.dispatched(ask, ask.names)]
        others = [name for name in ask.names if name != "w1"]
        return [broker.dispatched(ask, others), done(ask, {"w2": result(2)})] if others else [broker.refused(ask)]

    broker.on_ask = purged
    results = run(client, "w1" if is_alone else "all")
    status, (line,) = results.pop("w1")
    assert (status, line.startswith("worker w1 ")) == ("error", True)
    assert results == ({} if is_alone else {"w2": 2})
    assert commands(broker) == [POST, GET]


@hasty
def test_a_worker_that_twice_does_not_know_the_job_has_a_failed_result(broker: Any, client: Client) -> None:
    """The first GET may have overtaken the POST."""

    def restarted(ask: Any) -> list[Any]:
        answers = [] if ask.command == POST else [unknown(ask, "w1"), unknown(ask, "w1")]
        return [broker.dispatched(ask, ask.names), *answers]

    broker.on_ask = restarted
    ((status, (line,)),) = run(client, "w1").values()
    assert (status, line.startswith("worker w1 doesn't know the job")) == ("error", True)
    assert commands(broker) == [POST, GET, GET]


def test_a_missing_answer_is_a_timeout_and_a_late_one_is_ignored(broker: Any, client: Client) -> None:
    """The whole job has one deadline."""
    first: list[Any] = []

    def late(ask: Any) -> list[Any]:
        replies = [broker.dispatched(ask, ask.names), *(done(each, {"w1": result("late")}) for each in first)]
        first.append(ask)
        return replies if len(first) == 1 else [*replies, done(ask, {"w1": result("good")})]

    broker.on_ask = late
    ((status, (error,)),) = run(client, "w1", timeout=0.2).values()
    assert (status, error.startswith(f"no answer within 0.2 s, {OUTCOME_UNKNOWN}: ")) == ("timeout", True)
    assert run(client, "w1") == {"w1": "good"}


def test_an_inventory_that_is_not_available_is_not_requested_again(tmp_path: Path, broker: Any) -> None:
    """It delays jobs only once; the worker has a failed result, since it is a target."""
    broker.on_question = lambda task: NO_ANSWER if task == "get_inventory" else None
    with Site(tmp_path, broker, workers=["r1"]).client() as client:
        for _ in range(2):
            results = run(client)
            assert results.pop("r1")[0] == "error"
            assert results == {"w1": "w1", "w2": "w2"}
        assert [row["name"] for row in client.show_workers()] == ["n1", "r1", "w1", "w2"]
    assert broker.questions.count("get_inventory") == 1
