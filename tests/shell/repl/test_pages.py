"""Lists of tokens that come in pages: printed as they come, requested as they are printed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol.jobs import Page
from nfcli.shell.job_pages import FIRST_PAGE_ITEMS, PAGE_ITEMS, run_in_pages
from nfcli.shell.output.console import Console
from nfcli.shell.repl.session import Session
from support.shell.bench import ShellBench
from support.shell.fake_client import CREATION, FakeClient
from support.tokens.token_tables import table_rows

TOKENS = FIRST_PAGE_ITEMS + 2 * PAGE_ITEMS + 1
LIST = "fastmcp auth list-tokens"


class Pages(FakeClient):
    """A client with pages; `before` is called with the number of each job before it runs."""

    before: Callable[[int], None] | None = None

    def run_job(self, service: str, task: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Run a job."""
        if self.before is not None:
            self.before(len(self.calls))
        return super().run_job(service, task, **options)


@pytest.fixture
def client() -> Pages:
    """Provide a client with many tokens on the first worker and few on the second."""
    client = Pages("w1", "w2")
    client.has_pages = True
    for worker, number_of_tokens in (("w1", TOKENS), ("w2", FIRST_PAGE_ITEMS)):
        client.tokens[worker] = {
            f"{number:06}": {"username": "ann", "token": f"{number:06}", "creation": CREATION, "expires": None}
            for number in range(number_of_tokens)
        }
    return client


def test_pages_give_the_whole_list(client: Pages) -> None:
    """In order, each worker's after the other's, and no more requests than pages."""
    status, out, err = ShellBench(client).run(f"{LIST} | json")
    assert (status, err) == (0, "")
    listed = [(row["worker"], row["token"]) for row in json.loads(out)]
    assert listed == [(worker, token) for worker in ("w1", "w2") for token in client.tokens[worker]]
    pages = [call["page"] for call in client.calls]
    assert [page.limit for page in pages] == [FIRST_PAGE_ITEMS] + [PAGE_ITEMS] * 3
    assert [call["workers"] for call in client.calls] == ["all"] + [["w1"]] * 3
    client.has_pages = False
    assert ShellBench(client).run(f"{LIST} | json") == (0, out, "")


@pytest.mark.parametrize("pipe", ["", " | json", " | exclude nobody"])
def test_rows_are_printed_before_the_next_page_is_requested(client: Pages, pipe: str) -> None:
    """The first ones after one request."""
    bench = ShellBench(client)
    printed: list[str] = []
    client.before = lambda _: printed.append(bench.out.getvalue())
    bench.run(LIST + pipe)
    found = ["" if not text else f"{text.count('ann')}" for text in printed]
    assert found == ["", *(f"{FIRST_PAGE_ITEMS + number * PAGE_ITEMS}" for number in range(3))]


def test_a_reader_that_closes_its_pipe_ends_the_requests(client: Pages) -> None:
    """As `head` does."""

    class Closing(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    session = Session(client, console=Console(Closing(), io.StringIO()))
    with pytest.raises(BrokenPipeError):
        session.run_line(LIST)
    assert len(client.calls) == 1


def test_a_worker_that_goes_away_in_the_middle_fails_the_command(client: Pages) -> None:
    """The rows that it sent are there, and those of the others; a line says that the list isn't complete."""

    def leave(number: int) -> None:
        client.raising = NoWorkersError("worker w1 has gone away") if number == 2 else None

    client.before = leave
    status, out, err = ShellBench(client).run(f"{LIST} | json")
    counts = [sum(row["worker"] == worker for row in json.loads(out)) for worker in ("w1", "w2")]
    assert counts == [FIRST_PAGE_ITEMS + PAGE_ITEMS, FIRST_PAGE_ITEMS]
    assert (status, err) == (1, "w1: the list is incomplete: worker w1 has gone away\n")


def test_the_timeout_is_that_of_all_pages(client: Pages) -> None:
    """Each request has what the ones before it left."""
    ShellBench(client).run(f"{LIST} timeout 5")
    given = [call["timeout"] for call in client.calls]
    assert given[0] == 5
    assert given == sorted(given, reverse=True)
    assert len(set(given)) == len(given)


def test_a_list_that_ends_late_is_incomplete(client: Pages) -> None:
    """No request is sent after the deadline."""
    moments = count(0, 3)
    job = {"service": "fastmcp", "task": "bearer_token_list", "workers": "all", "timeout": 5}
    first, following = run_in_pages(client, job, lambda result: result, monotonic=lambda: next(moments))
    assert [len(first[worker]["result"]) for worker in ("w1", "w2")] == [FIRST_PAGE_ITEMS] * 2
    second, end = following("w1")
    assert len(second["result"]) == PAGE_ITEMS
    assert end["errors"] == ["the job's 5 s are over: set a longer timeout"]
    assert [call["timeout"] for call in client.calls] == [5, 2]


def test_other_commands_request_no_pages(client: Pages) -> None:
    """Only lists have them."""
    bench = ShellBench(client)
    bench.run("fastmcp auth check-token token x")
    bench.run(f"{LIST} | yaml")
    assert [isinstance(call.get("page"), Page) for call in client.calls] == [False] + [True] * 4


def test_a_first_page_that_fails_is_reported_before_the_rows_of_others(client: Pages) -> None:
    """And none of its pages is requested."""
    client.failing["w1"] = "disk on fire"
    bench = ShellBench(client)
    status, out, err = bench.run(LIST)
    assert (status, len(table_rows(out)), err) == (1, FIRST_PAGE_ITEMS, "w1: disk on fire\n")
    assert len(client.calls) == 1
