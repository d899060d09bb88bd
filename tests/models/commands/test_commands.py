"""The command tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from nfcli.man.tree import tree_lines
from nfcli.models.commands.base import Command, CommandGroup, JobArguments, entries
from nfcli.models.commands.fastmcp import CreateToken, ListTokens
from nfcli.models.commands.root import Root
from nfcli.models.errors import UsageError

AUTH_TREE = (Path(__file__).parents[2] / "man" / "expected" / "man_tree_fastmcp_auth.txt").read_text()
FREE_TEXT = {
    (f"show fastmcp {what}", field) for what in ("tools", "prompts", "guardrails") for field in ("service", "name")
} | {("fastmcp discover", "service")}
GARBAGE = {
    "brief": ["", "maybe", "2"],
    "last": ["0", "-1", "1.5", "1001", "00020", "1e2", "abc", ""],
    "verify": ["", "maybe", "2"],
    "timeout": ["0", "-1", "1.5", "abc", "", "1e3", "nan", "99999999"],
    "workers": ["", ",", "w1,,w2", "all,w1", "w1,any", "a\x1bb"],
    "username": ["", " a", "a ", "a\nb", "a\x1b", "x" * 257, "\u202ex"],
    "token": ["", "a b", "a\n", "жук", "=", "x" * 1025, "a=b"],
    "expire": ["0", "-5", "1.5", "abc", "nan", "inf", "9" * 12],
    "path": ["", "a b", "\x1b", "../x/", "x" * 257],
    "name": ["", "a b", "\x1b"],
    "topic": ["", "a b", "../../etc/passwd", "\x1b"],
}


def walk(model: type[BaseModel] = Root, *path: str) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Yield every group and command with the words that lead there."""
    yield path, model
    for name, entry in entries(model).items():
        if entry.model is not None:
            yield from walk(entry.model, *path, name)


COMMANDS = {" ".join(path): model for path, model in walk() if issubclass(model, Command)}
GROUPS = {" ".join(path): model for path, model in walk() if issubclass(model, CommandGroup)}


