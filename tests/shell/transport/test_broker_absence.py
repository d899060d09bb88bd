"""The client in fabric mode with a broker that is away, before a job or during it, for a while or for ever."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.worker_lock import WorkerLock
from nfcli.models.errors import NfcliError, NoWorkersError
from nfcli.models.protocol.broker_connection import BrokerConnection
from nfcli.models.protocol.broker_presence import Timeouts
from nfcli.shell.client.client import Client
from nfcli.shell.transport.broker import TIMEOUTS
from support.fabric.fake_broker import GET, POST, WAIT_SECONDS, FakeBroker, Site, done, result, run

pytestmark = pytest.mark.slow

# Every wait is short, but for the one within which a broker must be back.
QUICK = Timeouts(poll=0.05, answer=0.3, silence=0.1)


@pytest.fixture
def broker() -> Iterator[Any]:
    """Run a broker with one worker."""
    broker = FakeBroker()
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


def waits(**changes: float) -> pytest.MarkDecorator:
    """Return the mark of a test whose client waits as `QUICK` says, but for these changes."""
    return pytest.mark.parametrize("timeouts", [replace(QUICK, **changes)], ids=["quick"], indirect=True)


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Run `work` in a thread beside the block."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


def refusal(client: Client, **options: Any) -> str:
    """Return the message of the NoWorkersError that a job raises."""
    with pytest.raises(NoWorkersError) as caught:
        run(client, **options)
    return str(caught.value)


def test_a_missing_broker_is_reported_within_three_seconds(broker: Any, client: Client) -> None:
    """With the remedy; and a broker that is started afterwards is found."""
    broker.stop()
    began = time.monotonic()
    assert refusal(client) == f"no broker answered at {broker.endpoint} within 2.5 s: start it, or correct endpoint"
    assert time.monotonic() - began < 3
    broker.start()
    assert run(client) == {"w1": "w1"}


def test_a_wrong_key_is_reported(tmp_path: Path, broker: Any) -> None:
    """The message names its source."""
    stranger = FakeBroker()
    stranger.stop()
    with Site(tmp_path, broker, about={"shared_key": stranger.public.decode()}).client(timeouts=QUICK) as client:
        line = f"the handshake with the broker at {broker.endpoint} fails: the key of broker.shared_key is not its key"
        assert refusal(client) == line


def test_a_side_without_curve_is_reported(tmp_path: Path, broker: Any) -> None:
    """Be it the client or the broker; without CURVE on both, jobs run."""
    with Site(tmp_path, broker, about={"zmq_auth": False}).client(timeouts=QUICK) as client:
        assert refusal(client).endswith("it uses CURVE, but zmq_auth is false here")
    plain = FakeBroker(uses_curve=False)
    try:
        with Site(tmp_path, plain).client(timeouts=QUICK) as client:
            assert refusal(client).startswith(f"the handshake with the broker at {plain.endpoint} fails: ")
        with Site(tmp_path, plain, about={"zmq_auth": False}).client(timeouts=QUICK) as client:
            assert run(client) == {"w1": "w1"}
            assert client.describe()["broker_key"] == "none: zmq_auth is false"
    finally:
        plain.stop()


@waits()
def test_a_silent_broker_is_reported_before_a_job_is_sent(broker: Any, client: Client) -> None:
    """Its connection is established, its process hangs."""
    run(client)
    broker.is_silent = True
    for timeout in (0.3, 0.05):
        assert refusal(client, timeout=timeout).startswith(f"the broker at {broker.endpoint} doesn't answer: ")
    assert len(broker.asked) == 1
    broker.is_silent = False
    assert run(client) == {"w1": "w1"}


def test_a_process_that_only_listens_is_reported(tmp_path: Path, broker: Any) -> None:
    """It accepts the connection and sends nothing."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        endpoint = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with Site(tmp_path, broker, about={"endpoint": endpoint}).client(timeouts=QUICK) as client:
            assert refusal(client) == (
                f"the broker at {endpoint} accepts connections but doesn't answer within 0.3 s: check its log"
            )


