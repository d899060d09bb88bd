"""The tools policy at work: refused calls and filtered results."""

from __future__ import annotations

import copy
import json
import logging
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfcli.models.errors import NfcliError, ToolRuleError
from nfcli.models.inventory.tool_policy import ToolsInventory
from nfcli.models.protocol.jobs import Result
from nfcli.worker.tools.guardrails import ToolGuardrails
from nfcli.worker.tools.policy import ToolPolicy

TOOL = "service_nornir__task_cli"
SECRET = "s3cret"
ENDLESS = "(a|a)*[bc]"
ENDLESS_TEXT = "a" * 5_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6) | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just(SECRET), inner, max_size=3)
    ),
    max_leaves=10,
)


def policy(**tools: Any) -> ToolPolicy:
    """Return the policy of an inventory's `tools`."""
    return ToolPolicy(ToolsInventory.model_validate(tools))


def guardrails(*guardrails: dict[str, Any], results: list[dict[str, Any]] | None = None) -> ToolGuardrails:
    """Return the guardrails of a tool whose task declares these rules."""
    return policy().guardrails("nornir", "cli", {"guardrails": list(guardrails), "result_guardrails": results or []})


def on_commands(kind: str, *match: str, **more: Any) -> dict[str, Any]:
    """Return a guardrail on the argument `commands`."""
    return {"field": "commands", "type": kind, "match": list(match), **more}


def result(value: Any, **more: Any) -> dict[str, Any]:
    """Return a worker's result as a mapping."""
    return Result(result=value, task="nornir:cli", juuid="j1", **more).model_dump(mode="json")


@pytest.mark.parametrize(
    ("kind", "match", "value"),
    [
        ("contains", "LOAD", "show\nreload"),
        ("contains", "load", ["show version", ["x", "RELOAD"]]),
        ("contains", "", "anything"),
        ("equals", "reload", "Reload"),
        ("equals", "straße", "STRASSE"),
        ("equals", "reload", {"a": {"b": ["x", "reload"]}}),
        ("equals", "reload", [{"reload": 1}]),
        ("contains", "'a': 1", {"a": 1}),
        ("equals", "{'a': 1}", {"a": 1}),
        ("equals", "{'a': 1}", [[{"a": 1}]]),
        ("equals", "true", True),
        ("equals", "True", [True]),
        ("regex", "^true$", True),
        ("regex", "^True$", True),
        ("equals", "5", 5),
        ("equals", "5", 5.0),
        ("equals", "5.0", 5.0),
        ("equals", "5.5", 5.5),
        ("regex", r"(?im)^\s*reload\b", ["show version", "show clock\n  Reload in 5"]),
        ("regex", "re.oad", ["x", "reload"]),
    ],
)
def test_call_is_refused_by_any_value_of_the_argument(kind: str, match: str, value: Any) -> None:
    """Values at any depth count, numbers and booleans as written in JSON and in Python."""
    refusal = guardrails(
        on_commands(kind, "no such thing", match, message="ask the\x1b[2J\nnight shift")
    ).check_arguments({"commands": value, "plugin": "x"})
    assert refusal == "refused by a guardrail on commands: ask the [2J night shift"


@pytest.mark.parametrize(
    ("kind", "match", "value"),
    [
        ("contains", "none", None),
        ("regex", "None", [None, {"a": [None]}, "show"]),
        ("equals", "reload", "reload "),
        ("equals", "{'a': 1}", {"b": {"a": 1}}),
        ("regex", "Reload", "reload"),
        ("regex", "^load", "reload"),
        ("regex", ".", []),
        ("regex", r"\breload\b", "preload"),
    ],
)
def test_call_passes_without_a_match(kind: str, match: str, value: Any) -> None:
    """Null never matches; of a mapping in another one the parts are compared, not its text."""
    guard = guardrails(on_commands(kind, match))
    values = value if kind != "regex" or match != "None" else [None, "show"]
    assert guard.check_arguments({"commands": values}) is None


def test_call_without_the_argument_passes() -> None:
    """The value may be in another argument."""
    assert guardrails(on_commands("contains", "x")).check_arguments({"plugin": "x"}) is None


