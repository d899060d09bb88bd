"""Published tools and prompts of services that come and go, whatever they declare."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.inventory.tool_policy import ToolsInventory
from nfcli.worker.tools import catalogue as catalogue_module
from nfcli.worker.tools.catalogue import ListChange, ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy
from support.mcp.tool_entries import PROMPT, RESULT, entry

POLICY = ToolPolicy(
    ToolsInventory.model_validate(
        {
            "policy": [{"tasks": ["closed"], "action": "reject"}],
            "result_guardrails": [{"service": "*", "task": "changed", "type": "limit", "limit": 1000}],
        }
    )
)
NO_RULE = {"guardrails": [{"type": "like"}]}


@pytest.fixture
def catalogue() -> ToolCatalogue:
    """Return the catalogue of a worker whose service has one task."""
    return ToolCatalogue("w1", "fastmcp", [entry("own")], POLICY)


def names(catalogue: ToolCatalogue) -> list[str]:
    """Return the names of all tools."""
    return list(catalogue.tools)


def published(catalogue: ToolCatalogue, **changes: Any) -> dict[str, Any]:
    """Publish one task; return its tool as clients see it."""
    (name,) = catalogue.replace("net", [entry(**changes)])
    tool = catalogue.tools.get(name)
    assert tool is not None
    return tool.tool.model_dump(by_alias=True, exclude_none=True)


def test_task_of_another_service_becomes_a_tool(catalogue: ToolCatalogue) -> None:
    """It has description, schemas and hints; the schema of a result allows null, for failed tasks."""
    assert published(catalogue) == {
        "name": "service_net__task_ping",
        "description": "Ping devices.\n\nAll of them.",
        "inputSchema": {"type": "object", "properties": {"target": {"type": "string"}}, "required": ["target"]},
        "outputSchema": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "result": {"anyOf": [{"type": "boolean", "default": False}, {"type": "null"}]},
                    "failed": {"type": "boolean"},
                    "errors": {"type": "array", "items": {"type": "string"}},
                    "messages": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        "annotations": {"title": "Ping", "readOnlyHint": True},
    }


def test_own_tool_names_the_worker_in_its_schema() -> None:
    """Only this worker answers; an argument named job is the task's own."""
    schema = {"type": "object", "properties": {"job": {"type": "string"}}}
    (tool,) = ToolCatalogue("w1", "fastmcp", [entry(inputSchema=schema)], ToolPolicy()).tools.values()
    assert (tool.is_own, tool.tool.input_schema) == (True, schema)
    assert list((tool.tool.output_schema or {})["properties"]) == ["w1"]


def test_other_services_tools_have_no_argument_job(catalogue: ToolCatalogue) -> None:
    """NorFab's workers declare it as required, and set it themselves."""
    properties = {"job": {}, "target": {"type": "string"}}
    tool = published(catalogue, inputSchema={"type": "object", "properties": properties, "required": ["job", "target"]})
    assert tool["inputSchema"] == {
        "type": "object",
        "properties": {"target": {"type": "string"}},
        "required": ["target"],
    }
    tool = published(catalogue, inputSchema={"type": "object", "properties": {"job": {}}, "required": ["job"]})
    assert tool["inputSchema"] == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"type": "string"},
        {**RESULT, "properties": []},
        {**RESULT, "$defs": []},
        {**RESULT, "properties": {"result": {"$ref": "#/properties/status"}}},
        {**RESULT, "properties": {"result": {"$ref": "https://evil.example.com/schema"}}},
        {**RESULT, "properties": {"result": {"type": "text"}}},
        {**RESULT, "$id": "https://evil.example.com/schema"},
        {**RESULT, "description": "x" * 65_536},
    ],
    ids=str,
)
def test_unusable_schema_of_results_is_replaced(catalogue: ToolCatalogue, schema: object) -> None:
    """The replacement accepts every value, so the tool can be called."""
    usual = published(catalogue)["outputSchema"]["additionalProperties"]["properties"]
    result = published(catalogue, outputSchema=schema)["outputSchema"]["additionalProperties"]
    assert result["properties"] == {**usual, "result": {}}


