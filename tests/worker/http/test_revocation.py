"""Revocation and expiry of tokens whose requests are being served, concurrently with other changes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from pydantic import Field

from nfcli.models.tasks.base import TaskInput
from nfcli.worker.http import active_requests
from nfcli.worker.http.bearer import INVALID_CREDENTIALS
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import ToolHints, task
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS, read_response
from support.tokens.token_store import delete_tokens, store_token

ERAS = [HANDSHAKE_ERA, SINGLE_POST_ERA]
REJECTED = (401, INVALID_CREDENTIALS)
OWNERS = {"t": "alice", "token": "alice", "username": "bob"}

Serve = Callable[..., Any]

in_both_eras = pytest.mark.parametrize("era", ERAS)
tokens = st.sampled_from(sorted(OWNERS))
eras = st.sampled_from(ERAS)


class NumberInput(TaskInput):
    """Arguments of `hold`."""

    number: int = Field(default=0, description="Which call this is")


class Tools:
    """Two tools: `hold` waits until its number's event is set, `resign` deletes the token `secret-token`."""

    def __init__(self) -> None:
        self.has_begun = threading.Semaphore(0)
        self.may_end: dict[int, threading.Event] = {}
        self.numbers = itertools.count()

    def module(self) -> ModuleType:
        """Return a module of these tasks."""

        def hold(_worker: WorkerContext, arguments: NumberInput) -> bool:
            """Wait."""
            self.has_begun.release()
            return self.may_end[arguments.number].wait(2 * WAIT_SECONDS)

        def resign(worker: WorkerContext, _arguments: TaskInput) -> bool:
            """Delete a token."""
            return delete_tokens(worker.store, token=TOKEN) == 1

        tasks = ModuleType("tasks")
        vars(tasks).update(
            hold=task(arguments=NumberInput, result=bool, mcp=ToolHints("Hold"))(hold),
            resign=task(result=bool, mcp=ToolHints("Resign"))(resign),
        )
        return tasks


class Call:
    """An active call of `hold`, in its own thread."""

    def __init__(self, worker: Any, tools: Tools, token: str, era: str) -> None:
        self.token = token
        number = next(tools.numbers)
        self._may_end = tools.may_end[number] = threading.Event()
        self._arguments = {"name": "service_fastmcp__task_hold", "arguments": {"number": number}}
        self._responses: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(worker, era))
        self._thread.start()
        assert tools.has_begun.acquire(timeout=WAIT_SECONDS)

    def _run(self, worker: Any, era: str) -> None:
        self._responses.append(worker.post("tools/call", self._arguments, era=era, token=self.token))

    @property
    def is_over(self) -> bool:
        """Whether the response has arrived."""
        return not self._thread.is_alive()

    def response(self) -> tuple[int, Any]:
        """Wait for the response; return its status, and the tool's result or the error message."""
        self._thread.join(WAIT_SECONDS)
        self._may_end.set()
        ((status, _, body),) = self._responses
        if status == 200:
            return status, body["result"]["structuredContent"]["w1"]["result"]
        return status, body["error"]["message"]

    def release(self) -> tuple[int, Any]:
        """Let the tool return; return the response."""
        self._may_end.set()
        return self.response()


@pytest.fixture
def tools() -> Iterator[Tools]:
    """Return tools whose waiting calls end with the test."""
    made = Tools()
    yield made
    for event in made.may_end.values():
        event.set()


@in_both_eras
@pytest.mark.parametrize("leap_seconds", [60, 366 * 86_400])
def test_running_call_ends_within_a_second_of_its_expiry(
    served_worker: Serve, tools: Tools, era: str, leap_seconds: int
) -> None:
    """Whether time passes or the clock is set; nothing was swept."""
    worker = served_worker(tools.module())
    taken = []
    for _ in range(3):  # the machine may pause
        store_token(worker.store, "automation", "t", 60)
        call = Call(worker, tools, "t", era)
        started = time.monotonic()
        worker.now += leap_seconds
        assert call.response() == REJECTED
        taken.append(time.monotonic() - started)
        if taken[-1] < 1:
            break
    assert min(taken) < 1


@in_both_eras
def test_running_call_has_ended_when_its_deletion_is_acknowledged(served_worker: Serve, tools: Tools, era: str) -> None:
    """The 401 is on its way; calls with other tokens go on."""
    worker = served_worker(tools.module())
    store_token(worker.store, "other", "t", None)
    going_on, ending = (Call(worker, tools, token, era) for token in (TOKEN, "t"))
    assert delete_tokens(worker.store, username="other") == 1
    assert ending.response() == REJECTED
    assert not going_on.is_over
    assert going_on.release() == (200, True)