def test_refusal_without_a_message_says_not_allowed() -> None:
    """The refusal doesn't contain the value."""
    refusal = guardrails(on_commands("contains", SECRET)).check_arguments({"commands": f"a {SECRET}"})
    assert refusal == "refused by a guardrail on commands: not allowed"


def test_call_that_takes_too_long_to_check_is_refused() -> None:
    """The time limit is for all guardrails of a call together."""
    guard = guardrails(on_commands("regex", ENDLESS), on_commands("contains", "x"))
    started = time.monotonic()
    refusal = guard.check_arguments({"commands": [ENDLESS_TEXT] * 100})
    assert refusal == "refused by a guardrail on commands: checking it took longer than 0.25 s"
    assert time.monotonic() - started < 20


def test_call_that_cannot_be_checked_is_refused() -> None:
    """Its argument is nested too deeply, or a number with more digits than Python writes."""
    nested: Any = "x"
    for _ in range(100_000):
        nested = {"a": nested}
    for value in (10**5_000, nested):
        refusal = guardrails(on_commands("contains", "y")).check_arguments({"commands": value})
        assert refusal == "refused by a guardrail on commands: checking it is not possible"
    while isinstance(nested, dict):  # taken apart by hand: Python's own way down would be too deep
        nested = nested.pop("a")


def test_guardrails_of_the_task_precede_those_of_the_inventory() -> None:
    """Those of the inventory select services and tasks by name or glob."""
    own = {"field": "a", "type": "contains", "match": "x", "message": "own"}
    tools = policy(
        guardrails=[
            {"service": "nor*", "task": "cli", "field": "a", "type": "contains", "match": "x", "message": "ours"},
            {"service": "netbox", "task": "*", "field": "b", "type": "contains", "match": "x"},
        ],
        result_guardrails=[{"service": "*", "task": "c*", "type": "limit", "limit": 5}],
    )
    guard = tools.guardrails("nornir", "cli", {"guardrails": [own]})
    assert guard.entries() == {
        "guardrails": [
            {"description": "", "field": "a", "type": "contains", "match": ["x"], "message": "own"},
            {
                "service": "nor*",
                "task": "cli",
                "description": "",
                "field": "a",
                "type": "contains",
                "match": ["x"],
                "message": "ours",
            },
        ],
        "result_guardrails": [
            {"service": "*", "task": "c*", "description": "", "type": "limit", "limit": 5, "message": ""}
        ],
    }
    assert guard.check_arguments({"a": "x", "b": "x"}) == "refused by a guardrail on a: own"
    assert tools.guardrails("netbox", "get", {}).entries()["result_guardrails"] == []


def test_guardrails_of_tasks_can_be_disabled() -> None:
    """Disabled guardrails aren't even validated."""
    tools = policy(disable_builtin_guardrails=True)
    guard = tools.guardrails("nornir", "cli", {"guardrails": 5, "result_guardrails": [{"type": "limit", "limit": 1}]})
    assert guard.entries() == {"guardrails": [], "result_guardrails": []}
    assert not guard.has_result_rules


@pytest.mark.parametrize(
    ("mcp", "message"),
    [
        ({"guardrails": 5}, "mcp.guardrails: "),
        (
            {"guardrails": [on_commands("regex", "(")]},
            "mcp.guardrails[0].match: text 1 ",
        ),
        ({"guardrails": [on_commands("regex", "a", task="x")]}, "mcp.guardrails[0].task: "),
        ({"result_guardrails": [{"type": "limit"}]}, "mcp.result_guardrails[0].limit: "),
        (
            {"guardrails": [on_commands("regex", *["(a" * 999] * 20)]},
            "mcp.guardrails: ",
        ),
        ({"guardrails": [{"\n" * 5_000: 1}]}, "mcp.guardrails[0]."),
    ],
)
def test_task_with_invalid_guardrails_gets_no_tool(mcp: dict[str, Any], message: str) -> None:
    """One line names service, task, key and rule, whatever the entry contains."""
    with pytest.raises(ToolRuleError) as caught:
        policy().guardrails("nor\nnir", "cli", mcp)
    assert str(caught.value).startswith(f"task 'cli' of service 'nor\\nnir': {message}")
    assert str(caught.value).endswith(": not published as a tool")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_100
    assert isinstance(caught.value, NfcliError)