def test_result_guardrails_loosen_the_schema(catalogue: ToolCatalogue) -> None:
    """Filtered results needn't match the task's schema."""
    catalogue.replace("net", [entry("changed")])
    tool = catalogue.tools.get("service_net__task_changed")
    assert tool is not None
    assert (tool.tool.output_schema or {})["additionalProperties"]["properties"]["result"] == {}


BROKEN = [
    (None, "the entry is not an object"),
    (entry(name="a b"), "the task's name is not 1 to 64 letters, digits, dots, dashes and underscores"),
    (entry(name=7), "the task's name is not 1 to 64 letters, digits, dots, dashes and underscores"),
    (entry(name="x" * 65), "the task's name is not 1 to 64 letters, digits, dots, dashes and underscores"),
    (entry(mcp=None), "mcp is neither an object nor false"),
    (entry(inputSchema=None), "inputSchema is not the schema of an object"),
    (entry(inputSchema={"type": "array"}), "inputSchema is not the schema of an object"),
    (entry(inputSchema={"type": "object", "properties": 1}), "inputSchema is not the schema of an object"),
    (entry(inputSchema={"type": "object", "required": "x"}), "inputSchema is not the schema of an object"),
    (entry(inputSchema={"type": "object", "title": "x" * 65_536}), "inputSchema is longer than 65536 bytes"),
    (entry(inputSchema={"type": "object", "title": "\ud800"}), "inputSchema can't be written as JSON"),
    (entry(inputSchema={"type": "object", "maximum": float("nan")}), "inputSchema can't be written as JSON"),
    (entry(inputSchema={"type": "object", "properties": {"a": {"type": "text"}}}), "inputSchema has an unknown type"),
    (
        entry(inputSchema={"type": "object", "anyOf": [{"$ref": "#/$defs/a"}]}),
        "inputSchema has a reference that doesn't resolve in it",
    ),
    (
        entry(inputSchema={"type": "object", "items": {"$ref": 7}}),
        "inputSchema has a reference that doesn't resolve in it",
    ),
    (entry(inputSchema={"type": "object", "required": [1]}), "inputSchema has an invalid required"),
    (entry(mcp={"annotations": {"readOnlyHint": "maybe"}}), "annotations are not valid tool annotations of MCP"),
    (entry(mcp={"annotations": [1]}), "annotations are not valid tool annotations of MCP"),
    (entry(mcp=NO_RULE), "task 'ping' of service 'net': mcp.guardrails[0]"),
]


@pytest.mark.parametrize(("broken", "reason"), BROKEN, ids=[reason for _, reason in BROKEN])
def test_invalid_entry_is_logged_once_and_skipped(
    catalogue: ToolCatalogue, caplog: pytest.LogCaptureFixture, broken: Any, reason: str
) -> None:
    """Services are polled: repeated problems must not fill the log."""
    for _ in range(3):
        assert catalogue.replace("net", [broken, entry()]) == ["service_net__task_ping"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].startswith("not published over MCP: net ")
    assert reason in caplog.messages[0]
    assert len(caplog.messages[0].splitlines()) == 1


def test_too_deeply_nested_schema_is_refused(catalogue: ToolCatalogue, caplog: pytest.LogCaptureFixture) -> None:
    """It would overflow the stack of whatever serializes it."""
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(5_000):
        schema = {"type": "object", "not": schema}
    assert catalogue.replace("net", [entry(inputSchema=schema)]) == []
    assert "inputSchema is nested more than 40 levels deep" in caplog.text


def test_tasks_that_are_not_tools_are_not_published(catalogue: ToolCatalogue, caplog: pytest.LogCaptureFixture) -> None:
    """Tasks with mcp false, rejected by the policy, or managing tokens are skipped without a log line."""
    hidden = [entry(mcp=False), entry("closed"), entry("bearer_token_list"), entry("bearer_token_x")]
    assert catalogue.replace("net", hidden) == []
    assert catalogue.replace("net", [entry(mcp=True)]) == ["service_net__task_ping"]
    assert names(ToolCatalogue("w1", "fastmcp", hidden, POLICY)) == []
    assert names(ToolCatalogue("w1", "fastmcp", [entry("run_shell_cmd")], ToolPolicy())) == []
    assert caplog.messages == []


