"""Guardrails on arguments find a value by every name that leads to it."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from nfcli.models.inventory.tool_policy import ToolsInventory
from nfcli.models.tasks.base import TaskInput, fold_name
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import TaskSpec, task
from nfcli.worker.tools.arguments import ArgumentSchema
from nfcli.worker.tools.guardrails import ToolGuardrails
from nfcli.worker.tools.policy import ToolPolicy

REFUSED = "refused by a guardrail on commands: not allowed"


class Device(BaseModel):
    """A value that a task gets."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str


class AliasedInput(TaskInput):
    """Arguments with all kinds of other names."""

    model_config = ConfigDict(extra="allow")

    commands: Annotated[
        str, Field(default="show", validation_alias=AliasChoices("cmd-line", AliasPath("cmd", 0), "shorthand"))
    ]
    renamed: Annotated[str, Field(alias="commands-old")] = ""
    trimmed: Annotated[str, BeforeValidator(str.strip)] = ""
    device: Device | None = None
    secret: SecretStr | None = None

    @model_validator(mode="before")
    @classmethod
    def _move(cls, data: Any) -> Any:
        return {**data, "commands": data["moved"]} if "moved" in data else data


def spec() -> TaskSpec:
    """Return the declaration of a task with these arguments."""

    @task(arguments=AliasedInput)
    def run(_worker: WorkerContext, arguments: AliasedInput) -> str:
        """Run."""
        return arguments.commands

    declared = vars(run)["task_spec"]
    assert isinstance(declared, TaskSpec)
    return declared


def rule(field: str = "commands", match: str = "reload", **more: Any) -> ToolGuardrails:
    """Return the guardrails of a tool with one rule."""
    guardrail = {"service": "*", "task": "*", "field": field, "type": "equals", "match": match, **more}
    tools = ToolsInventory.model_validate({"guardrails": [guardrail]})
    return ToolPolicy(tools).guardrails("net", "run", {})


@pytest.mark.parametrize("field", ["commands", "cmd-line", "cmd_line", "CMD", "shorthand", "Commands"])
@pytest.mark.parametrize("given", ["commands", "cmd-line", "shorthand", "moved"])
def test_rule_by_any_name_of_a_field_judges_what_the_task_gets(field: str, given: str) -> None:
    """Whichever of the field's names the caller uses."""
    refusal = rule(field).check_arguments(spec().read_arguments({given: "reload"}))
    assert refusal == f"refused by a guardrail on {field}: not allowed"
    assert rule(field).check_arguments(spec().read_arguments({given: "show"})) is None


def test_value_is_judged_as_given_and_as_the_task_gets_it() -> None:
    """Validation may change it, take it out of another, or hide it from its own text."""
    found = spec().read_arguments(
        {"cmd": ["reload"], "trimmed": " reload ", "device": {"name": "reload"}, "secret": "reload"}
    )
    for field in ("commands", "trimmed", "device", "secret"):
        assert rule(field).check_arguments(found) is not None
    assert rule("trimmed", " reload ").check_arguments(found) is not None
    assert rule("renamed").check_arguments(spec().read_arguments({"commands-old": "reload"})) is not None


def test_defaults_are_not_judged_and_invalid_arguments_as_given() -> None:
    """The task declares its defaults, and refuses what isn't valid."""
    assert rule(match="show").check_arguments(spec().read_arguments({})) is None
    assert rule().check_arguments(spec().read_arguments({"commands": "reload", "device": 7})) == REFUSED


@pytest.mark.parametrize("name", ["commands", "Commands", "COMMANDS"])
def test_spelling_of_an_argument_is_no_way_past_a_rule(name: str) -> None:
    """Letter case, dashes, dots and underscores make no difference, whatever the schema declares."""
    assert rule().check_arguments({name: "reload"}) == REFUSED
    dry_run = rule("dry_run", "false")
    for spelling in ("dry-run", "dry.run", "Dry-Run", "DRY_RUN"):
        assert dry_run.check_arguments({spelling: False}) is not None
    assert dry_run.check_arguments({"dryrun": False}) is None


def test_undeclared_argument_is_judged_as_the_fields_that_are_not_given() -> None:
    """The service may know one of them by that name; where the field itself is given, it isn't."""
    schema = ArgumentSchema({"type": "object", "properties": {"commands": {}, "target": {}}})
    for arguments in ({"cmd": "reload"}, {"cmd": ["x", {"y": "reload"}], "target": "r1"}):
        assert rule().check_arguments(schema.with_other_names(arguments)) == REFUSED
    for arguments in ({"cmd": "reload", "commands": "show"}, {"target": "reload"}, {"Commands": "show", "x": "reload"}):
        assert rule().check_arguments(schema.with_other_names(arguments)) is None
    assert rule("other").check_arguments(schema.with_other_names({"cmd": "reload"})) is None


@pytest.mark.parametrize(
    ("name", "folded"), [("Run_Shell-Cmd", "run_shell_cmd"), ("a.B", "a_b"), ("STRASSE", "strasse"), ("a", "a")]
)
def test_names_are_folded(name: str, folded: str) -> None:
    """Rules compare names so."""
    assert fold_name(name) == folded
