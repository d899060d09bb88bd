"""Commands that run jobs or handlers of the shell, and what is printed of their results."""

import json
from collections.abc import Callable

import pytest

from nfcli.models.commands.auth import ListTokens
from nfcli.models.protocol.jobs import Result, read_event
from support.shell.bench import Printed, ShellBench
from support.shell.fake_client import FakeClient
from support.tokens.token_tables import EMPTY_TABLE, table_rows

Run = Callable[[str], Printed]
MakeBench = Callable[..., ShellBench]
WORKER_TRUE = '{\n    "fastmcp-worker-1": true\n}\n'


def test_messages_of_workers_that_succeeded_go_to_stderr(make_bench: MakeBench) -> None:
    """`no matching token` is a note beside the result."""
    bench = make_bench("w1")
    bench.client.messages["w1"] = ["no matching token"]
    assert bench.run("fastmcp auth delete-token token x") == (0, '{\n    "w1": false\n}\n', "w1: no matching token\n")


def test_a_failing_worker_is_named_and_the_others_are_printed(make_bench: MakeBench) -> None:
    """One line for the failure, of a traceback its last line; status 1."""
    bench = make_bench("w1", "w2", "w3")
    bench.client.failing = {"w1": "Traceback:\n  File x\nKeyError: 'a\x1b'\n", "w3": ""}
    assert bench.run("fastmcp auth check-token token x") == (
        1,
        '{\n    "w2": false\n}\n',
        "w1: KeyError: 'a\\x1b'\nw3: failed without a reason, status error\n",
    )
    bench.client.failing.clear()
    assert bench.run("fastmcp auth check-token token x workers w1") == (0, '{\n    "w1": false\n}\n', "")


@pytest.mark.parametrize(
    ("typed", "sent"),
    [("all", "all"), ("any", "any"), ("w1", ["w1"]), ("w2,w1,w2", ["w2", "w1"]), ("'w1, w2'", ["w1", "w2"])],
)
def test_workers_are_all_any_or_names(make_bench: MakeBench, typed: str, sent: object) -> None:
    """`workers` takes one name or several, separated by commas."""
    bench = make_bench("w1", "w2")
    assert bench.run(f"fastmcp auth list-tokens workers {typed} timeout 5")[0] == 0
    assert (bench.client.calls[0]["workers"], bench.client.calls[0]["timeout"]) == (sent, 5)


def test_a_result_that_is_no_list_of_records_is_a_failure(run: Run, client: FakeClient) -> None:
    """Other implementations of workers may send anything."""
    client.answers["bearer_token_list"] = {"no": "list"}
    message = "fastmcp-worker-1: the result of bearer_token_list is not a list of records\n"
    assert run("fastmcp auth list-tokens") == (1, "", message)


@pytest.mark.parametrize(
    "value", [True, False, None, 0, "", [], {}, ["a", None], ["a", "json", {}], [True, "nested", {"a": 1}]], ids=str
)
def test_any_value_of_a_worker_is_printed(run: Run, client: FakeClient, value: object) -> None:
    """True does not end the shell, two or three values name no outputter, and empty values are printed too."""
    client.answers["get_status"] = value
    status, out, err = run("show fastmcp status")
    assert (status, json.loads(out), err) == (0, {"fastmcp-worker-1": value}, "")
    assert run("pwd")[1] == "root\n"


def test_false_is_a_result_and_not_a_failure(run: Run) -> None:
    """A check of an unknown token prints false, with status 0, and the session goes on."""
    assert run("fastmcp auth check-token token nothing") == (0, WORKER_TRUE.replace("true", "false"), "")
    assert run("fastmcp auth list-tokens") == (0, EMPTY_TABLE, "")


def test_tokens_are_listed_by_worker_with_every_column(make_bench: MakeBench) -> None:
    """The rows of each worker follow those of the one before it, under one header."""
    bench = make_bench("w2", "w1")
    bench.run("fastmcp auth create-token username automation token secret-token expire 3600")
    rows = table_rows(bench.run("fastmcp auth list-tokens username automation")[1])
    assert [(row["worker"], row["username"], row["token"], row["expires"]) for row in rows] == [
        ("w1", "automation", "secret-token", "3600"),
        ("w2", "automation", "secret-token", "3600"),
    ]
    assert [tuple(row) for row in rows] == [ListTokens.COLUMNS] * 2