def test_texts_are_sanitized_and_truncated(catalogue: ToolCatalogue) -> None:
    """Terminals and models read them; a description that isn't text is empty."""
    tool = published(catalogue, description="a\x1b[31m\ud800\tb" + "x" * 5_000, mcp={"title": " T\n itle\x00 "})
    assert tool["description"].startswith("a[31m")
    assert (len(tool["description"]), tool["description"][-1]) == (4_000, "…")
    assert (tool["title"], "annotations" in tool) == ("T itle", False)
    assert published(catalogue, description=None)["description"] == ""


def test_prompts_are_published_with_their_task_and_invalid_ones_skipped(
    catalogue: ToolCatalogue, caplog: pytest.LogCaptureFixture
) -> None:
    """The task's tool is published regardless."""
    call = {**PROMPT, "messages": [{"role": "user", "content": {"type": "text", "text": "{{ device() }}"}}]}
    assert len(catalogue.replace("net", [entry(mcp={"prompts": [PROMPT, call, PROMPT, 7]})])) == 1
    (prompt,) = catalogue.prompts.values()
    assert catalogue.prompts["service_net__task_ping__prompt_look"] is prompt
    assert prompt.prompt.model_dump(exclude_none=True) == {
        "name": "service_net__task_ping__prompt_look",
        "title": "Look",
        "description": "Look at it",
        "arguments": [{"name": "device", "description": "Which", "required": True}],
    }
    assert len(caplog.messages) == 3
    assert "not allowed in prompts: call" in caplog.messages[0]
    catalogue.replace("net", [entry(mcp={"prompts": [PROMPT] * 65})])
    assert "mcp.prompts is not a list of at most 64 prompts" in caplog.messages[-1]
    catalogue.replace("net", [entry("closed", mcp={"prompts": [PROMPT]})])
    assert catalogue.prompts == {}


def test_services_are_replaced_and_removed(catalogue: ToolCatalogue) -> None:
    """The worker's own tools always stay; tools are ordered by name."""
    catalogue.replace("net", [entry("b"), entry("a")])
    catalogue.replace("lab", [entry()])
    own, lab = "service_fastmcp__task_own", "service_lab__task_ping"
    assert names(catalogue) == [own, lab, "service_net__task_a", "service_net__task_b"]
    catalogue.replace("net", [entry("c")])
    assert names(catalogue) == [own, lab, "service_net__task_c"]
    catalogue.retain(["net"])
    assert names(catalogue) == [own, "service_net__task_c"]
    catalogue.retain([])
    assert names(catalogue) == [own]
    assert catalogue.tools.get(lab) is None


@pytest.mark.parametrize("service", ["fastmcp", "a b", "", "x" * 65, "net\n"])
def test_service_with_own_or_invalid_name_is_not_published(catalogue: ToolCatalogue, service: str) -> None:
    """Workers of a fabric may register under any name."""
    assert catalogue.replace(service, [entry("own"), entry("other")]) == []
    assert names(catalogue) == ["service_fastmcp__task_own"]


@pytest.mark.parametrize("answer", [None, 7, "tasks", {"name": "x"}])
def test_answer_that_is_not_a_list_changes_nothing(catalogue: ToolCatalogue, answer: Any) -> None:
    """The service keeps its tools."""
    catalogue.replace("net", [entry()])
    assert catalogue.replace("net", answer) == ["service_net__task_ping"]


def test_published_tool_wins_over_a_new_one_of_the_same_name(
    catalogue: ToolCatalogue, caplog: pytest.LogCaptureFixture
) -> None:
    """The order of services and entries doesn't matter."""
    catalogue.replace("z", [])
    catalogue.replace("a", [entry("b__task_c", description="first", mcp={"prompts": [PROMPT]})])
    assert catalogue.replace("a__task_b", [entry("c", description="second"), entry("d"), entry("d")]) == [
        "service_a__task_b__task_d"
    ]
    tool = catalogue.tools.get("service_a__task_b__task_c")
    assert tool is not None
    assert (tool.service, tool.tool.description) == ("a", "first")
    catalogue.replace("z", [entry("x__task_y", description="third")])
    catalogue.replace("z__task_x", [entry("y", description="fourth")])
    catalogue.replace("z", [entry("other")])
    assert catalogue.replace("z__task_x", [entry("y", description="fourth")]) == ["service_z__task_x__task_y"]
    assert catalogue.replace("z", [entry("x__task_y", description="third")]) == []
    assert sum("exists already" in message for message in caplog.messages) == 4