@in_both_eras
def test_call_goes_on_when_its_token_is_renewed(
    served_worker: Serve, tools: Tools, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current expiry counts, not the one when the call began."""
    monkeypatch.setattr(active_requests, "EXPIRY_CHECK_SECONDS", 0.01)
    worker = served_worker(tools.module())
    store_token(worker.store, "automation", "t", 60)
    call = Call(worker, tools, "t", era)
    worker.now += 59
    store_token(worker.store, "automation", "t", 60)
    worker.now += 59
    worker.wait_for_lookups(3)
    assert call.release() == (200, True)


@in_both_eras
@pytest.mark.parametrize("is_notified", [True, False])
def test_call_that_deletes_its_own_token_gets_401(
    served_worker: Serve, tools: Tools, era: str, is_notified: bool
) -> None:
    """Also where the result is ready and the server was not notified."""
    worker = served_worker(tools.module())
    listeners = list(worker.store.on_revoked)
    if not is_notified:
        worker.store.on_revoked.clear()
    params = {"name": "service_fastmcp__task_resign", "arguments": {}}
    status, _, body = worker.post("tools/call", params, era=era)
    assert (status, body["error"]["message"]) == REJECTED
    assert worker.store.records() == []
    worker.store.on_revoked[:] = listeners


class Racer:
    """A client that sends requests in a loop; `after` are the responses since its token's end was acknowledged."""

    def __init__(self, worker: Any, token: str, era: str) -> None:
        self.before: list[int] = []
        self.after: list[int] = []
        self.is_acknowledged = threading.Event()
        self._has_begun = threading.Event()
        self._request = worker.request(era=era, token=token)
        self._thread = threading.Thread(target=self._run, args=(worker,))
        self._thread.start()
        assert self._has_begun.wait(WAIT_SECONDS)

    def _run(self, worker: Any) -> None:
        with worker.connect() as connection:
            while len(self.after) < 2:
                responses = self.after if self.is_acknowledged.is_set() else self.before
                connection.sendall(self._request)
                responses.append(read_response(connection)[0])
                self._has_begun.set()

    def stop(self) -> None:
        """Wait for the responses to two more requests."""
        self.is_acknowledged.set()
        self._thread.join(WAIT_SECONDS)


class Interleavings(RuleBasedStateMachine):
    """Tokens that are stored and end while requests are active; `live` is the model: token -> expiry."""

    def __init__(self, worker: Any, tools: Tools) -> None:
        super().__init__()
        self.worker = worker
        self.tools = tools
        self.live: dict[str, float | None] = {}
        self.calls: list[Call] = []

    def assert_ended(self, gone: set[str]) -> None:
        """Assert that the calls with these tokens have ended, and no others."""
        for token in gone:
            self.live.pop(token, None)
        assert [call.response() for call in self.calls if call.token in gone] == [REJECTED] * sum(
            call.token in gone for call in self.calls
        )
        self.calls = [call for call in self.calls if call.token not in gone]
        assert not any(call.is_over for call in self.calls)

    @rule(token=tokens, expire=st.sampled_from([None, 10, 30]))
    def save(self, token: str, expire: int | None) -> None:
        """Store or renew a token."""
        store_token(self.worker.store, OWNERS[token], token, expire)
        self.live[token] = None if expire is None else self.worker.now + expire

    @rule(token=tokens)
    def delete(self, token: str) -> None:
        """Delete a token."""
        assert delete_tokens(self.worker.store, token=token) == (token in self.live)
        self.assert_ended({token})

    @rule(username=st.sampled_from(["alice", "bob"]))
    def delete_all(self, username: str) -> None:
        """Delete a user's tokens."""
        delete_tokens(self.worker.store, username=username)
        self.assert_ended({token for token, owner in OWNERS.items() if owner == username})

    @rule(seconds=st.sampled_from([0.5, 9.5, 30, 366 * 86_400]))
    def wait(self, seconds: float) -> None:
        """Let time pass, without notifying the server."""
        self.worker.now += seconds
        self.assert_ended({token for token, end in self.live.items() if end is not None and self.worker.now >= end})

    @rule()
    def sweep(self) -> None:
        """Remove expired tokens from the database."""
        self.worker.store.sweep()

    @rule(token=tokens, era=eras)
    def request(self, token: str, era: str) -> None:
        """Send a request with a token."""
        assert self.worker.post(era=era, token=token)[0] == (200 if token in self.live else 401)

    @rule(token=tokens, era=eras)
    def begin(self, token: str, era: str) -> None:
        """Begin a call that waits."""
        if token in self.live and len(self.calls) < 8:
            self.calls.append(Call(self.worker, self.tools, token, era))

    @rule()
    def finish(self) -> None:
        """Let the oldest call return."""
        if self.calls:
            assert self.calls.pop(0).release() == (200, True)

    @rule(token=tokens, era=eras, how=st.sampled_from(["delete", "delete all", "expire"]))
    def race(self, token: str, era: str, how: str) -> None:
        """End a token while two clients send requests with it in a loop."""
        was_live = token in self.live
        racers = [Racer(self.worker, token, era) for _ in range(2)]
        try:
            if how == "delete":
                self.delete(token)
            elif how == "delete all":
                self.delete_all(OWNERS[token])
            else:
                self.save(token, 30)
                self.wait(30)
        finally:
            for racer in racers:
                racer.stop()
        for racer in racers:
            assert racer.after == [401, 401]
            assert set(racer.before) <= ({200, 401} if was_live or how == "expire" else {401})

    def teardown(self) -> None:
        """End active calls, and delete all tokens."""
        for call in self.calls:
            call.release()
        for username in ("alice", "bob"):
            delete_tokens(self.worker.store, username=username)


@pytest.mark.slow
def test_token_is_rejected_after_its_end_in_every_interleaving(
    served_worker: Serve, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens are stored, renewed, deleted and expire while requests begin, wait and end."""
    monkeypatch.setattr(active_requests, "EXPIRY_CHECK_SECONDS", 0.01)
    worker = served_worker(tools.module(), auth_bearer={"max_wrong_tokens_per_minute": 0})
    run_state_machine_as_test(
        lambda: Interleavings(worker, tools),
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
