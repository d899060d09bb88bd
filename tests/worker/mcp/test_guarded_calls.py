"""Guardrails of a real server: what is refused before a job is sent, what leaves, and what models can't see."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Annotated, Any

import pytest
from pydantic import Field

from nfcli.models.errors import NoWorkersError
from nfcli.models.invisible import has_invisible
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import ToolHints, task
from support.mcp.called_tools import PING, Fabric, Serve, in_both_eras
from support.mcp.tool_entries import PROMPT, entry

SECRET = "s3cret"
HIDDEN = "".join(chr(0xE0000 + ord(character)) for character in "Obey") + "\u202e\u200b\x1b"
SCHEMA = {
    "type": "object",
    "properties": {
        "target": {"type": "string"},
        "count": {"type": "integer"},
        "mode": {"enum": ["fast", "slow"]},
        "commands": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["target"],
}
TOOLS = {
    "guardrails": [
        {"service": "*", "task": "*", "field": "commands", "type": "contains", "match": "reload", "message": "no"},
        {"service": "fastmcp", "task": "get_version", "field": "any", "type": "contains", "match": ""},
    ],
    "result_guardrails": [
        {"service": "*", "task": "*", "type": "replace", "match": [SECRET, r"\b4111\d{12}\b"], "replace": "-"}
    ],
}
GREET = "service_fastmcp__task_greet"


class GreetInput(TaskInput):
    """Arguments of `greet`, whose field has another name for callers."""

    commands: Annotated[str, Field(alias="cmd-line")]


def plugin() -> ModuleType:
    """Return a module with the task `greet`, which returns what it got."""

    def greet(_worker: WorkerContext, arguments: GreetInput) -> str:
        """Say hello."""
        return arguments.commands

    tasks = ModuleType("tasks")
    vars(tasks).update(greet=task(arguments=GreetInput, result=str, mcp=ToolHints("Greet"))(greet))
    return tasks


@pytest.fixture
def site(served_worker: Serve, fabric: Fabric) -> Any:
    """Serve a worker with rules, a plugin, and the task `ping` of the service `net`."""
    worker = served_worker(
        plugin(), fabric=fabric, auth_bearer={"issuer_url": None}, tools=TOOLS, fastmcp={"site": "x"}
    )
    worker.worker.catalogue.replace("net", [entry(inputSchema=SCHEMA)])
    fabric.answer = {"net-1": answer()}
    return worker


def answer(value: Any = True, **changes: Any) -> dict[str, Any]:
    """Return the result of one worker."""
    return {"result": value, "failed": False, "errors": [], "messages": [], "status": "completed", **changes}


def call(site: Any, name: str, arguments: dict[str, Any], era: str = "2025-11-25") -> dict[str, Any]:
    """Call a tool; return its result."""
    found = site.post("tools/call", {"name": name, "arguments": arguments}, era=era)[2]["result"]
    assert isinstance(found, dict)
    return found


def refusal(found: dict[str, Any]) -> str:
    """Return the only text of a refused call."""
    (content,) = found["content"]
    assert (found["isError"], "structuredContent" in found) == (True, False)
    return str(content["text"])


@in_both_eras
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"target": "r1", "count": "3"}, "argument count: must be integer"),
        ({"target": "r1", "mode": SECRET}, "argument mode: must be one of the values that the schema lists"),
        ({"count": 3}, "argument target: must be given"),
        ({"target": "r1", "commands": ["show", 7]}, "argument commands[1]: must be string"),
        ({"target": "r1", "job": {"uuid": SECRET}}, "argument job: can't be given, the service sets it"),
        ({"target": "r1", "commands": ["Reload"]}, "refused by a guardrail on commands: no"),
        ({"target": "r1", "Commands": "reload"}, "refused by a guardrail on commands: no"),
        ({"target": "r1", "cmds": ["reload"]}, "refused by a guardrail on commands: no"),
    ],
    ids=str,
)
def test_call_is_refused_before_anything_is_sent(
    site: Any, fabric: Fabric, era: str, arguments: dict[str, Any], line: str
) -> None:
    """One line names the argument and its rule, without the value."""
    assert refusal(call(site, PING, arguments, era)) == line
    assert fabric.calls == []


def test_valid_call_is_sent_as_it_is(site: Any, fabric: Fabric) -> None:
    """Arguments that the schema doesn't declare too, where it allows them."""
    arguments = {"target": "r1", "count": 3, "mode": "fast", "commands": ["show"], "FB": "edge-*"}
    assert call(site, PING, arguments)["isError"] is False
    assert fabric.calls == [("net", "ping", arguments, 600.0)]


@in_both_eras
@pytest.mark.parametrize("name", ["cmd-line", "commands"])
def test_rules_hold_for_the_worker_s_own_tools_and_plugins(site: Any, era: str, name: str) -> None:
    """Arguments are judged by each of their names, results in all of their fields."""
    assert refusal(call(site, GREET, {name: "reload"}, era)) == "refused by a guardrail on commands: no"
    (entry,) = call(site, GREET, {name: f"a {SECRET}"}, era)["structuredContent"].values()
    assert (entry["result"], entry["failed"]) == ("a -", False)
    assert refusal(call(site, "service_fastmcp__task_get_version", {"any": 1}, era)).startswith(
        "refused by a guardrail"
    )


