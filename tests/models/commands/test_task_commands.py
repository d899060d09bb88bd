"""Commands that are made from what workers list of their tasks."""

from __future__ import annotations

from typing import Any

import pytest

from nfcli.models.commands.auth import CreateToken, DeleteToken
from nfcli.models.commands.base import JobArguments, entries, find_entry
from nfcli.models.commands.schemas.commands import TaskCommand, make_command
from nfcli.models.commands.schemas.definitions import TaskDefinition, merge_tasks
from nfcli.models.commands.schemas.groups import task_entries
from nfcli.models.errors import NoWorkersError, TaskError, UsageError

TEXT = {"type": "string"}


def task(properties: dict[str, Any] | None = None, *, name: str = "say", **entry: Any) -> dict[str, Any]:
    """Return an entry of `list_tasks`."""
    schema = {"type": "object", "properties": properties or {}, "required": entry.pop("required", [])}
    return {
        "name": name,
        "description": "Say it.\n\nAt length.",
        "inputSchema": schema | entry.pop("schema", {}),
        **entry,
    }


def merged(*answers: object, service: str = "demo") -> dict[str, TaskDefinition]:
    """Return the tasks of workers `w1`, `w2`, …, each with its answer."""
    by_worker = {f"w{number}": answer for number, answer in enumerate(answers, start=1)}
    return merge_tasks(service, by_worker, [*by_worker])


def command(*answers: object) -> type[JobArguments]:
    """Return the command of the task `say`."""
    return make_command(merged(*answers)["say"])


def sent(model: type[JobArguments], **typed: str) -> dict[str, Any]:
    """Return the arguments that are sent for words as they are typed."""
    keys = {name: entry.key for name, entry in entries(model).items()}
    kwargs: dict[str, Any] = model.parse({keys[name]: text for name, text in typed.items()}).job()["kwargs"]
    return kwargs


def test_only_what_was_given_is_sent() -> None:
    """Defaults are shown and left to the worker, null is sent where it was typed."""
    model = command([task({"text": TEXT, "times": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 3}})])
    assert sent(model, text="x") == {"text": "x"}
    assert sent(model, times="null") == {"times": None}
    assert entries(model)["times"].field.default == "3"
    job = model.parse({}).job()
    assert (job["service"], job["task"], job["workers"]) == ("demo", "say", "all")


def test_what_is_required_is_checked_first() -> None:
    """Together with the other rules, in one line that names the fields as they are typed."""
    model = command([task({"the text": TEXT, "times": {"type": "integer"}}, required=["the text"])])
    with pytest.raises(UsageError, match=r"^the text: field required; times: must be whole number, got 'x'$"):
        sent(model, times="x")


def test_names_that_mean_something_else_get_a_prefix() -> None:
    """Those of jobs, whichever there are, of pydantic's models, and those that differ in a dash only."""
    job_words = [field.alias or key for key, field in JobArguments.model_fields.items()]
    names = [
        *job_words,
        "task-timeout",
        "model_config",
        "json",
        "copy",
        "model_fields_set",
        "a_b",
        "a-b",
        "argument_1",
        "class",
    ]
    model = command([task(dict.fromkeys(names, TEXT))])
    words = [name for name in entries(model) if name not in job_words]
    assert words[: len(job_words)] == [
        f"task-{name}" if name != "timeout" else "task-task-timeout" for name in job_words
    ]
    assert words[len(job_words) :] == [
        *("task-timeout", "model_config", "json", "copy", "model_fields_set", "a_b", "task-a-b", "argument_1", "class")
    ]
    assert sent(model, **{"task-task-timeout": "a", "timeout": "5", "json": "b"}) == {"timeout": "a", "json": "b"}


def test_a_dash_may_be_typed_for_an_underscore() -> None:
    """In the names of arguments; a name that has a dash itself comes first."""
    model = command([task({"dry_run": TEXT, "a-b": TEXT})])
    found = find_entry(model, "dry-run")
    assert found is not None
    assert found.name == "dry_run"
    assert find_entry(model, "dryrun") is None
    assert find_entry(JobArguments, "time-out") is None