def test_no_tokens_still_print_the_header(run: Run) -> None:
    """An empty list is a table without rows."""
    assert run("fastmcp auth list-tokens") == (0, EMPTY_TABLE, "")


def test_local_commands_need_no_worker(run: Run, client: FakeClient) -> None:
    """Tree, pages, schemas, client and inventory are printed without a job."""
    assert run("man tree show.norfab.client")[1].startswith("root\n└── show:")
    assert json.loads(run("man json-schema fastmcp.auth.check-token")[1])["required"] == ["token"]
    assert json.loads(run("show norfab client")[1]) == client.describe()
    assert json.loads(run("show norfab inventory")[1]) == client.inventory.redacted()
    assert run("man tree nothing")[0] == 2
    assert run("man page nothing")[0] == 2
    assert run("man page")[0] == 0
    assert client.calls == []


def test_tasks_are_described_as_all_workers_list_them(run: Run, client: FakeClient) -> None:
    """One that doesn't answer is named, and an error only where none does."""
    client.answers["list_tasks"] = [{"name": "echo", "description": "Give it back"}]
    assert run("man tasks") == (0, "echo  Give it back\n", "")
    assert client.calls == [{"service": "fastmcp", "task": "list_tasks", "workers": "all"}]
    assert run("man tasks brief") == (0, "echo\n", "")
    assert run("man tasks name echo") == run("man tasks echo")
    assert run("man tasks echo name echo")[0] == run("man tasks nothing")[0] == 2
    assert run("man tasks service demo") == (0, "echo  Give it back\n", "")
    assert client.calls[-1]["service"] == "demo"
    client.failing["fastmcp-worker-1"] = "busy"
    assert run("man tasks") == (1, "", "fastmcp-worker-1: busy\n")


def test_a_forgotten_worker_is_named_with_what_that_means(run: Run, client: FakeClient) -> None:
    """A name that is not known is a failed command."""
    client.missing = {"w2": "worker w2 is away"}
    status, out, err = run("fastmcp workers forget w2")
    assert (status, json.loads(out), err.startswith("w2 keeps the tokens")) == (0, {"w2": True}, True)
    assert run("fastmcp workers forget w2") == (1, "", "no worker 'w2' was seen before\n")


def test_verbose_results_are_whole_also_of_workers_that_failed(make_bench: MakeBench) -> None:
    """As NorFab's shell prints them: no table, and messages stand in the result alone; a failure is an error still."""
    bench = make_bench("w1", "w2")
    bench.client.failing = {"w2": "no"}
    bench.client.messages["w1"] = ["a note"]
    status, out, err = bench.run("fastmcp auth list-tokens verbose-result")
    printed = json.loads(out)
    assert (status, err, bench.client.calls[0].get("page")) == (1, "w2: no\n", None)
    assert {name: sorted(result) for name, result in printed.items()} == dict.fromkeys(
        ["w1", "w2"], sorted(Result.model_fields)
    )
    assert (printed["w1"]["result"], printed["w1"]["messages"]) == ([], ["a note"])
    assert (printed["w2"]["failed"], printed["w2"]["errors"]) == (True, ["no"])


def test_a_verbose_result_goes_through_pipes(run: Run) -> None:
    """All of them take JSON."""
    assert run("fastmcp auth list-tokens verbose-result | json | include dry_run")[1].strip() == '"dry_run": false,'


@pytest.mark.parametrize(
    ("option", "printed"),
    [
        ("", "04:04:00.480 INFO     w1 running: half way\n"),
        ("quiet", ""),
        ("progress", "04:04:00.480 INFO     w1 running: starting\n04:04:00.480 INFO     w1 running: half way\n"),
    ],
)
def test_events_are_printed_as_the_options_say(make_bench: MakeBench, option: str, printed: str) -> None:
    """On stderr, beside the result."""
    bench = make_bench("w1")
    stamp = {"worker": "w1", "event_type": "progress", "status": "running", "timestamp": "22-Nov-2026 04:04:00.480"}
    bench.client.events = [read_event({**stamp, "message": text}) for text in ("starting", "half way")]
    bench.client.on_event = bench.session.console.event
    for command in ("fastmcp auth check-token token x", "fastmcp auth list-tokens"):
        assert bench.run(f"{command} {option}")[2] == printed
