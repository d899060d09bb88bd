"""Task documentation made of `list_tasks` entries."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from nfcli.man.tasks import render_tasks
from nfcli.models.commands.schemas.definitions import TaskDefinition, merge_tasks
from nfcli.models.errors import UsageError
from nfcli.models.fields import Seconds
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.task import TaskRegistry, ToolHints, task


class StoreInput(TaskInput):
    """Required arguments and one that may be null."""

    token: str = Field(description="Token string to store")
    username: str = Field(description="User name to store the token for")
    expire: Seconds | None = Field(default=None, description="Token expiration time in seconds")


class Entry(BaseModel):
    """An object with two fields."""

    username: str
    token: str


@task(arguments=StoreInput, result=bool)
def bearer_token_store(worker: object, arguments: object) -> bool:
    """Store a token for a user.

    Storing it again renews its lifetime.
    """
    raise NotImplementedError


@task(result=list[Entry], mcp=False)
def bearer_token_list(worker: object, arguments: object) -> list[Entry]:
    """List the stored tokens."""
    raise NotImplementedError


@task(result=dict[str, int], mcp=ToolHints("Delete"))
def delete_all(worker: object, arguments: object) -> dict[str, int]:  # noqa: D103  stands for a foreign task
    raise NotImplementedError


def listed(*entries: dict[str, Any]) -> list[TaskDefinition]:
    """Return the tasks that a service's only worker lists."""
    return [*merge_tasks("fastmcp", {"w1": list(entries)}, ["w1"]).values()]


@pytest.fixture(scope="module")
def tasks() -> list[TaskDefinition]:
    """Return three tasks, as a worker of ours lists them."""
    module = SimpleNamespace(one=bearer_token_store, two=bearer_token_list, three=delete_all)
    return listed(*(spec.entry() for spec in TaskRegistry(module)))  # type: ignore[arg-type]


def test_without_a_name_all_tasks_are_listed_in_two_columns(tasks: list[TaskDefinition]) -> None:
    """A task without a description is listed all the same."""
    assert render_tasks(tasks).splitlines() == [
        "bearer_token_list   List the stored tokens.",
        "bearer_token_store  Store a token for a user.",
        "delete_all",
    ]


def test_no_tasks_give_no_lines() -> None:
    """Workers that offer nothing are no error."""
    assert render_tasks([]) == ""


def test_a_task_is_described_with_arguments_and_result(tasks: list[TaskDefinition]) -> None:
    """Required arguments are marked, types are words, lines are never cut."""
    assert render_tasks(tasks, "bearer_token_store").splitlines() == [
        "bearer_token_store",
        "    Store a token for a user.",
        "",
        "    Storing it again renews its lifetime.",
        "",
        "arguments (* required)",
        "    *token     string                           Token string to store",
        "    *username  string                           User name to store the token for",
        "    expire     integer 1 to 3155760000 or null  Token expiration time in seconds",
        "",
        "result",
        "    boolean or null  Value the task returned, null when it failed",
        "",
        "MCP tool",
        "    no",
    ]


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("bearer_token_list", "list of {username, token} or null"),
        ("delete_all", "object of integer or null"),
    ],
)
def test_results_show_what_lists_and_objects_hold(tasks: list[TaskDefinition], name: str, result: str) -> None:
    """References into the schema's definitions are followed."""
    lines = render_tasks(tasks, name).splitlines()
    assert lines[lines.index("result") + 1] == f"    {result}  Value the task returned, null when it failed"


def test_a_task_that_is_an_mcp_tool_says_so(tasks: list[TaskDefinition]) -> None:
    """Hints, even empty ones, make a tool; only false doesn't."""
    assert render_tasks(tasks, "delete_all").endswith("\nMCP tool\n    yes")
    assert render_tasks(tasks, "bearer_token_list").endswith("\nMCP tool\n    no")
    assert render_tasks(listed({"name": "foreign", "mcp": {}}), "foreign").endswith("\nMCP tool\n    yes")


DESTROYS = "\neffect\n    may destroy something: in scripts, and where nobody can be asked, add the word yes\n"
READS = "\neffect\n    only reads\n"


@pytest.mark.parametrize(
    ("annotations", "effect"),
    [
        ({"destructiveHint": True}, DESTROYS),
        ({"destructiveHint": True, "readOnlyHint": False}, DESTROYS),
        ({"destructiveHint": True, "readOnlyHint": True}, READS),
        ({"readOnlyHint": True}, READS),
        ({"destructiveHint": False}, ""),
        ({}, ""),
        ("odd", ""),
    ],
)
def test_what_a_task_may_do_is_said_as_its_author_says_it(annotations: object, effect: str) -> None:
    """Before the shell refuses to run it without a word."""
    text = render_tasks(listed({"name": "wipe", "mcp": {"annotations": annotations}}), "wipe")
    assert text.endswith(f"\n\nresult\n    any\n{effect}\nMCP tool\n    yes")