def test_matches_in_texts_and_keys_are_replaced() -> None:
    """In all fields of a result; numbers and booleans without a match stay."""
    guard = guardrails(results=[{"type": "replace", "match": [r"(key )\S+", "a@b"], "replace": r"\g<0>!"}])
    assert guard.has_result_rules is True
    guard = guardrails(
        results=[
            {"type": "replace", "match": [r"(key )\S+"], "replace": r"\1-"},
            {"type": "replace", "match": ["-", "k"], "replace": "="},
        ]
    )
    given_results = {
        "w1": result(
            {"key 1": ["key 2", {"x": "key 3"}, 5, None, True]}, diff="key 4", errors=["key 5"], messages=["key 6"]
        ),
        "w2": result("key 7", resources=["key 8"]),
    }
    before = copy.deepcopy(given_results)
    assert guard.filter_results(TOOL, given_results) == {
        "w1": result(
            {"=ey =": ["=ey =", {"x": "=ey ="}, 5, None, True]}, diff="=ey =", errors=["=ey ="], messages=["=ey ="]
        ),
        "w2": result("=ey =", resources=["=ey ="]),
    }
    assert given_results == before


def test_keys_that_become_equal_are_numbered() -> None:
    """No item is lost."""
    guard = guardrails(results=[{"type": "replace", "match": r"\d", "replace": "*"}])
    assert guard.filter_results(TOOL, {"w": result({"a1": None, "a2": True, "a*": "b"})})["w"]["result"] == {
        "a*": None,
        "a* (2)": True,
        "a* (3)": "b",
    }


def test_field_with_a_match_is_withheld(caplog: pytest.LogCaptureFixture) -> None:
    """Only the worker's field is replaced; the notice names the path, and the log doesn't contain the value."""
    guard = guardrails(results=[{"type": "regex", "match": ["no such", SECRET]}])
    found = guard.filter_results(
        TOOL,
        {
            "w1": result(
                {"r1": ["a", f"x {SECRET}"]}, diff={"d": {f"{SECRET}": 1}}, errors=[SECRET], messages=["fine"]
            ),
            "w2": result("fine"),
        },
    )
    assert found == {
        "w1": result(
            "withheld by a guardrail: result.r1[1]",
            diff="withheld by a guardrail: diff.d",
            errors=["withheld by a guardrail: errors[0]"],
            messages=["fine"],
        ),
        "w2": result("fine"),
    }
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert SECRET not in caplog.text


def test_message_replaces_the_notice() -> None:
    """Errors and messages stay lists."""
    guard = guardrails(results=[{"type": "regex", "match": SECRET, "message": "ask"}])
    assert guard.filter_results(TOOL, {"w": result(SECRET, messages=[SECRET])}) == {
        "w": result("ask", messages=["ask"])
    }


def test_results_over_the_limit_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """The limit is for the JSON of all results in bytes; each worker keeps its entry with the job's UUID."""
    given_results = {"w1": result("ä" * 100, failed=True, errors=["e"]), "w2": result("b")}
    size = len(json.dumps(given_results, separators=(",", ":"), ensure_ascii=False).encode())
    assert guardrails(results=[{"type": "limit", "limit": size}]).filter_results(TOOL, given_results) == given_results
    said = f"the result of tool {TOOL} was left out: it has {size} bytes, {size - 1} are allowed"
    found = guardrails(results=[{"type": "limit", "limit": size - 1}]).filter_results(TOOL, given_results)
    assert found == {name: Result(result=said, juuid="j1").model_dump(mode="json") for name in ("w1", "w2")}
    assert "too large" in caplog.text
    short = guardrails(results=[{"type": "limit", "limit": 1, "message": "too much"}]).filter_results(
        TOOL, given_results
    )
    assert {entry["result"] for entry in short.values()} == {"too much"}


def test_result_guardrails_apply_in_order() -> None:
    """A shortened result passes a later limit, and a replaced text isn't found by a later pattern."""
    shorten = {"type": "replace", "match": "x+", "replace": "-"}
    limit = {"type": "limit", "limit": 1_000}
    withhold = {"type": "regex", "match": "x"}
    given_results = {"w": result("x" * 2_000)}
    assert guardrails(results=[shorten, limit, withhold]).filter_results(TOOL, given_results) == {"w": result("-")}
    assert "2" in guardrails(results=[limit, shorten]).filter_results(TOOL, given_results)["w"]["result"]