def test_other_arguments_are_typed_as_json() -> None:
    """Where the schema accepts them, or there is none; named ones are more important."""
    model = command([task({"text": TEXT}, schema={"additionalProperties": True})])
    assert sent(model, arguments='{"more": [1], "text": "a"}', text="b") == {"more": [1], "text": "b"}
    assert "arguments" not in entries(command([task({"text": TEXT})]))
    assert sent(command([{"name": "say"}]), arguments='{"x": 1}') == {"x": 1}
    taken = command([task({"arguments": TEXT}, schema={"additionalProperties": True})])
    assert sent(taken, arguments="x", **{"task-arguments": '{"y": 2}'}) == {"arguments": "x", "y": 2}


def test_workers_that_differ_are_merged() -> None:
    """A value of either type is accepted, and required is what all require; the description says who has the task."""
    first = task({"text": TEXT, "size": {"type": "integer"}}, required=["text", "size"])
    second = task({"text": TEXT, "size": TEXT, "more": TEXT}, required=["text"])
    definitions = merged([first], [second, task(name="other")], [task(name="other")])
    model = make_command(definitions["say"])
    assert [sent(model, text="x", size=size) for size in ("5", "big")] == [
        {"text": "x", "size": 5},
        {"text": "x", "size": "big"},
    ]
    assert {name for name, entry in entries(model).items() if entry.field.is_required()} == {"text"}
    assert definitions["say"].description == "Say it. (on w1, w2)"
    assert merged([first], [first])["say"].description == "Say it."


def test_a_task_of_some_workers_runs_on_those() -> None:
    """Others are refused by name before anything is sent."""
    model = command([task()], [task()], [])
    assert model.parse({}).targets()["workers"] == ["w1", "w2"]
    assert model.parse({"workers": "any"}).targets()["workers"] in (["w1"], ["w2"])
    assert model.parse({"workers": "w2"}).targets()["workers"] == ["w2"]
    with pytest.raises(NoWorkersError, match=r"^w3 has no task say: it is on w1, w2$"):
        model.parse({"workers": "w1,w3"}).targets()


def test_secrets_are_secret() -> None:
    """By name, by format, and where an object has one; numbers are not."""
    model = command(
        [
            task(
                {
                    "password": TEXT,
                    "pin": TEXT | {"format": "password"},
                    "code": {"anyOf": [TEXT, {"type": "null"}], "format": "password"},
                    "peer": {"type": "object", "properties": {"secret": TEXT}},
                    "max_tokens": {"type": "integer"},
                    "text": TEXT,
                }
            )
        ]
    )
    assert [name for name, entry in entries(model).items() if entry.is_secret] == ["password", "pin", "code", "peer"]
    with pytest.raises(UsageError) as caught:
        sent(model, peer="hunter2")
    assert str(caught.value) == "peer: must be JSON"


def test_a_task_that_may_destroy_something_asks() -> None:
    """Unless yes was typed, which messages ask for; an argument of that name gives way, as with the options of jobs."""
    declared = {"mcp": {"annotations": {"destructiveHint": True}}}
    model = command([task({"yes": TEXT}, **declared)])
    assert model.parse({}).question() == "say may destroy something: run it on all workers of demo?"
    assert model.parse({entries(model)["yes"].key: "true"}).question() == ""
    assert sent(model, **{"task-yes": "x", "yes": "true"}) == {"yes": "x"}
    assert model.parse({entries(model)["task-yes"].key: "true"}).question() != ""
    for hints in ({"destructiveHint": "true"}, {"destructiveHint": True, "readOnlyHint": True}):
        assert command([task(mcp={"annotations": hints})]).parse({}).question() == ""


