"""`show norfab …` and `norfab workers ping`, over a client that says what workers of both makes say."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from nfcli.models.errors import NfcliError, NoWorkersError
from support.shell.bench import ShellBench

STATS = {
    "name": "w1",
    "role": "worker",
    "status": "active",
    "service": "fastmcp",
    "process": {
        "cpu_percent": 1.5,
        "memory_rss_mbyte": 70.66,
        "uptime_seconds": 273_906,
        "open_file_descriptors": 73,
        "tcp_sockets": 3,
        "threads": 15,
    },
    "messaging": {"sent": 119, "received": 68},
    "running_jobs": 1,
    "jobs": {"total_jobs": 26, "jobs_by_status": {"COMPLETED": 26}},
}
JOB = {"uuid": "u1", "client_address": "ann", "task": "echo", "status": "COMPLETED"}
OURS = JOB | {"received_timestamp": datetime(2026, 11, 22, 4, 4, 27, 500_000).astimezone().isoformat()}
THEIRS = JOB | {"uuid": "u2", "received_timestamp": "Sun Nov 22 04:04:26 2026"}


@pytest.fixture
def bench(make_bench: Callable[..., ShellBench]) -> ShellBench:
    """Return a shell whose client knows workers w1 and w2."""
    return make_bench("w1", "w2")


def cells(text: str) -> list[list[str]]:
    """Return the words of each line of a table whose cells have no blanks."""
    return [line.split() for line in text.splitlines()]


def test_workers_are_shown_with_what_they_use(bench: ShellBench) -> None:
    """Uptime, memory, CPU and jobs of those that are alive; nobody is started for it."""
    bench.client.answers["get_stats"] = STATS
    status, out, err = bench.run("show norfab workers")
    assert (status, err) == (0, "")
    header, first, _ = out.splitlines()
    assert header == " name  service  status  uptime           memory (MB)  cpu (%)  jobs"
    assert first == " w1    fastmcp  alive   3 days, 4:05:06  71           1.5      26"
    assert bench.client.calls == [{"service": "all", "task": "get_stats", "workers": ["w1", "w2"], "timeout": 5.0}]


def test_a_worker_without_statistics_is_shown_with_the_reason(bench: ShellBench) -> None:
    """It is alive all the same, and the uptime is the one that is known anyway."""
    bench.client.answers["get_stats"] = STATS
    bench.client.failing["w1"] = "busy"
    status, out, _ = bench.run("show norfab workers | json")
    first, second = json.loads(out)
    assert (status, first["uptime"], first["memory (MB)"], first["note"]) == (0, "0:00:01", None, "no statistics: busy")
    assert (second["jobs"], second["note"]) == (26, "")
    bench.client.raising = NoWorkersError("no way")
    assert [row["note"] for row in json.loads(bench.run("show norfab workers | json")[1])] == [
        "no statistics: no way"
    ] * 2


@pytest.mark.parametrize("answer", [None, [], {"process": 7, "jobs": []}, {"process": {"uptime_seconds": "x"}}])
def test_statistics_of_any_shape_end_nothing(bench: ShellBench, answer: Any) -> None:
    """They come from other programs."""
    bench.client.answers["get_stats"] = answer
    for line in ("show norfab workers", "show norfab statistics"):
        assert "Traceback" not in "".join(map(str, bench.run(line)))


def test_workers_can_be_filtered(bench: ShellBench) -> None:
    """By service and status; nobody is asked who isn't shown."""
    rows = [
        {"name": "w1", "service": "fastmcp", "status": "alive", "holdtime": "12", "alive (s)": "5", "note": ""},
        {"name": "n1", "service": "nornir", "status": "alive", "holdtime": "9", "alive (s)": "6", "note": ""},
        {"name": "w9", "service": "fastmcp", "status": "missing", "holdtime": "", "alive (s)": "", "note": "away"},
    ]
    bench.client.show_workers = lambda: rows  # type: ignore[method-assign]
    bench.client.workers = ("w1", "n1")
    bench.client.answers["get_stats"] = STATS
    names = {
        words: [line.split()[0] for line in bench.run(f"show norfab workers {words}")[1].splitlines()[1:]]
        for words in ("service nornir", "status missing", "status alive", "status dead")
    }
    assert names == {
        "service nornir": ["n1"],
        "status missing": ["w9"],
        "status alive": ["w1", "n1"],
        "status dead": [],
    }
    assert [call["workers"] for call in bench.client.calls] == [["n1"], ["w1", "n1"]]
    assert bench.run("show norfab workers status odd")[0] == 2