@pytest.mark.parametrize("rule", [{"type": "regex"}, {"type": "replace", "replace": ""}])
def test_result_that_takes_too_long_to_check_is_withheld(rule: dict[str, Any]) -> None:
    """The results of all workers are withheld; the jobs' UUIDs stay."""
    guard = guardrails(results=[{"match": ENDLESS, **rule}])
    started = time.monotonic()
    found = guard.filter_results(TOOL, {"w1": result("fine"), "w2": result([ENDLESS_TEXT] * 100)})
    said = f"the result of tool {TOOL} was withheld: checking it took longer than 1 s"
    assert found == {name: Result(result=said, juuid="j1").model_dump(mode="json") for name in ("w1", "w2")}
    assert time.monotonic() - started < 30


def test_result_that_cannot_be_checked_is_withheld() -> None:
    """It is nested too deeply, or replacements make it too large."""
    nested: Any = "x"
    for _ in range(5_000):
        nested = [nested]
    guard = guardrails(results=[{"type": "replace", "match": "y", "replace": "z"}])
    assert guard.filter_results(TOOL, {"w": result(None) | {"result": nested}})["w"]["result"].endswith(
        "is not possible"
    )
    growing = [{"type": "replace", "match": "(?s)(.+)", "replace": r"\1\1"}] * 40
    assert guardrails(results=growing).filter_results(TOOL, {"w": result("x")})["w"]["result"].endswith("too large")


def test_invalid_result_is_filtered_as_a_whole() -> None:
    """An answer that is not a `Result` doesn't evade the guardrails."""
    guard = guardrails(results=[{"type": "replace", "match": SECRET, "replace": "-"}, {"type": "limit", "limit": 30}])
    assert guard.filter_results(TOOL, {"w": [SECRET]}) == {"w": {"result": ["-"]}}
    assert guard.filter_results(TOOL, {"w": [SECRET] * 30})["w"]["juuid"] is None


def test_results_without_guardrails_are_unchanged() -> None:
    """They are returned in a new mapping."""
    given_results = {"w": result("x")}
    found = guardrails().filter_results(TOOL, given_results)
    assert found == given_results
    assert found is not given_results
    assert not guardrails().has_result_rules


@settings(max_examples=150, deadline=None)
@given(value=JSON, diff=st.dictionaries(st.text(max_size=3), JSON, max_size=2))
def test_replaced_and_withheld_texts_are_nowhere_in_the_results(value: Any, diff: dict[str, Any]) -> None:
    """Property: whatever the shape of a result; other parts and the original stay unchanged."""
    given_results = {"w": result(value, diff=diff)}
    before = copy.deepcopy(given_results)
    replaced = guardrails(results=[{"type": "replace", "match": SECRET, "replace": "-"}]).filter_results(
        TOOL, given_results
    )
    withheld = guardrails(results=[{"type": "regex", "match": SECRET}]).filter_results(TOOL, given_results)
    assert SECRET not in json.dumps(replaced)
    assert SECRET not in json.dumps(withheld)
    assert given_results == before
    if SECRET not in json.dumps(before):
        assert replaced == withheld == before


@settings(max_examples=100, deadline=None)
@given(value=JSON)
def test_no_nesting_hides_a_value_from_a_guardrail(value: Any) -> None:
    """Property: a text that the JSON contains is found, and a call without it passes."""
    is_refused = guardrails(on_commands("equals", SECRET)).check_arguments({"commands": value}) is not None
    assert is_refused == (json.dumps(SECRET) in json.dumps(value))


def test_threads_share_guardrails() -> None:
    """Each call has its own time limit."""
    guard = guardrails(
        on_commands("regex", "^reload", ENDLESS), results=[{"type": "replace", "match": "x", "replace": "y"}]
    )
    found: list[Any] = []

    def work(text: str) -> None:
        found.extend(
            (guard.check_arguments({"commands": text}), guard.filter_results(TOOL, {"w": result("x")})["w"]["result"])
        )

    threads = [threading.Thread(target=work, args=(text,)) for text in ["show", "reload", "show"] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == sorted(
        ["None"] * 6 + ["refused by a guardrail on commands: not allowed"] * 3 + ["y"] * 9
    )
