"""Lists in the format that a client requests: in pages, with times in ISO 8601; all others get NorFab's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import ProtocolError
from nfcli.models.protocol.jobs import JobRequest, Page, ResultFormat, encode_request
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.jobs.task_context import TaskContext
from nfcli.worker.tasks import auth as auth_tasks
from nfcli.worker.tokens.store import TokenStore
from support.task_context import task_context
from support.tokens.token_store import delete_tokens

Listing = Callable[..., Any]
STORED = [(f"user-{number % 4}", f"t{number:02}") for number in range(23)]


@pytest.fixture
def worker(open_store: Callable[[], TokenStore], trail: AuditTrail, tmp_path: Path) -> TaskContext:
    """Provide a worker with tokens, two of which have the same creation."""
    store = open_store()
    now = store.now()
    records = [
        BearerTokenRecord(token, username, now - 60 + number // 2, None)
        for number, (username, token) in enumerate(STORED)
    ]
    store.import_tokens(records, before_commit=None)
    return task_context(Environment(tmp_path, None), TaskRegistry(auth_tasks), store, trail, client="ann-laptop")


@pytest.fixture
def listing(worker: TaskContext) -> Listing:
    """List tokens in a format; return the value, or the errors."""

    def run(page: Page | None = None, times: Any = "local", **kwargs: Any) -> Any:
        worker.result_format = ResultFormat(times=times, page=page)
        result = worker.registry.run(worker, "bearer_token_list", kwargs)
        return result.errors or result.result

    return run


def pages(listing: Listing, limit: int, **kwargs: Any) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each page."""
    cursor = None
    for _ in range(len(STORED) + 1):
        found = listing(Page(limit=limit, after=cursor), **kwargs)
        yield found["rows"]
        cursor = found["next"]
        if cursor is None:
            return


@pytest.mark.parametrize("limit", [1, 2, 5, 22, 23, 24, 1_000])
@pytest.mark.parametrize("username", [None, "user-1", "nobody"])
def test_pages_together_are_the_list(listing: Listing, limit: int, username: str | None) -> None:
    """No row is missing or there twice, and the last page says that it is."""
    whole = [row["token"] for row in listing(username=username)]
    found = [[row["token"] for row in page] for page in pages(listing, limit, username=username)]
    assert [token for page in found for token in page] == whole
    assert len(found) == max(1, -(-len(whole) // limit))
    assert all(len(page) == limit for page in found[:-1])


def test_tokens_that_come_and_go_between_pages_move_no_other(worker: TaskContext, listing: Listing) -> None:
    """Not even the one that the page before ended with, or all of its user."""
    whole = [row["token"] for row in listing()]
    found, changes = [], iter([*whole[:6], None])
    for page in pages(listing, 3):
        found += [row["token"] for row in page]
        gone = next(changes, None)
        if gone is not None:
            delete_tokens(worker.store, token=found[-1])
            delete_tokens(worker.store, token=gone)
    assert found == whole


def test_each_page_has_its_line_in_the_audit_trail(worker: TaskContext, listing: Listing) -> None:
    """With the number of tokens that it shows."""
    counts = [len(page) for page in pages(listing, 10)]
    lines = [entry for entry in worker.audit.entries(last=20) if entry.operation == "list"]
    assert [line.count for line in lines] == counts == [10, 10, 3]


@pytest.mark.parametrize("cursor", ["", "x", "[]", '["a", "b", "c"]', '["a", 1.0]', "null", '{"username": 1}'])
def test_a_cursor_of_another_kind_is_refused(listing: Listing, cursor: str) -> None:
    """In one line that doesn't repeat it."""
    assert listing(Page(limit=5, after=cursor)) == ["the cursor is not one of this task: request the first page again"]


@pytest.mark.parametrize(
    ("zone", "instant", "text"),
    [
        ("UTC", "2026-05-31T12:08:51.914919+00:00", "2026-05-31T12:08:51.914919+00:00"),
        ("Europe/Berlin", "2026-10-25T00:30:00+00:00", "2026-10-25T02:30:00.000000+02:00"),
        ("Europe/Berlin", "2026-10-25T01:30:00+00:00", "2026-10-25T02:30:00.000000+01:00"),
        ("Asia/Kathmandu", "2026-05-31T12:00:00+00:00", "2026-05-31T17:45:00.000000+05:45"),
        ("America/St_Johns", "2026-01-01T00:00:00+00:00", "2025-12-31T20:30:00.000000-03:30"),
    ],
)
def test_times_have_the_offset_of_their_moment(zone: str, instant: str, text: str) -> None:
    """Before and after a change of clocks, whatever the zone of the worker."""
    moment = datetime.fromisoformat(instant).timestamp()
    record = BearerTokenRecord("t", "ann", moment, moment)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            entry, local = record.entry(moment, iso_times=True), record.entry(moment)
    finally:
        time.tzset()
    assert (entry["creation"], entry["expires"]) == (text, text)
    assert local["expires"] == text[:26].replace("T", " ")
    assert datetime.fromisoformat(text).timestamp() == moment


def test_a_token_that_never_expires_has_null(listing: Listing) -> None:
    """For clients that request ISO 8601; for all others it is the word."""
    assert {row["expires"] for row in listing(times="iso8601")} == {None}
    assert {row["expires"] for row in listing()} == {"None"}


def test_clients_that_request_no_format_get_that_of_norfab() -> None:
    """Nothing is in the request, and its default is NorFab's; the client's own has ISO 8601."""
    assert "result_format" not in json.loads(encode_request("t", {}, timeout=1))
    assert JobRequest.parse(b'{"task": "t", "kwargs": {}}').result_format == ResultFormat(times="local", page=None)
    wanted = ResultFormat(times="iso8601", page=Page(limit=3, after="x"))
    assert JobRequest.parse(encode_request("t", {}, timeout=1, result_format=wanted)).result_format == wanted


@pytest.mark.parametrize(
    "wanted", [{"times": "x"}, {"page": {}}, {"page": {"limit": 0}}, {"page": {"limit": 10_001}}, [], "iso8601"]
)
def test_a_format_of_another_shape_is_refused(wanted: object) -> None:
    """As the rest of a request is."""
    with pytest.raises(ProtocolError, match=r"^the data is not a job request: result_format"):
        JobRequest.parse(json.dumps({"task": "t", "result_format": wanted}).encode())


def test_a_result_says_in_the_same_format_when_it_was_made(worker: TaskContext) -> None:
    """`task_started` and `task_completed`."""
    before = datetime.now(UTC)
    result = worker.registry.run(worker, "bearer_token_list", {}, iso_times=True)
    started, completed = (datetime.fromisoformat(str(text)) for text in (result.task_started, result.task_completed))
    assert started.utcoffset() is not None
    assert before.timestamp() - 0.001 <= started.timestamp() <= completed.timestamp() <= time.time()
    plain = worker.registry.run(worker, "bearer_token_list", {})
    assert plain.task_started is not None
    time.strptime(plain.task_started)
