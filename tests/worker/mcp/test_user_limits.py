"""Limits on the tool calls of each user."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import Client
from pydantic import ValidationError

from nfcli.models.errors import ToolCallError
from nfcli.models.inventory.sections.limits import UserLimit
from nfcli.worker.mcp.user_limits import MAX_USERS, UserLimits
from support.mcp.called_tools import MODES, with_client
from support.mcp.served_worker import Serve
from support.tokens.token_store import store_token

VERSION = "service_fastmcp__task_get_version"


class Limited:
    """Limits with a clock, `now`, that a test sets."""

    def __init__(self, *limits: dict[str, Any]) -> None:
        self.now = 0.0
        self.limits = UserLimits([UserLimit.model_validate(limit) for limit in limits], lambda: self.now)

    def refusal(self, user: str) -> str | None:
        """Return why a call is refused; None for one that has been made."""
        try:
            with self.limits.call(user):
                return None
        except ToolCallError as error:
            return str(error)


def test_calls_within_a_minute_are_limited_for_each_user() -> None:
    """The message says how long to wait, and after that the call is made."""
    limited = Limited({"users": ["*"], "calls_per_minute": 2})
    assert [limited.refusal("ann") for _ in range(2)] == [None, None]
    assert limited.refusal("ann") == "your limit of 2 calls a minute is reached: try again in 30 s"
    assert limited.refusal("bob") is None
    limited.now = 29.5
    assert limited.refusal("ann") == "your limit of 2 calls a minute is reached: try again in 1 s"
    limited.now = 30.0
    assert limited.refusal("ann") is None


def test_first_entry_that_has_a_user_counts() -> None:
    """Users whom none has are not limited."""
    limited = Limited({"users": ["ci-*"], "calls_per_minute": 1}, {"users": ["ci-1", "ann"], "calls_at_once": 1})
    assert [limited.refusal("ci-1") is None for _ in range(2)] == [True, False]
    assert [limited.refusal(user) for user in ("ann", "ann", "bob", "bob")] == [None] * 4


def test_calls_at_once_are_limited_until_one_ends() -> None:
    """However it ends; a refused call uses up nothing."""
    limited = Limited({"users": ["*"], "calls_at_once": 1, "calls_per_minute": 2})
    refusals = []

    def fail() -> None:
        with limited.limits.call("ann"):
            refusals.append(limited.refusal("ann"))
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fail()
    assert refusals == ["1 of your calls are running, which is your limit: wait for one of them"]
    assert limited.refusal("ann") is None


def test_results_are_counted_once_they_are_sent() -> None:
    """One may go beyond the limit; the next calls wait until it is made up for."""
    limited = Limited({"users": ["*"], "bytes_per_minute": 600})
    assert limited.refusal("ann") is None
    limited.limits.count_result("ann", 1_200)
    assert limited.refusal("ann") == "your limit of 600 bytes of results a minute is reached: try again in 61 s"
    limited.now = 60.2
    assert limited.refusal("ann") is None


def test_number_of_users_that_are_remembered_is_bounded() -> None:
    """The one who has called nothing for longest is forgotten, unless a call of his is running."""
    limited = Limited({"users": ["*"], "calls_per_minute": 1})
    with limited.limits.call("running"):
        assert limited.refusal("idle") is None
        for number in range(MAX_USERS):
            assert limited.refusal(f"user-{number}") is None
        assert limited.refusal("running") is not None
        assert limited.refusal("idle") is None


@pytest.mark.parametrize(
    "limit",
    [
        {"users": ["*"]},
        {"calls_per_minute": 1},
        {"users": [], "calls_per_minute": 1},
        {"users": ["*"], "calls_per_minute": 0},
        {"users": ["*"], "calls_at_once": "many"},
        {"users": ["*"], "calls": 5},
    ],
)
def test_entry_without_users_or_a_limit_is_refused(limit: dict[str, Any]) -> None:
    """It would limit nothing."""
    with pytest.raises(ValidationError):
        UserLimit.model_validate(limit)


@pytest.mark.parametrize("mode", MODES)
def test_call_beyond_a_limit_is_an_error_of_the_tool(served_worker: Serve, mode: str) -> None:
    """All tokens of a user count together; lists and other users' calls go on."""
    worker = served_worker(
        auth_bearer={"issuer_url": None}, limits=[{"users": ["ann"], "calls_per_minute": 1, "bytes_per_minute": 10**9}]
    )
    for user, token in (("ann", "ann-1"), ("ann", "ann-2"), ("bob", "bob-1")):
        store_token(worker.store, user, token, None)

    async def use(client: Client) -> Any:
        await client.list_tools()
        return await client.call_tool(VERSION, {})

    results = [with_client(worker, use, mode, token=token) for token in ("ann-1", "ann-2", "bob-1")]
    assert [result.is_error for result in results] == [False, True, False]
    assert results[1].content[0].text.startswith("your limit of 1 calls a minute is reached: try again in ")


def test_size_of_results_is_limited(served_worker: Serve) -> None:
    """As they are sent."""
    worker = served_worker(limits=[{"users": ["*"], "bytes_per_minute": 10}])

    async def use(client: Client) -> Any:
        return [(await client.call_tool(VERSION, {})).is_error for _ in range(2)]

    assert with_client(worker, use, MODES[0]) == [False, True]