class Shell:
    """A shell that answers every job with true and renders data as it is."""

    def __init__(self) -> None:
        self.client = self
        self.handlers: dict[str, Any] = dict.fromkeys(("man_page",), lambda command: command.topic)
        self.calls: list[tuple[Any, ...]] = []
        self.notes: list[str] = []
        self.results: dict[str, Any] = {"w": True}
        self.failures: dict[str, list[str]] = {}

    def run_job(self, *names: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Answer for all workers."""
        self.calls.append((*names, options))
        return {worker: {"result": result, "failed": False} for worker, result in self.results.items()}

    def report(self, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the values, keep the failures."""
        self.failures |= {worker: result["errors"] for worker, result in results.items() if result["failed"]}
        return {worker: result["result"] for worker, result in results.items() if not result["failed"]}

    def note(self, text: str) -> None:
        """Keep a note."""
        self.notes.append(text)

    def render(self, data: Any, columns: Any) -> str:
        """Return data as Python shows it."""
        return f"{data!r} {columns!r}"


def test_the_tree_has_the_commands_it_promises() -> None:
    """All of them, and no others."""
    assert list(COMMANDS) == [
        "fastmcp auth create-token",
        "fastmcp auth list-tokens",
        "fastmcp auth delete-token",
        "fastmcp auth check-token",
        "fastmcp discover",
        "show fastmcp inventory",
        "show fastmcp version",
        "show fastmcp status",
        "show fastmcp tools",
        "show fastmcp prompts",
        "show fastmcp guardrails",
        "show fastmcp audit",
        "show norfab workers",
        "show norfab broker",
        "show norfab client",
        "show norfab inventory",
        "man tree",
        "man tasks",
        "man json-schema",
        "man page",
    ]


def test_the_auth_commands_are_those_of_the_owner_s_tree() -> None:
    """Names, order, marks and descriptions, byte for byte."""
    assert "\n".join(tree_lines(Root, "fastmcp.auth")) + "\n" == AUTH_TREE


@pytest.mark.parametrize("path", COMMANDS)
def test_every_field_of_every_command_refuses_garbage(path: str) -> None:
    """No way through the tree skips a field's rule, aliases included."""
    model = COMMANDS[path]
    for name, entry in entries(model).items():
        for value in () if (path, name) in FREE_TEXT else GARBAGE[name]:
            with pytest.raises(ValidationError) as caught:
                model.model_validate({entry.key: value})
            assert (name,) in [error["loc"] for error in caught.value.errors()]
            with pytest.raises(UsageError, match=name):
                model.run(picle_app=Shell(), **{entry.key: value})


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_refuses_fields_it_has_not(path: str) -> None:
    """A field that isn't there is an error, not silence."""
    with pytest.raises(UsageError, match="nothing: no such field"):
        COMMANDS[path].run(picle_app=Shell(), nothing="x")


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_one_shared_run_and_a_purpose(path: str) -> None:
    """A command is a task with a service, or names a handler; none brings its own `run`."""
    model = COMMANDS[path]
    assert model.run.__func__ is Command.run.__func__
    assert bool(getattr(model, "TASK", "")) != bool(model.HANDLER)
    assert issubclass(model, JobArguments) == bool(getattr(model, "TASK", ""))
    assert model.PicleConfig.pipe == "nfcli.models.commands.pipes.Pipes"


@pytest.mark.parametrize("path", GROUPS)
def test_every_group_is_a_subshell_with_a_prompt(path: str) -> None:
    """The prompt names the group, and picle would validate what is typed below an alias."""
    model = GROUPS[path]
    words = path.replace(" ", "-")
    assert model.PicleConfig.subshell is True
    assert model.PicleConfig.prompt == (f"nf[{words}]#" if words else "nf#")
    assert model.model_config["populate_by_name"] is True


def test_every_field_is_described() -> None:
    """Help and manual have something to say about each word."""
    for _, model in walk():
        for entry in entries(model).values():
            assert entry.field.description


def test_only_token_fields_are_secret() -> None:
    """And they are so in every command that has one."""
    secret = {(path, name) for path, model in walk() for name, entry in entries(model).items() if entry.is_secret}
    assert secret == {
        (("fastmcp", "auth", command), "token") for command in ("create-token", "delete-token", "check-token")
    }


def test_values_arrive_converted_by_the_model() -> None:
    """Text becomes what the task takes, digits in a name stay text, and job arguments stay out of the task's."""
    shell = Shell()
    text = CreateToken.run(
        picle_app=shell, username="000123", token="12345", expire="60", timeout="5", workers="w2, w1"
    )
    assert text == "{'w': True} ()"
    assert shell.calls == [
        (
            "fastmcp",
            "bearer_token_store",
            {
                "kwargs": {"token": "12345", "username": "000123", "expire": 60},
                "workers": ["w2", "w1"],
                "timeout": 5,
            },
        )
    ]
    assert shell.notes == []


def test_a_token_is_made_on_this_side_where_none_is_given() -> None:
    """Each run makes another one of 32 hex characters, sends it, and keeps it out of its own repr."""
    shell = Shell()
    for _ in range(2):
        CreateToken.run(picle_app=shell, username="bob")
    sent = [options["kwargs"]["token"] for _, _, options in shell.calls]
    assert len(set(sent)) == 2
    assert all(len(token) == 32 and set(token) <= set("0123456789abcdef") for token in sent)
    assert shell.notes == [f"generated token for bob: {token}" for token in sent]
    command = CreateToken(username="bob")
    assert command.token not in repr(command)


def test_the_audit_command_lists_or_verifies_and_not_both() -> None:
    """Each is a task of its own; a verification has no table, and takes neither a number of lines nor a user."""
    shell, audit = Shell(), COMMANDS["show fastmcp audit"]
    assert audit.run(picle_app=shell, last="7", username="bob") == ""
    assert shell.failures == {"w": ["the answer to get_audit is not a list of records"]}
    assert audit.run(picle_app=shell, verify="true", workers="w2") == "{'w': True} ()"
    assert shell.calls == [
        ("fastmcp", "get_audit", {"kwargs": {"last": 7, "username": "bob"}, "workers": "all", "timeout": 60}),
        ("fastmcp", "verify_audit", {"kwargs": {}, "workers": ["w2"], "timeout": 60}),
    ]
    for other in ({"last": "7"}, {"username": "bob"}):
        with pytest.raises(UsageError, match=r"^verify looks at all lines: leave last and username out$"):
            audit.run(picle_app=shell, verify="true", **other)
    assert audit.model_validate({"verify": "false", "last": "7"}).call() == ("get_audit", {"last": 7})


def test_a_list_that_is_none_is_an_error_of_the_worker_and_the_others_rows_come_through() -> None:
    """The table needs records; of NorFab's workers, one with empty texts only means that there are none."""
    shell, row, empty = Shell(), {"token": "t", "more": []}, dict.fromkeys(("token", "more"), "")
    shell.results = {"a": [row], "b": True, "c": [row, 5], "d": {"x": [row]}, "e": [empty], "f": []}
    rows = [{"worker": "a", **row}]
    assert ListTokens.run(picle_app=shell).startswith(f"{rows!r} ")
    assert shell.failures == {worker: ["the answer to bearer_token_list is not a list of records"] for worker in "bcd"}


def test_a_list_that_comes_as_a_mapping_by_name_is_a_table_too() -> None:
    """NorFab's own workers list their tools so."""
    shell, command = Shell(), COMMANDS["show fastmcp tools"]
    shell.results = {"w": {"t1": {"name": "t1", "description": "one"}, "t2": {"name": "t2", "description": "two"}}}
    rows = [{"worker": "w", "name": "t1", "description": "one"}, {"worker": "w", "name": "t2", "description": "two"}]
    assert command.run(picle_app=shell) == f"{rows!r} ('worker', 'name', 'description')"


def test_commands_that_are_no_tasks_run_the_shell_s_handler() -> None:
    """The handler gets the checked command; without data there is no text."""
    page = COMMANDS["man page"]
    assert page.run(picle_app=Shell(), topic="tokens") == "'tokens' ()"
    assert page.run(picle_app=Shell()) == ""
    assert page.run(picle_app=Shell(), render=lambda data, _: f"{data}!", topic="x") == "x!"
