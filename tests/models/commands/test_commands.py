"""The command tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from nfcli.models.commands.auth import CreateToken, ListTokens
from nfcli.models.commands.base import CommandGroup, JobArguments, ShellCommand, entries
from nfcli.models.commands.root import Root
from nfcli.models.errors import UsageError

FREE_TEXT = {
    (f"show fastmcp {what}", field) for what in ("tools", "prompts", "guardrails") for field in ("service", "name")
} | {*((f"{service} discover", "service") for service in ("fastmcp", "fastapi")), ("show filesharing remotes", "name")}
UNPRINTABLE = ["", " ", "a\x1b", "\u202ex"]
GARBAGE = {
    "brief": ["", "maybe", "2"],
    "last": ["0", "-1", "1.5", "1001", "00020", "1e2", "abc", ""],
    "verify": ["", "maybe", "2"],
    "timeout": ["0", "-1", "1.5", "abc", "", "1e3", "nan", "99999999"],
    "workers": ["", ",", "w1,,w2", "all,w1", "w1,any", "a\x1bb"],
    "from": ["", ",", "w1,,w2", "all", "w1,any", "a\x1bb"],
    "to": ["", ",", "w1,,w2", "all", "w1,any", "a\x1bb"],
    "username": ["", " a", "a ", "a\nb", "a\x1b", "x" * 257, "\u202ex"],
    "token": ["", "a b", "a\n", "жук", "=", "x" * 1025, "a=b"],
    "expire": ["0", "-5", "1.5", "abc", "nan", "inf", "9" * 12, "0d", "1y", "5300w", "2020-01-01", "2027-13-01"],
    "path": ["", "a b", "\x1b", "../x/", "x" * 257],
    "name": ["", "a b", "\x1b"],
    "worker": ["", "a\x1b", "a\n", "x" * 257],
    "topic": ["", "a b", "../../etc/passwd", "\x1b"],
}


def walk(model: type[BaseModel] = Root, *path: str) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Yield every group and command with the words that lead there."""
    yield path, model
    for name, entry in entries(model).items():
        if entry.model is not None:
            yield from walk(entry.model, *path, name)


COMMANDS = {" ".join(path): model for path, model in walk() if issubclass(model, ShellCommand)}
GROUPS = {" ".join(path): model for path, model in walk() if issubclass(model, CommandGroup)}


@pytest.mark.parametrize(
    ("typed", "expire"),
    [("60", 60), ("90s", 90), ("30m", 1_800), ("12h", 43_200), ("30d", 2_592_000), ("1w", 604_800), ("never", "never")],
)
def test_lifetimes_have_units(typed: str, expire: object) -> None:
    """Workers get seconds."""
    job = CreateToken.parse({"username": "ann", "token": "t", "expire": typed}).job()
    assert job["kwargs"]["expire"] == expire


@pytest.mark.parametrize("typed", ["{0:%Y-%m-%d}", "{0:%Y-%m-%dT%H:%M:%S}", "{0:%Y-%m-%dT%H:%M:%S%z}"])
def test_lifetimes_may_end_at_a_time(typed: str) -> None:
    """A date is its beginning, in local time; one that is past is refused."""
    end = (datetime.now().astimezone() + timedelta(days=40)).replace(hour=0, minute=0, second=0, microsecond=0)
    left = (end - datetime.now(UTC)).total_seconds()
    expire = CreateToken.parse({"username": "ann", "expire": typed.format(end)}).expire
    assert isinstance(expire, int)
    assert left - 60 < expire <= left + 1
    with pytest.raises(UsageError, match=r"^expire: must be in the future, got 2020-01-01$"):
        CreateToken.parse({"username": "ann", "expire": "2020-01-01"})


