"""Result guardrails judge all of a result: every field, keys as well as values, numbers as well as texts."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from nfcli.models.inventory.tool_policy import ToolsInventory
from nfcli.models.protocol.jobs import Result
from nfcli.worker.tools.guardrails import ToolGuardrails
from nfcli.worker.tools.policy import ToolPolicy

TOOL = "service_nornir__task_cli"
SECRET = "s3cret"
CARD = 4_111_111_111_111_111
REPLACE = {"type": "replace", "match": [SECRET, r"4111\d{12}(\.0)?"], "replace": "-"}
WITHHOLD = {"type": "regex", "match": [SECRET, r"4111\d{12}"]}
FIELDS = [name for name in Result.model_fields if name not in {"failed", "dry_run"}]
NOTICE = "withheld by a guardrail"


def guardrails(*rules: dict[str, Any]) -> ToolGuardrails:
    """Return the guardrails of a tool whose task declares these rules about results."""
    return ToolPolicy(ToolsInventory()).guardrails("nornir", "cli", {"result_guardrails": list(rules)})


@pytest.mark.parametrize("field", [*FIELDS, "added_by_a_later_version"])
@pytest.mark.parametrize(
    ("value", "replaced"),
    [
        (SECRET, "-"),
        ([SECRET], ["-"]),
        ({"a": [{SECRET: 1}]}, {"a": [{"-": 1}]}),
        (CARD, "-"),
        ([float(CARD), 5, 5.5], ["-", 5, 5.5]),
        ({"n": CARD, str(CARD): None}, {"n": "-", "-": None}),
    ],
    ids=str,
)
def test_match_in_any_field_is_replaced_or_withheld(field: str, value: Any, replaced: Any) -> None:
    """Whatever a worker puts there: other services' results aren't validated."""
    entry = Result(result="fine").model_dump(mode="json") | {field: value}
    assert guardrails(REPLACE).filter_results(TOOL, {"w": entry}) == {"w": entry | {field: replaced}}
    withheld = guardrails(WITHHOLD).filter_results(TOOL, {"w": entry})["w"]
    text = json.dumps(withheld)
    assert NOTICE in text
    assert SECRET not in text
    assert str(CARD) not in text
    assert withheld | {field: None} == entry | {field: None}


def test_lists_of_lines_stay_lists() -> None:
    """Clients validate them."""
    entry = {"errors": [SECRET], "messages": [SECRET], "resources": [SECRET], "resources_failed": [SECRET]}
    found = guardrails(WITHHOLD).filter_results(TOOL, {"w": entry})["w"]
    assert found == {name: [f"{NOTICE}: {name}[0]"] for name in entry}


def test_names_of_fields_and_workers_that_are_data_are_judged() -> None:
    """The names that every result has stay, and so do those that a worker can have."""
    results = {"w-1": {SECRET: 1, "result": 2, "-": 3}, f"{SECRET} of w-2": {"result": 1}}
    assert guardrails(REPLACE).filter_results(TOOL, results) == {
        "w-1": {"- (2)": 1, "result": 2, "-": 3},
        "- of w-2": {"result": 1},
    }
    assert guardrails(WITHHOLD).filter_results(TOOL, results) == {
        "w-1": {NOTICE: 1, "result": 2, "-": 3},
        NOTICE: {"result": 1},
    }
    named = {"type": "replace", "match": "result|failed|w", "replace": "-"}
    assert guardrails(named).filter_results(TOOL, {"w-1": {"result": "w", "failed": False}}) == {
        "w-1": {"result": "-", "failed": False}
    }


def test_booleans_in_data_are_judged_in_both_notations() -> None:
    """Whether a task failed stays, as long as it is a boolean; null never matches."""
    flags = {"failed": True, "dry_run": True}
    rule = {"type": "replace", "match": "^(true|False|None|null)$", "replace": "-"}
    entry = {**flags, "result": [True, False, None]}
    assert guardrails(rule).filter_results(TOOL, {"w": entry}) == {"w": {**flags, "result": ["-", "-", None]}}
    assert guardrails(REPLACE).filter_results(TOOL, {"w": {"failed": SECRET}}) == {"w": {"failed": "-"}}


def test_notice_has_no_match_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A path to a match may match; the log names the field alone."""
    caplog.set_level(logging.WARNING)
    nested = {"type": "regex", "match": [r"inner\.\w+$", "^x$"]}
    entry = {"result": {"inner": {"key": "x"}}}
    assert guardrails(nested).filter_results(TOOL, {"w": entry}) == {"w": {"result": NOTICE}}
    assert "inner" not in caplog.text


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (REPLACE, "no - here"),
        (WITHHOLD, f"{NOTICE}: result"),
        ({**WITHHOLD, "message": "ask"}, "ask"),
        ({"type": "limit", "limit": 5, "message": "too long"}, "too long"),
        ({"type": "regex", "match": "(.*)*!"}, f"no {SECRET} here"),
    ],
    ids=str,
)
def test_text_without_a_result_is_judged_too(rule: dict[str, Any], text: str) -> None:
    """Such as the reason why a call failed."""
    assert guardrails(rule).filter_text(TOOL, f"no {SECRET} here") == text


def test_names_and_uuids_are_judged_where_results_are_left_out() -> None:
    """The notice takes the place of a result, and the rest of it must not say more than the result would."""
    results = {"w-1": {"juuid": SECRET}, f"{SECRET} 2": {"juuid": "j2"}}
    found = guardrails({"type": "limit", "limit": 1}, REPLACE).filter_results(TOOL, results)
    assert [(name, entry["juuid"]) for name, entry in found.items()] == [("w-1", "-"), ("- 2", "j2")]
    growing = [{"type": "replace", "match": "(?s)(.+)", "replace": r"\1\1"}] * 40
    found = guardrails(*growing).filter_results(TOOL, results)
    assert [(name, entry["juuid"]) for name, entry in found.items()] == [("w-1", None), ("worker 2", None)]