def test_flat_records_are_a_table() -> None:
    """Of all workers together; anything nested, long or else is returned as it is."""
    one = command([task()]).parse({})
    rows = one.merge({"w1": [{"a": 1}], "w2": [{"a": 2, "b": None}]})
    assert rows == [{"worker": "w1", "a": 1}, {"worker": "w2", "a": 2, "b": None}]
    assert one.columns(rows) == ("worker", "a", "b")
    for value in ({"a": 1}, [], [{"a": [1]}], [{"a": "x\ny"}], [{}], ["a"], [{"a": "x" * 500}], "text", None):
        assert one.merge({"w1": value}) == {"w1": value}
        assert one.columns({"w1": value}) == ()


def test_token_tasks_are_the_commands_for_them() -> None:
    """With the same rules, masks, warnings and exit statuses; other services' tasks of these names are not."""
    entry = task({"username": TEXT, "token": TEXT}, name="bearer_token_store")
    assert make_command(merged([entry], service="fastmcp")["bearer_token_store"]) is CreateToken
    deleting = make_command(merged([entry | {"name": "bearer_token_delete"}], service="fastmcp")["bearer_token_delete"])
    assert deleting is DeleteToken
    assert issubclass(make_command(merged([entry])["bearer_token_store"]), TaskCommand)
    importing = make_command(merged([task(name="bearer_token_import")], service="fastmcp")["bearer_token_import"])
    assert importing.parse({}).consequence() == "its tokens may not be changed"


def test_odd_entries_are_left_out() -> None:
    """Names that can't be typed or hide something, duplicates, the job that NorFab's workers fill in themselves."""
    odd = [{"name": "a\nb"}, {"name": "a\u200bb"}, {"name": ""}, {"name": 5}, {"name": "x" * 500}, "text", None]
    fine = task({"job": {"title": "Job"}, "x\x1b": TEXT, "text": TEXT}, required=["job"])
    definitions = merged([*odd, fine, task({"second": TEXT})])
    assert [*definitions] == ["say"]
    model = make_command(definitions["say"])
    assert [name for name in entries(model) if name not in JobArguments.model_fields and "-" not in name][-1] == "text"
    assert sent(model, text="x") == {"text": "x"}
    odd_schema = {"name": "say", "description": 5, "inputSchema": {"properties": [1], "required": 7}, "mcp": "x"}
    assert sent(command([odd_schema])) == {}
    for answer in ({}, None, "text", [{}] * 10_001):
        with pytest.raises(TaskError, match="w1: the answer to list_tasks is not a list of at most 10000 tasks"):
            merged(answer)


def placed(group: object, word: object, **entry: Any) -> dict[str, Any]:
    """Return the entry of a plugin's command."""
    return task(name=f"{group}__{word}", command={"group": group, "name": word}, **entry)


def test_commands_of_plugins_are_below_the_plugins_name() -> None:
    """They run the task whose entry says so, and nothing else."""
    found = task_entries(merged([task(), placed("lab", "count"), placed("lab", "add"), placed("other", "add")]))
    assert [*found] == ["lab", "other", "say"]
    group = found["lab"].model
    assert group is not None
    assert [*entries(group)] == ["add", "count"]
    model = entries(group)["add"].model
    assert model is not None
    assert issubclass(model, JobArguments)
    assert (model.SERVICE, model.TASK) == ("demo", "lab__add")


@pytest.mark.parametrize(
    "place", [None, "lab", {}, {"group": "lab"}, {"group": "", "name": "x"}, {"group": 1, "name": "x"}]
)
def test_a_place_of_another_shape_is_ignored(place: object) -> None:
    """The task is then where all are."""
    assert [*task_entries(merged([task(command=place)]))] == ["say"]


def test_a_group_never_hides_a_task() -> None:
    """Of the same name: the command is then beside it."""
    assert [*task_entries(merged([task(name="lab"), placed("lab", "count")]))] == ["lab", "lab__count"]