def test_a_broker_restarted_between_two_jobs_is_found_again(broker: Any, client: Client) -> None:
    """Over a new connection."""
    assert run(client) == {"w1": "w1"}
    broker.stop()
    broker.start()
    assert run(client) == {"w1": "w1"}


def test_a_broker_restarted_during_a_request_is_found_again(broker: Any, site: Site) -> None:
    """The connection breaks after it was found usable."""
    requests: list[str] = []

    class Connection(BrokerConnection):
        def request(self, task: str, **options: Any) -> Any:
            requests.append(task)
            if len(requests) == 2:
                broker.stop()
                broker.start()
                self.connect_deadline = 0.0
            return super().request(task, **options)

    with site.client(connect=Connection) as client:
        assert [run(client), run(client)] == [{"w1": "w1"}] * 2
    assert requests == ["show_workers"] * 3


@waits()
def test_a_job_outlives_a_restart_of_its_broker(broker: Any, site: Any, client: Client) -> None:
    """The user is notified, workers have time to register again, and nothing is sent twice."""
    broker.on_ask = lambda ask: [broker.dispatched(ask, ask.names)] if ask.command == POST else None

    def restart() -> None:
        ask = broker.heard.get(timeout=WAIT_SECONDS)
        broker.stop()
        broker.workers, broker.jobs = {}, {"w1": {ask.uuid: result("good")}}
        broker.start()
        while broker.heard.get(timeout=WAIT_SECONDS).command != GET:
            pass
        broker.heard.get(timeout=WAIT_SECONDS)  # was refused once by then
        broker.workers = {"w1": "fastmcp"}

    with beside(restart):
        assert run(client) == {"w1": "good"}
    at = f"the broker at {broker.endpoint}"
    assert site.notices == [f"{at} has gone away: waiting for it, up to 20 s", f"{at} is back"]
    assert [ask.command for ask in broker.asked].count(POST) == 1


@waits()
def test_a_job_outlives_a_broker_that_falls_silent(broker: Any, site: Any, client: Client) -> None:
    """The user is notified; when it answers again, the result is fetched."""
    broker.on_ask = lambda ask: [broker.dispatched(ask, ask.names)] if ask.command == POST else None

    def freeze() -> None:
        ask = broker.heard.get(timeout=WAIT_SECONDS)
        broker.is_silent = True
        assert site.notified.wait(WAIT_SECONDS)
        broker.jobs = {"w1": {ask.uuid: result("good")}}
        broker.is_silent = False

    with beside(freeze):
        assert run(client) == {"w1": "good"}
    at = f"the broker at {broker.endpoint}"
    assert site.notices == [f"{at} doesn't answer: waiting for it, up to 20 s", f"{at} is back"]
    assert [ask.command for ask in broker.asked].count(POST) == 1


@waits(comeback=0.3)
@pytest.mark.parametrize("how", ["has gone away", "doesn't answer"])
def test_a_broker_that_stays_away_fails_the_missing_workers(broker: Any, client: Client, how: str) -> None:
    """Long before the job's deadline; results that have arrived are kept."""
    broker.workers["w2"] = "fastmcp"
    broker.on_ask = lambda ask: (
        [broker.dispatched(ask, ask.names), done(ask, {"w2": result(2)})] if ask.command == POST else []
    )

    def end() -> None:
        broker.heard.get(timeout=WAIT_SECONDS)
        if how == "has gone away":
            while broker.heard.get(timeout=WAIT_SECONDS).command != GET:  # the 202 has arrived
                pass
            broker.stop()

    with beside(end):
        results = run(client)
    status, (line,) = results.pop("w1")
    assert (status, line.startswith(f"the broker at {broker.endpoint} {how}")) == ("error", True)
    assert results == {"w2": 2}


@waits(comeback=0.3, poll=60.0)
def test_a_broker_that_stays_silent_fails_the_job_on_time(broker: Any, site: Any, client: Client) -> None:
    """Not only when the next GET is due."""
    broker.on_ask = lambda _: []
    ((_, (line,)),) = run(client).values()
    assert line.startswith(f"the broker at {broker.endpoint} doesn't answer")
    assert site.notices == [f"the broker at {broker.endpoint} doesn't answer: waiting for it, up to 0.3 s"]


