"""Jobs that nobody waits for: `nowait`, and `show jobs`."""

import json
from collections.abc import Callable

import pytest

from nfcli.models.protocol.jobs import read_event
from support.shell.bench import ShellBench
from support.tokens.token_tables import table_rows

MakeBench = Callable[..., ShellBench]
CHECK = "fastmcp auth check-token token x"


def test_the_uuid_is_printed_instead_of_results(make_bench: MakeBench) -> None:
    """Alone on stdout; a worker that hasn't taken the job is an error."""
    bench = make_bench("w1", "w2")
    assert bench.run(f"{CHECK} nowait timeout 5 workers w1") == (0, "uuid-1\n", "")
    assert bench.client.calls == [
        {"service": "fastmcp", "task": "bearer_token_check", "kwargs": {"token": "x"}, "workers": ["w1"], "timeout": 5}
    ]
    bench.client.failing["w2"] = "no"
    assert bench.run("fastmcp auth list-tokens nowait") == (1, "uuid-2\n", "w2: no\n")


def test_a_token_that_would_be_generated_has_to_be_typed(make_bench: MakeBench) -> None:
    """It is shown once all workers have confirmed it, which nobody waits for."""
    bench = make_bench("w1")
    status, out, err = bench.run("fastmcp auth create-token username ann nowait")
    assert (status, out, bench.client.calls) == (2, "", [])
    assert err.startswith("create-token: nowait needs the token: one that is generated is only shown")
    assert bench.run("fastmcp auth create-token username ann token t1 nowait") == (0, "uuid-1\n", "")


def test_jobs_are_listed_the_newest_last(make_bench: MakeBench) -> None:
    """Those of one service on request, and as many as are wanted."""
    bench = make_bench("w1")
    for _ in range(3):
        bench.run(f"{CHECK} nowait")
    _, out, _ = bench.run("show jobs last 2")
    same = {
        "submitted": "2026-05-31 12:08:51.914919",
        "service": "fastmcp",
        "task": "bearer_token_check",
        "workers": "w1",
    }
    assert table_rows(out) == [{"uuid": uuid, **same} for uuid in ("uuid-2", "uuid-3")]
    assert bench.run("show jobs service other")[1].splitlines()[1:] == []
    assert len(json.loads(bench.run("show jobs service fastmcp | json")[1])) == 3


def test_results_are_shown_once_they_are_there(make_bench: MakeBench) -> None:
    """Until then the command fails, so that a script can repeat it."""
    bench = make_bench("w1", "w2")
    bench.run(f"{CHECK} nowait")
    bench.client.running = ["w2"]
    states = json.loads(bench.run("show jobs uuid uuid-1")[1])["workers"]
    assert states == {"w1": "completed", "w2": "started"}
    assert bench.run("show jobs uuid uuid-1 result") == (
        1,
        '{\n    "w1": false\n}\n',
        "w2: the job has no result yet (started): repeat this later\n",
    )
    bench.client.running = ["w1", "w2"]
    assert bench.run("show jobs uuid uuid-1 result")[:2] == (1, "")
    assert bench.run("show jobs uuid other result") == (1, "", "no job 'other'\n")


def test_events_that_workers_have_kept_are_a_table(make_bench: MakeBench) -> None:
    """Whatever else a worker says of them."""
    bench = make_bench("w1")
    bench.run(f"{CHECK} nowait")
    bench.client.events = [
        read_event(
            {"message": "half way", "severity": "WARNING", "resource": ["sw1"], "timestamp": "01-Dec-2026 04:31:45.159"}
        ),
        "odd",
    ]  # type: ignore[list-item]
    _, out, err = bench.run("show jobs uuid uuid-1 events")
    (row,) = table_rows(out)
    shown = {"worker": "w1", "severity": "WARNING", "resource": "sw1", "message": "half way"}
    shown["timestamp"] = "2026-12-01 04:31:45.159"
    assert ({key: text for key, text in row.items() if text}, err) == (shown, "")
    bench.client.answers["job_details"] = {"job_events": "odd"}
    assert table_rows(bench.run("show jobs uuid uuid-1 events")[1]) == []
    bench.client.failing["w1"] = "no such job"
    assert bench.run("show jobs uuid uuid-1 events") == (1, "", "w1: no such job\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("result", "jobs: result and events need uuid: name the job"),
        ("uuid u result events", "jobs: show either the result or the events"),
        ("uuid u last 5", "jobs: uuid names one job: omit last and service"),
        ("last 0", "jobs: last: must be a whole number, 1 to 1000, got 0"),
    ],
)
def test_words_that_do_not_go_together_are_refused(make_bench: MakeBench, words: str, message: str) -> None:
    """Before anybody is asked."""
    assert make_bench("w1").run(f"show jobs {words}") == (2, "", f"{message}\n")