@pytest.mark.parametrize("typed", ["1mo", "1.5h", "1D", "1 d", "1e3", "", "P1D", "soon", "2027-13-01", "2027-02-30"])
def test_lifetimes_that_are_not_understood_are_answered_with_those_that_are(typed: str) -> None:
    """Seconds alone are half of the rule; for a number the answer has its limits."""
    with pytest.raises(UsageError) as caught:
        CreateToken.parse({"username": "ann", "expire": typed})
    assert str(caught.value) == (
        "expire: must be whole seconds, a number with a unit (90s, 30m, 12h, 30d, 1w), a date or time such as "
        f"2027-01-31 or 2027-01-31T18:00, or never, got {typed or repr('')}"
    )
    with pytest.raises(UsageError, match=r"^expire: must be 1 to 3155760000 whole seconds, got -1\.5$"):
        CreateToken.parse({"username": "ann", "expire": "-1.5"})


def test_the_tree_has_the_commands_it_promises() -> None:
    """All of them, and no others."""
    assert list(COMMANDS) == [
        "fastmcp auth create-token",
        "fastmcp auth list-tokens",
        "fastmcp auth delete-token",
        "fastmcp auth check-token",
        "fastmcp discover",
        "fastmcp tokens sync",
        "fastmcp workers forget",
        "fastapi auth create-token",
        "fastapi auth list-tokens",
        "fastapi auth delete-token",
        "fastapi auth check-token",
        "fastapi discover",
        "filesharing copy",
        "filesharing delete-fetched-files",
        "norfab workers ping",
        "show fastmcp inventory",
        "show fastmcp version",
        "show fastmcp status",
        "show fastmcp tools",
        "show fastmcp prompts",
        "show fastmcp guardrails",
        "show fastmcp access",
        "show fastmcp tokens diff",
        "show fastmcp audit",
        "show fastapi inventory",
        "show fastapi version",
        "show fastapi openapi-schema",
        "show filesharing files",
        "show filesharing details",
        "show filesharing remotes",
        "show norfab workers",
        "show norfab broker",
        "show norfab statistics",
        "show norfab version",
        "show norfab jobs",
        "show norfab logging",
        "show norfab client",
        "show norfab inventory",
        "show jobs",
        "man tree",
        "man tasks",
        "man json-schema",
        "man page",
        "man example",
    ]


@pytest.mark.parametrize("name", ["create-token", "list-tokens", "delete-token", "check-token"])
def test_tokens_of_both_services_are_managed_by_the_same_fields(name: str) -> None:
    """Only the service differs."""
    ours, theirs = COMMANDS[f"fastmcp auth {name}"], COMMANDS[f"fastapi auth {name}"]
    assert list(entries(theirs)) == list(entries(ours))
    values = {"username": "ann", "token": "t"}
    given = {key: value for key, value in values.items() if key in entries(ours)}
    assert theirs.parse(given).job() == ours.parse(given).job() | {"service": "fastapi"}


def test_the_inventory_of_another_service_is_masked() -> None:
    """Whatever its workers return."""
    command = COMMANDS["show fastapi inventory"].parse({})
    merged = command.merge({"w1": {"uvicorn": {"port": 8000}, "db": {"password": "secret"}}, "w2": None})
    assert merged == {"w1": {"uvicorn": {"port": 8000}, "db": {"password": "***"}}, "w2": None}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_field_of_every_command_refuses_garbage(path: str) -> None:
    """No way through the tree skips a field's rule, aliases included."""
    model = COMMANDS[path]
    for name, entry in entries(model).items():
        for value in () if (path, name) in FREE_TEXT else GARBAGE.get(name, UNPRINTABLE):
            with pytest.raises(ValidationError) as caught:
                model.model_validate({name: value})
            assert (name,) in [error["loc"] for error in caught.value.errors()]
            with pytest.raises(UsageError, match=name):
                model.parse({entry.key: value})


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_refuses_fields_it_has_not(path: str) -> None:
    """A field that isn't there is an error, not silence."""
    with pytest.raises(UsageError, match="nothing: no such field"):
        COMMANDS[path].parse({"nothing": "x"})


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_a_task_or_a_handler(path: str) -> None:
    """A command runs a task on workers or names a handler of the shell, and takes the same pipes as all others."""
    model = COMMANDS[path]
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
    """Each has a text in help and manual."""
    for _, model in walk():
        for entry in entries(model).values():
            assert entry.field.description