@waits(comeback=0.5)
def test_workers_that_do_not_return_behind_their_broker_are_not_waited_for(broker: Any, client: Client) -> None:
    """They had time to register again."""
    broker.on_ask = lambda ask: [broker.dispatched(ask, ask.names)] if ask.command == POST else None

    def restart() -> None:
        broker.heard.get(timeout=WAIT_SECONDS)
        broker.stop()
        broker.workers = {}
        broker.start()

    with beside(restart):
        ((_, (line,)),) = run(client).values()
    assert line.startswith("worker w1 has gone away while the job ran")


def test_a_job_that_can_not_be_sent_reached_no_worker(broker: Any, site: Site) -> None:
    """The broker ends between the list of its workers and the job."""

    class Connection(BrokerConnection):
        def send(self, frames: Sequence[bytes]) -> bool:
            if frames[2] == POST:
                broker.stop()
                while self.is_up:
                    self.wait(time.monotonic() + WAIT_SECONDS)
            return super().send(frames)

    with site.client(connect=Connection, timeouts=QUICK) as client:
        assert refusal(client) == f"the broker at {broker.endpoint} has gone away"


def test_the_hook_for_the_first_job_waits_for_workers_to_register(tmp_path: Path, broker: Any) -> None:
    """A worker that has just become ready gets the job, even if the broker registers it late."""
    site = Site(tmp_path, broker, "w9")
    locks: list[WorkerLock] = []

    def start() -> None:
        lock = WorkerLock.acquire(site.environment.lock_file("w9"))
        lock.publish(ready=True, endpoint=broker.endpoint, url="")
        locks.append(lock)

    looks = iter(range(4))
    broker.on_question = lambda _: broker.workers.update(w9="fastmcp") if next(looks, None) == 3 else None
    with site.client(before_first_job=start) as client:
        assert run(client, workers="w9") == {"w9": "w9"}
    locks.pop().release()


def test_workers_that_the_hook_for_the_first_job_started_get_the_job(broker: Any, site: Any) -> None:
    """The workers that `all` means are determined again afterwards."""
    with site.client(before_first_job=lambda: broker.workers.update(w3="fastmcp")) as client:
        assert run(client) == {"w1": "w1", "w3": "w3"}


def test_the_list_of_workers_is_awaited_no_longer_than_the_job_may_take(site: Site) -> None:
    """It is part of the job's time."""
    given: list[float] = []

    class Connection(BrokerConnection):
        def request(self, task: str, *, seconds: float = math.inf, **options: Any) -> Any:
            given.append(seconds)
            return super().request(task, seconds=seconds, **options)

    with site.client(connect=Connection) as client:
        for timeout in (1.5, 60):
            run(client, timeout=timeout)
    assert given == [1.5, 2.5]


def test_a_worker_that_ended_is_restarted_for_the_job(tmp_path: Path, broker: Any) -> None:
    """The hook gets the names of unregistered workers; its error is the reason of the failed result."""
    site, asked = Site(tmp_path, broker, "w8", "w9"), []

    def again(name: str) -> bool:
        asked.append(name)
        if name == "w8":
            raise NfcliError("w8 can't start: no luck")
        broker.workers[name] = "fastmcp"
        return True

    with site.client(restart=again) as client:
        assert run(client) == {"w1": "w1", "w8": ("error", ["w8 can't start: no luck"]), "w9": "w9"}
    assert asked == ["w8", "w9"]


def test_a_killed_worker_of_this_machine_is_restarted(tmp_path: Path, broker: Any) -> None:
    """The broker still lists it as alive, but its process has ended."""
    broker.workers["w9"] = "fastmcp"
    again: list[str] = []
    with Site(tmp_path, broker, "w9").client(restart=lambda name: bool(again.append(name))) as client:
        assert run(client) == {"w1": "w1", "w9": "w9"}
    assert again == ["w9"]