def test_numbers_of_tools_and_prompts_are_limited(
    catalogue: ToolCatalogue, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are limits for tasks of a service, and for all tools and prompts; published ones stay."""
    monkeypatch.setattr(catalogue_module, "MAX_ENTRIES_OF_A_SERVICE", 3)
    monkeypatch.setattr(catalogue_module, "MAX_TOOLS", 5)
    monkeypatch.setattr(catalogue_module, "MAX_PROMPTS", 1)
    prompts = [PROMPT, {**PROMPT, "name": "other"}]
    tasks = [entry(f"t{number}", mcp={"prompts": prompts}) for number in range(4)]
    assert catalogue.replace("net", tasks) == [f"service_net__task_t{number}" for number in range(3)]
    assert catalogue.replace("a", tasks[:3]) == ["service_a__task_t0"]
    assert len(catalogue.prompts) == 1
    monkeypatch.setattr(catalogue_module, "MAX_PROMPTS_OF_A_SERVICE", 3)
    assert len(catalogue.replace("net", [*tasks[:2], entry("t2", mcp={"prompts": 7})])) == 3
    expected = ("more than 3 tasks", "more than 5 tools", "more than 1 prompts", "more than 3 prompts")
    assert [sum(text in message for message in caplog.messages) for text in expected] == [1, 1, 1, 1]


def test_log_lines_are_limited(
    catalogue: ToolCatalogue, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service can invent any number of names."""
    monkeypatch.setattr(catalogue_module, "MAX_WARNINGS", 5)
    catalogue.replace("net", [entry(f"t{number}", mcp=None) for number in range(10)])
    assert len(caplog.messages) == 5


def test_listeners_are_called_with_what_has_changed(catalogue: ToolCatalogue) -> None:
    """They are called after a change only, and see the new snapshot."""
    calls: list[tuple[ListChange, int]] = []
    catalogue.on_change.append(lambda change: calls.append((change, len(catalogue.tools))))
    catalogue.replace("net", [entry()])
    catalogue.replace("net", [entry()])
    catalogue.retain(["net"])
    catalogue.replace("net", [entry(mcp={**entry()["mcp"], "prompts": [PROMPT]})])
    catalogue.replace("net", [entry(description="new", mcp={**entry()["mcp"], "prompts": [PROMPT]})])
    catalogue.replace("lab", [entry(mcp=False)])
    catalogue.retain([])
    tools, prompts = ListChange(tools=True, prompts=False), ListChange(tools=False, prompts=True)
    assert calls == [(tools, 2), (prompts, 2), (tools, 2), (ListChange(tools=True, prompts=True), 1)]


def test_threads_read_consistent_snapshots(catalogue: ToolCatalogue) -> None:
    """A reader finds all tools of a service or none, whatever other threads replace."""
    tasks = [entry(f"t{number}") for number in range(10)]
    seen: set[int] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.add(sum(tool.service == "net" for tool in catalogue.tools.values()))

    def change(service: str) -> None:
        for _ in range(20):
            catalogue.replace(service, tasks)
            catalogue.replace(service, [])

    reader = threading.Thread(target=read)
    reader.start()
    changing = [threading.Thread(target=change, args=(service,)) for service in ("net", "lab")]
    for thread in changing:
        thread.start()
    for thread in changing:
        thread.join()
    ended.set()
    reader.join()
    assert seen <= {0, 10}
    assert names(catalogue) == ["service_fastmcp__task_own"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*entry(), "other"]), _json), _json)
def test_any_answer_leaves_other_tools_published(changes: dict[str, Any], answer: Any) -> None:
    """Property: whatever a service answers, nothing is raised, and the tools of the others stay."""
    catalogue = ToolCatalogue("w1", "fastmcp", [entry("own")], ToolPolicy())
    catalogue.replace("net", [{**entry(), **changes}, entry("good")])
    catalogue.replace("lab", answer)
    assert {"service_fastmcp__task_own", "service_net__task_good"} <= set(names(catalogue))