def test_differences_between_workers_are_named() -> None:
    """Which workers have a task that others lack, and whose arguments are shown where they differ."""
    old, new = ({"name": "say", "inputSchema": {"properties": {name: {}}}} for name in ("text", "words"))
    answers = {"w2": [new, {"name": "greet", "description": "Greet."}], "w1": [old], "w3": [old]}
    tasks = [*merge_tasks("demo", answers, ["w1", "w2", "w3"]).values()]
    assert render_tasks(tasks).splitlines() == ["greet  Greet. (on w2)", "say"]
    assert render_tasks(tasks, "greet").splitlines()[:5] == [
        *("greet", "    Greet.", "", "workers", "    w2; the others don't have it")
    ]
    assert render_tasks(tasks, "say").splitlines()[:6] == [
        *("say", "", "versions", "    its arguments differ; these are of w1", "", "arguments (* required)")
    ]


def test_an_unknown_task_is_refused_with_the_names_there_are(tasks: list[TaskDefinition]) -> None:
    """Those that resemble the wrong name come first."""
    with pytest.raises(UsageError) as caught:
        render_tasks(tasks, "bearer_token_stor")
    assert str(caught.value) == (
        "unknown task 'bearer_token_stor': expected bearer_token_store, bearer_token_list, delete_all"
    )


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        ({}, "x  any"),
        ({"type": "integer", "default": 0}, "x  integer  default 0"),
        ({"type": "boolean", "default": False, "description": "Brief"}, "x  boolean  Brief, default false"),
        ({"enum": ["a", None, 1]}, "x  'a' or null or 1"),
        ({"const": "a"}, "x  'a'"),
        ({"enum": [100, 1.5, True]}, "x  100 or 1.5 or true"),
        ({"type": "string", "default": "1"}, "x  string  default '1'"),
        ({"type": "array", "default": ["é", 1, None]}, 'x  list of any  default ["é", 1, null]'),
        ({"type": ["string", "null"]}, "x  string or null"),
        ({"oneOf": [{"type": "number"}, {"type": "number"}]}, "x  number"),
        ({"type": "array"}, "x  list of any"),
        ({"type": "integer", "minimum": 1}, "x  integer"),
        ({"$ref": "#/$defs/missing"}, "x  any"),
        ({"$ref": "#/$defs/endless"}, "x  list of list of list of any"),
        ({"type": "object"}, "x  object"),
        ({"type": "object", "properties": 1, "additionalProperties": False, "required": 1}, "x  object"),
        ({"type": "str\x1b[2J", "description": "two\nlines\x07"}, "x  str[2J  two lines"),
    ],
)
def test_argument_types_are_put_into_words(schema: dict[str, Any], line: str) -> None:
    """Foreign workers' schemas, however odd or hostile, give one printable line an argument."""
    definitions = {"endless": {"type": "array", "items": {"$ref": "#/$defs/endless"}}}
    entry = {"name": "foreign", "inputSchema": {"properties": {"x": schema}, "$defs": definitions}}
    assert render_tasks(listed(entry), "foreign").splitlines()[3] == f"    {line}"


def test_a_schema_with_keys_of_the_wrong_shape_is_described() -> None:
    """What isn't a list of names marks nothing."""
    entry = {
        "name": "foreign",
        "inputSchema": {"properties": {"x": 1}, "required": 1},
        "outputSchema": {"properties": []},
    }
    assert render_tasks(listed(entry), "foreign").splitlines()[3] == "    x  any"


def test_an_entry_that_holds_only_a_name_is_described() -> None:
    """Every other key may be missing."""
    assert render_tasks(listed({"name": "bare"}), "bare").splitlines() == [
        *("bare", "", "arguments", "    none", "", "result", "    any", "", "MCP tool", "    no")
    ]


_keys = st.sampled_from(
    [
        *("$ref", "$defs", "type", "anyOf", "oneOf", "enum", "const", "items", "properties", "additionalProperties"),
        *("required", "default", "description", "minimum", "maximum", "result"),
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)


@given(_json, _json, _json)
def test_no_entry_breaks_the_rendering_or_reaches_the_terminal(given_in: Any, given_out: Any, text: Any) -> None:
    """Whatever a worker answers, lines of printable text come out."""
    entry = {"name": "odd", "inputSchema": given_in, "outputSchema": given_out, "description": text}
    for line in (*render_tasks(listed(entry)).splitlines(), *render_tasks(listed(entry), "odd").splitlines()):
        assert line.isprintable()