def test_statistics_are_a_table_and_whole_as_json(bench: ShellBench) -> None:
    """One row for each worker of any service."""
    bench.client.answers["get_stats"] = STATS
    _, out, _ = bench.run("show norfab statistics")
    assert cells(out)[1] == ["w1", "fastmcp", "active", "71", "1.5", "15", "73", "3", "26", "1", "68", "119"]
    (row, _) = json.loads(bench.run("show norfab statistics | json")[1])
    assert (row["process"], row["jobs_by_status"]) == (STATS["process"], {"COMPLETED": 26})
    assert bench.client.calls[0]["service"] == "all"


def test_versions_are_those_of_all_services(bench: ShellBench) -> None:
    """As the workers say them."""
    bench.client.answers["get_version"] = {"norfab": "0.25.0"}
    assert json.loads(bench.run("show norfab version")[1]) == {name: {"norfab": "0.25.0"} for name in ("w1", "w2")}
    assert bench.client.calls[0]["service"] == "all"


def test_jobs_of_all_workers_are_merged_by_time(bench: ShellBench) -> None:
    """Times of both makes are understood; the newest jobs are shown, the last one at the end."""
    bench.client._result = lambda worker, *_: {  # type: ignore[assignment]  # noqa: SLF001  one answer for each worker
        "failed": False,
        "result": [OURS] if worker == "w1" else [THEIRS],
    }
    status, out, _ = bench.run("show norfab jobs")
    assert (status, cells(out)) == (
        0,
        [
            ["received", "worker", "task", "status", "uuid", "client_address"],
            ["2026-11-22", "04:04:26", "w2", "echo", "COMPLETED", "u2", "ann"],
            ["2026-11-22", "04:04:27", "w1", "echo", "COMPLETED", "u1", "ann"],
        ],
    )
    assert cells(bench.run("show norfab jobs last 1 task echo client ann")[1])[1][2] == "w1"
    assert bench.client.calls[-1]["kwargs"] == {"last": 1, "task": "echo", "client": "ann"}


def test_one_job_is_shown_in_full_by_the_workers_that_had_it(bench: ShellBench) -> None:
    """That others don't know it is no failure; that none does is one."""
    bench.client.answers["job_details"] = {"uuid": "u1", "status": "COMPLETED"}
    bench.client.failing["w2"] = "no job 'u1' of worker w2 is known"
    status, out, err = bench.run("show norfab jobs uuid u1")
    assert (status, json.loads(out), err) == (0, {"w1": {"uuid": "u1", "status": "COMPLETED"}}, "")
    assert bench.client.calls[0]["kwargs"] == {"uuid": "u1"}
    bench.client.failing["w1"] = "no job"
    assert bench.run("show norfab jobs uuid u1") == (
        *(1, ""),
        "no worker knows job 'u1': show norfab jobs lists those that they know\n",
    )


def test_a_worker_without_a_list_of_jobs_is_named(bench: ShellBench) -> None:
    """The others' are shown."""
    bench.client.answers["job_list"] = [OURS]
    bench.client.failing["w1"] = "busy"
    status, out, err = bench.run("show norfab jobs")
    assert (status, len(out.splitlines()), err) == (1, 2, "w1: busy\n")


def record(second: int, level: str = "INFO", **fields: str) -> dict[str, Any]:
    """Return a record of a log."""
    moment = datetime(2026, 11, 22, 4, 4, second).astimezone()
    return {"ts": moment.isoformat(timespec="microseconds"), "level": level, "message": f"m{second}", **fields}


def test_logs_are_merged_by_time(bench: ShellBench) -> None:
    """The newest records of all, with the worker that wrote each; one without a time is the oldest."""
    logs = {"w1": [record(1), record(3, "ERROR", logger="x")], "w2": [record(2), {"ts": "", "message": "odd"}]}
    bench.client._result = lambda worker, *_: {"failed": False, "result": logs[worker]}  # type: ignore[assignment]  # noqa: SLF001
    status, out, _ = bench.run("show norfab logging")
    assert (status, [line.split()[-1] for line in out.splitlines()]) == (0, ["message", "odd", "m1", "m2", "m3"])
    assert out.splitlines()[-1] == " 2026-11-22 04:04:03.000  ERROR  w1      m3"
    assert len(bench.run("show norfab logging last 2")[1].splitlines()) == 3
    assert json.loads(bench.run("show norfab logging last 1 | json")[1])[0]["logger"] == "x"