def test_only_token_fields_are_secret() -> None:
    """And they are so in every command that has one."""
    secret = {(path, name) for path, model in walk() for name, entry in entries(model).items() if entry.is_secret}
    assert secret == {
        (("show", "fastmcp", "access"), "token"),
        (("show", "fastmcp", "audit"), "token"),
        *(
            ((service, "auth", command), "token")
            for service in ("fastmcp", "fastapi")
            for command in ("create-token", "delete-token", "check-token")
        ),
    }


def test_values_arrive_converted_by_the_model() -> None:
    """Text becomes what the task takes, digits in a name stay text, and job arguments stay out of the task's."""
    command = CreateToken.parse(
        {"username": "000123", "token": "12345", "expire": "60", "timeout": "5", "workers": "w2, w1"}
    )
    assert command.job() == {
        "service": "fastmcp",
        "task": "bearer_token_store",
        "kwargs": {"token": "12345", "username": "000123", "expire": 60},
        "workers": ["w2", "w1"],
        "timeout": 5,
    }


def test_a_token_that_is_not_given_is_generated() -> None:
    """Each command generates another one of 32 hex characters, and keeps it out of its own repr."""
    first, second = (CreateToken.parse({"username": "bob"}) for _ in range(2))
    assert first.token != second.token
    assert re.fullmatch(r"[0-9a-f]{32}", first.token)
    assert first.job()["kwargs"]["token"] == first.token
    assert first.notes({"w": {"failed": False}}) == [f"generated token for bob: {first.token}"]
    assert first.token not in repr(first)


def test_the_audit_command_lists_or_verifies_but_not_both() -> None:
    """Each is a task of its own; a verification has no table, and takes no filter."""
    audit = COMMANDS["show fastmcp audit"]
    listing, verification = audit.parse({"last": "7", "username": "bob"}), audit.parse({"verify": "true"})
    job = {"service": "fastmcp", "task": "get_audit", "kwargs": {"last": 7, "username": "bob"}}
    job |= {"workers": "all", "timeout": 60}
    assert (listing.job(), bool(listing.columns())) == (job, True)
    assert (verification.job(), bool(verification.columns())) == (job | {"task": "verify_audit", "kwargs": {}}, False)
    assert audit.parse({"verify": "false", "last": "7"}).job() == job | {"kwargs": {"last": 7}}
    filters = {"last": "7", "username": "bob", "token": "t", "operation": "delete", "since": "1h"}
    for name, value in filters.items():
        with pytest.raises(UsageError, match="verify checks all records: omit the other fields but workers"):
            audit.parse({"verify": "true", name: value})


def test_the_audit_command_shows_the_newest_records_of_all_workers_by_time() -> None:
    """Not as many of each: the older ones of a worker with few would stand beside gaps of the others."""

    def rows(*minutes: int) -> list[dict[str, object]]:
        return [{"seq": minute, "time": f"2026-05-31T10:{minute:02}:00.000+00:00"} for minute in minutes]

    audit = COMMANDS["show fastmcp audit"].parse({"last": "4"})
    damaged = {"seq": None, "time": None}
    merged = audit.merge({"w1": rows(1, 30, 32, 34), "w2": rows(3, 31, 33), "w3": [damaged]})
    assert [(row["worker"], row["seq"]) for row in merged] == [("w1", 32), ("w2", 33), ("w1", 34), ("w3", None)]
    report = {"w1": {"lines": 3}}
    assert COMMANDS["show fastmcp audit"].parse({"verify": "true"}).merge(report) == report