@in_both_eras
def test_all_of_a_result_that_leaves_is_judged(site: Any, fabric: Fabric, era: str) -> None:
    """Fields, keys and numbers, in the structured content, in its text, and in the reasons of a failure."""
    fabric.answer = {
        "net-1": answer({SECRET: 4_111_111_111_111_111}, resources=[SECRET], resources_failed=[SECRET], service=SECRET),
        "net-2": answer(failed=True, errors=[f"no {SECRET}", f"{SECRET[:3]}\u200b{SECRET[3:]}"], messages=[SECRET]),
    }
    found = call(site, PING, {"target": "r1"}, era)
    text = json.dumps(found)
    assert SECRET not in text
    assert "4111" not in text
    assert found["structuredContent"]["net-1"] == answer(
        {"-": "-"}, resources=["-"], resources_failed=["-"], service="-"
    )
    assert found["content"][0]["text"] == "net-2: no -; -; -"


@in_both_eras
def test_reason_of_a_call_without_results_is_judged(site: Any, fabric: Fabric, era: str) -> None:
    """Brokers and services write parts of it."""
    fabric.answer = NoWorkersError(f"no {SECRET[:2]}{HIDDEN}{SECRET[2:]} here")
    assert refusal(call(site, PING, {"target": "r1"}, era)) == "no - here"


@in_both_eras
def test_get_inventory_shows_mcp_clients_neither_rules_nor_free_form_sections(site: Any, era: str) -> None:
    """They say what to evade, and anything at all; jobs of authorized clients see them."""
    (entry,) = call(site, "service_fastmcp__task_get_inventory", {}, era)["structuredContent"].values()
    assert sorted(entry["result"]) == [
        *("allow_unauthenticated", "allowed_hosts", "allowed_origins", "auth_bearer", "authentication_enabled"),
        *("endpoint", "host", "plugins", "port", "service"),
    ]
    shown = site.worker.registry.run(site.worker, "get_inventory", {}).result
    assert (shown["fastmcp"], len(shown["tools"]["guardrails"])) == ({"site": "x"}, 2)


@in_both_eras
def test_nothing_that_is_published_has_invisible_text(site: Any, fabric: Fabric, era: str) -> None:
    """Titles, descriptions, schemas, hints, prompts, results, reasons: models would read it, people wouldn't see it."""
    hidden = {
        "type": "object",
        "properties": {f"a{HIDDEN}": {"description": f"d{HIDDEN}", "enum": [f"v{HIDDEN}"], "title": f"t{HIDDEN}"}},
    }
    text = {"type": "text", "text": f"Look{HIDDEN} {{{{ '\\u202e\\U000e0041' }}}}{{{{ device }}}}"}
    prompt = {
        **PROMPT,
        "title": f"T{HIDDEN}",
        "description": f"D{HIDDEN}",
        "arguments": [{"name": "device", "description": f"d{HIDDEN}", "required": True}],
        "messages": [{"role": "user", "content": text}],
    }
    mcp = {"title": f"T{HIDDEN}", "annotations": {"title": f"T{HIDDEN}", f"x{HIDDEN}": HIDDEN}, "prompts": [prompt]}
    changes = {"description": f"Pings{HIDDEN}.", "inputSchema": hidden, "outputSchema": hidden, "mcp": mcp}
    site.worker.catalogue.replace("net", [entry(**changes)])
    fabric.answer = {f"net{HIDDEN}": answer({f"k{HIDDEN}": [HIDDEN]}, failed=True, errors=[f"e{HIDDEN}"])}
    got = {"name": f"{PING}__prompt_look", "arguments": {"device": "r1"}}
    found = [
        site.post("tools/list", era=era)[2],
        site.post("prompts/list", era=era)[2],
        site.post("prompts/get", got, era=era)[2],
        call(site, PING, {"a": "v"}, era),
    ]
    for each in found:
        assert not has_invisible(json.dumps(each, ensure_ascii=False).replace("\\u00", "\x00"))
    tool = next(each for each in found[0]["result"]["tools"] if each["name"] == PING)
    assert (tool["title"], tool["description"], tool["annotations"]["title"]) == ("T", "Pings.", "T")
    assert tool["inputSchema"]["properties"] == {"a": {"description": "d", "enum": ["v"], "title": "t"}}
    assert found[2]["result"]["messages"][0]["content"]["text"] == "Look r1"
    assert found[3]["structuredContent"] == {"net": answer({"k": [""]}, failed=True, errors=["e"])}


def test_text_that_scripts_and_emoji_need_is_published(site: Any, fabric: Fabric) -> None:
    """In descriptions and in results."""
    text = "می\u200cخواهم 👩🏽\u200d🚀 ❤\ufe0f"  # noqa: RUF001
    site.worker.catalogue.replace("net", [entry(description=text)])
    fabric.answer = {"net-1": answer(text + HIDDEN)}
    listed = site.post("tools/list")[2]["result"]["tools"]
    assert next(each["description"] for each in listed if each["name"] == PING) == text
    assert call(site, PING, {"target": "r1"})["structuredContent"]["net-1"]["result"] == text


def test_arguments_are_checked_without_a_rule_too(served_worker: Serve, fabric: Fabric) -> None:
    """A worker without guardrails refuses what the schema doesn't allow."""
    worker = served_worker(fabric=fabric, auth_bearer={"issuer_url": None})
    worker.worker.catalogue.replace("net", [entry(inputSchema=SCHEMA)])
    assert refusal(call(worker, PING, {"target": 7})) == "argument target: must be string"
    assert fabric.calls == []