def test_records_can_be_filtered_for_workers_and_broker(bench: ShellBench) -> None:
    """By level and time; where workers are named, the broker isn't asked."""
    bench.client.answers["get_logs"] = [record(1)]
    bench.client.describe = lambda: {"mode": "fabric"}  # type: ignore[method-assign]
    bench.client.broker = [record(2)]
    _, out, _ = bench.run("show norfab logging level warning since 2026-11-22 last 7")
    assert [line.split()[3] for line in out.splitlines()[1:]] == ["w1", "w2", "broker"]
    filters = {"last": 7, "level": "WARNING", "since": datetime(2026, 11, 22).astimezone().isoformat()}
    assert [call["kwargs"] for call in bench.client.calls] == [filters, filters]
    bench.client.calls.clear()
    bench.run("show norfab logging workers w1")
    assert [call["workers"] for call in bench.client.calls] == [["w1"]]


def test_a_time_may_be_how_long_ago_it_is(bench: ShellBench) -> None:
    """It is sent as a time, so that workers of both makes understand it."""
    bench.client.answers["get_logs"] = []
    bench.run("show norfab logging since 10m")
    since = datetime.fromisoformat(bench.client.calls[0]["kwargs"]["since"])
    assert timedelta(minutes=9) < datetime.now().astimezone() - since < timedelta(minutes=12)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("since foo", "since: must be a time such as 2026-12-01T04:30, or how long ago: 10m, 2h, 1d; got foo"),
        ("level loud", "level: must be one of NOTSET, DEBUG, INFO, WARNING, ERROR, CRITICAL, got loud"),
        ("last 0", "last: must be a whole number, 1 to 1000, got 0"),
    ],
)
def test_wrong_filters_are_refused_before_anything_is_sent(bench: ShellBench, words: str, error: str) -> None:
    """With the rule that they break."""
    assert bench.run(f"show norfab logging {words}") == (2, "", f"logging: {error}\n")
    assert bench.client.calls == []


@pytest.mark.parametrize(
    ("broker", "error"),
    [
        (NfcliError("it is away"), "broker: it is away\n"),
        ("Unsupported task", "broker: it has no log to show: norfab 0.25.0 or newer is needed\n"),
    ],
)
def test_a_broker_without_a_log_is_named(bench: ShellBench, broker: object, error: str) -> None:
    """The workers' records are shown."""
    bench.client.answers["get_logs"] = [record(1)]
    bench.client.describe = lambda: {"mode": "fabric"}  # type: ignore[method-assign]
    bench.client.broker = broker
    status, out, err = bench.run("show norfab logging")
    assert (status, len(out.splitlines()), err) == (1, 3, error)


def test_workers_that_answer_a_ping_are_listed(bench: ShellBench) -> None:
    """Those that don't are failures, and so is another answer."""
    bench.client.answers["echo"] = {"kwargs": {"ping": "pong"}, "args": []}
    bench.client.failing["w2"] = "away"
    assert bench.run("norfab workers ping") == (1, " worker  answer\n w1      pong\n", "w2: away\n")
    assert bench.client.calls[0] == {
        "service": "all",
        "task": "echo",
        "kwargs": {"ping": "pong"},
        "workers": "all",
        "timeout": bench.client.calls[0]["timeout"],
    }
    bench.run("norfab workers ping service demo sleep 2 raise-error boom workers w1")
    assert bench.client.calls[1]["kwargs"] == {"ping": "pong", "sleep": 2, "raise_error": "boom"}
    assert (bench.client.calls[1]["service"], bench.client.calls[1]["workers"]) == ("demo", ["w1"])
    bench.client.failing.clear()
    bench.client.answers["echo"] = {"kwargs": {"ping": "no"}}
    assert bench.run("norfab workers ping workers w1") == (1, "", "w1: it answered no, not pong\n")