@pytest.mark.parametrize(
    ("value", "seconds_ago"), [("90s", 90), ("30m", 1_800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_records_are_shown_from_how_long_ago(value: str, seconds_ago: int) -> None:
    """The client's clock counts; workers get a moment in UTC, in the form that lines have."""
    since = COMMANDS["show fastmcp audit"].parse({"since": value}).job()["kwargs"]["since"]
    moment = datetime.fromisoformat(since)
    assert since == moment.astimezone(UTC).isoformat(timespec="milliseconds")
    assert 0 <= (datetime.now(UTC) - moment).total_seconds() - seconds_ago < 10


@pytest.mark.parametrize(
    ("value", "since"),
    [
        ("2026-05-31T12:00:00+02:00", "2026-05-31T10:00:00.000+00:00"),
        ("2026-05-31T10:00Z", "2026-05-31T10:00:00.000+00:00"),
        ("2026-05-31 10:00:00.123456+00:00", "2026-05-31T10:00:00.123+00:00"),
        ("2026-01-31", datetime(2026, 1, 31).astimezone(UTC).isoformat(timespec="milliseconds")),
    ],
)
def test_records_are_shown_from_a_time(value: str, since: str) -> None:
    """ISO 8601; local time where no zone is given."""
    job = COMMANDS["show fastmcp audit"].parse({"since": value}).job()
    assert job["kwargs"] == {"last": 20, "since": since}
    assert COMMANDS["show fastmcp audit"].parse({"since": since}).job() == job


@pytest.mark.parametrize(
    "value", ["", "yesterday", "7", "-1h", "1.5h", "1y", "999999w", "2026-13-01", "0001-01-01", "٣d"]
)
def test_a_wrong_time_is_refused(value: str) -> None:
    """The message names the rule and the value."""
    with pytest.raises(
        UsageError, match=r"^since: must be a time like 2026-05-31T10:00, or how long ago: 30m, .* got "
    ):
        COMMANDS["show fastmcp audit"].parse({"since": value})


def test_an_unknown_operation_is_refused() -> None:
    """The message names those that there are."""
    with pytest.raises(UsageError, match=r"^operation: .*'create', .*'list'"):
        COMMANDS["show fastmcp audit"].parse({"operation": "remove"})


@pytest.mark.parametrize("value", [True, [{"token": "t"}, 5], {"x": [{"token": "t"}]}, None])
def test_a_result_that_fits_no_table_is_a_failure_of_its_worker(value: object) -> None:
    """A table needs a list of records."""
    result = ListTokens().check_result({"result": value, "failed": False})
    assert (result["failed"], result["errors"]) == (True, ["the result of bearer_token_list is not a list of records"])


def test_rows_of_all_workers_are_one_table() -> None:
    """A row of empty texts, which NorFab's workers send where they have none, is left out."""
    row = {"token": "t", "more": []}
    empty = dict.fromkeys(("token", "more"), "")
    result = {"result": [row], "failed": False}
    assert ListTokens().check_result(result) == result
    assert ListTokens().merge({"a": [row], "b": [empty], "c": []}) == [{"worker": "a", **row}]


def test_a_list_that_comes_as_a_mapping_by_name_is_a_table_too() -> None:
    """NorFab's own workers list their tools so."""
    command = COMMANDS["show fastmcp tools"].parse({})
    tools = {"t1": {"name": "t1", "description": "one"}, "t2": {"name": "t2", "description": "two"}}
    assert command.check_result({"result": tools, "failed": False})["result"] == list(tools.values())


def test_a_broker_s_workers_have_a_hold_time_and_notes_are_shown_where_there_are_any() -> None:
    """The columns depend on the rows."""
    command = COMMANDS["show norfab workers"].parse({})
    assert "holdtime" in command.columns([{"name": "w", "holdtime": "1"}])
    assert {"holdtime", "note"}.isdisjoint(command.columns([{"name": "w", "endpoint": "ipc://x", "note": ""}]))
    assert command.columns([{"name": "w", "note": "away"}, {"name": "v"}])[-1] == "note"


@pytest.mark.parametrize("typed", ["a,b", " a , b", '["a", "b"]', "[a,b]", "['a']", ["a", "b"]])
def test_several_workers_may_be_a_json_list(typed: Any) -> None:
    """As NorFab's shell takes them; a prompt takes the quotes away."""
    named = ListTokens.model_validate({"workers": typed}).targets()["workers"]
    assert named == (["'a'"] if typed == "['a']" else ["a", "b"])


@pytest.mark.parametrize("typed", ["[]", '["a", "all"]', "[1, 2]", '[["a"]]', '["a,b", ""]', [1]])
def test_other_lists_are_no_workers(typed: Any) -> None:
    """Names are texts, and at least one."""
    with pytest.raises(ValidationError):
        ListTokens.model_validate({"workers": typed}).targets()
