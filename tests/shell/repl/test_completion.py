"""Completion with the Tab key."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from nfcli.models.commands.auth import CheckToken, ListTokens
from nfcli.models.commands.base import entries
from nfcli.models.commands.show import ShowAudit
from nfcli.models.errors import NoWorkersError
from nfcli.shell.repl.completion import complete
from nfcli.shell.repl.completion_values import ValueSuggester
from support.shell.bench import ShellBench
from support.shell.fake_client import FakeClient

MakeBench = Callable[..., ShellBench]
USERNAME = entries(ListTokens)["username"]


@pytest.fixture
def bench(make_bench: MakeBench) -> ShellBench:
    """Provide two workers and users whose names need quotes."""
    bench = make_bench("w1", "w2")
    for name, token in (("automation", "t1"), ("it's me", "t2"), ("a b", "t3")):
        bench.run_words("fastmcp", "auth", "create-token", "username", name, "token", token)
    return bench


def completed(bench: ShellBench, line: str) -> list[str]:
    """Return the line as each completion would make it."""
    found = complete(line, bench.session.navigator.location, bench.session.suggester)
    return [line[: found.start] + text for text in found.texts]


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("fa", ["fastapi ", "fastmcp "]),
        ("e", ["end ", "exit "]),
        ("show fas", ["show fastapi ", "show fastmcp "]),
        ("fastmcp auth c", ["fastmcp auth check-token ", "fastmcp auth create-token "]),
        ("fastmcp auth list-tokens u", ["fastmcp auth list-tokens username "]),
        ("fastmcp auth list-tokens username x w", ["fastmcp auth list-tokens username x workers "]),
        ("fastmcp auth list-tokens workers w1 timeout 5 username x nowait quiet progress ", [
            "fastmcp auth list-tokens workers w1 timeout 5 username x nowait quiet progress answer ",
            "fastmcp auth list-tokens workers w1 timeout 5 username x nowait quiet progress verbose-result ",
            "fastmcp auth list-tokens workers w1 timeout 5 username x nowait quiet progress | "]),
        ("fastmcp auth list-tokens answer ", [
            "fastmcp auth list-tokens answer yes ", "fastmcp auth list-tokens answer no "]),
        ("fastmcp auth list-tokens | ya", ["fastmcp auth list-tokens | yaml "]),
        ("fastmcp auth list-tokens|js", ["fastmcp auth list-tokens|json "]),
        ("fastmcp auth list-tokens | json so", ["fastmcp auth list-tokens | json sort-keys "]),
        ("fastmcp auth list-tokens | table tablefmt g", ["fastmcp auth list-tokens | table tablefmt github ",
                                                          "fastmcp auth list-tokens | table tablefmt grid "]),
        ("help fastmcp au", ["help fastmcp auth "]),
        ("fastmcp auth list-tokens workers a", ["fastmcp auth list-tokens workers all ",
                                                "fastmcp auth list-tokens workers any "]),
        ("fastmcp auth list-tokens workers w1,", ["fastmcp auth list-tokens workers w1,w2 "]),
        ("fastmcp auth list-tokens workers w1,w2,", []),
        ("fastmcp auth list-tokens workers w1 w", ["fastmcp auth list-tokens workers w1 w2 "]),
        ("fastmcp auth list-tokens workers all w", []),
        ("fastmcp auth list-tokens username au", ["fastmcp auth list-tokens username automation "]),
        ("fastapi auth list-tokens username au", []),
        ("fastmcp auth list-tokens username i", ['fastmcp auth list-tokens username "it\'s me" ']),
        ("fastmcp auth list-tokens username 'a", ["fastmcp auth list-tokens username 'a b' ",
                                                  "fastmcp auth list-tokens username automation "]),
        ('fastmcp auth list-tokens username "it', ['fastmcp auth list-tokens username "it\'s me" ']),
        ("man tree fastm", ["man tree fastmcp "]),
        ("man tree show.nor", ["man tree show.norfab "]),
        ("man tree show.norfab.l", ["man tree show.norfab.logging "]),
        ("man tree nothing.", []),
        ("man tasks x", []),
        ("fastmcp auth list-tokens timeout ", []),
        ("nonsense ", []),
        ("exit ", []),
        ("'fa", []),
        ("fastmcp auth list-tokens username a\\", []),
    ],
)  # fmt: skip
def test_the_last_word_is_completed(bench: ShellBench, line: str, lines: list[str]) -> None:
    """Names, values and options are offered where they are valid, quoted where necessary."""
    if line == "fastmcp auth list-tokens username 'a":
        lines = sorted(lines)
    assert completed(bench, line) == lines


@pytest.mark.parametrize("command", ["check-token", "create-token", "delete-token"])
def test_tokens_are_never_offered(bench: ShellBench, command: str) -> None:
    """A key press never shows a secret, and runs no job to find one."""
    bench.client.calls.clear()
    assert completed(bench, f"fastmcp auth {command} token ") == []
    assert completed(bench, f"fastmcp auth {command} token t") == []
    assert bench.client.calls == []


def test_completion_follows_the_subshell(bench: ShellBench) -> None:
    """Words are looked up in the open group."""
    bench.run("fastmcp")
    assert completed(bench, "a") == ["auth "]


@pytest.fixture
def clock() -> SimpleNamespace:
    """Provide a clock that stands still until a test moves it."""
    return SimpleNamespace(now=100.0)


def test_user_names_are_asked_for_once_in_a_while(client: FakeClient, clock: SimpleNamespace) -> None:
    """A short time limit, one question in ten seconds, and a new one after a command; no tokens are listed for it."""
    suggester = ValueSuggester(client, clock=lambda: clock.now)
    client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "bob", "token": "x"})
    client.calls.clear()
    assert suggester.suggest(USERNAME) == ["bob"]
    clock.now += 9
    assert suggester.suggest(USERNAME) == ["bob"]
    assert client.calls == [{"service": "fastmcp", "task": "token_users", "workers": "all", "timeout": 1.0}]
    clock.now += 1
    suggester.suggest(USERNAME)
    suggester.invalidate()
    suggester.suggest(USERNAME)
    assert len(client.calls) == 3


@pytest.mark.parametrize("error", [NoWorkersError("gone"), KeyError("fault"), None])
def test_a_worker_that_does_not_answer_never_gets_in_the_way(
    client: FakeClient, clock: SimpleNamespace, error: Exception | None
) -> None:
    """No names, no error, and no second wait for half a minute, whatever is typed meanwhile."""
    client.raising = error
    client.failing["fastmcp-worker-1"] = "too late"
    suggester = ValueSuggester(client, clock=lambda: clock.now)
    assert suggester.suggest(USERNAME) == []
    suggester.invalidate()
    clock.now += 29
    assert suggester.suggest(USERNAME) == []
    assert len(client.calls) == 1
    client.raising = None
    client.failing.clear()
    client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "bob", "token": "x"})
    clock.now += 1
    assert suggester.suggest(USERNAME) == ["bob"]


def test_a_broker_that_is_away_is_not_asked_at_each_key(client: FakeClient, clock: SimpleNamespace) -> None:
    """What needs no broker is offered all the same, and its workers when it is back."""
    suggester, workers = ValueSuggester(client, clock=lambda: clock.now), entries(ListTokens)["workers"]
    names, asked = client.worker_names, []

    def away(service: str) -> list[str]:
        asked.append(service)
        raise NoWorkersError("no broker answered")

    client.worker_names = away
    assert [suggester.suggest(workers) for _ in range(3)] == [["all", "any"]] * 3
    assert len(asked) == 1
    client.worker_names = lambda service: [*names(service), "bad\x1b[2J"]
    clock.now += 29
    assert suggester.suggest(workers) == ["all", "any"]
    clock.now += 2
    assert [suggester.suggest(workers) for _ in range(2)] == [["all", "any", "fastmcp-worker-1"]] * 2


def test_names_that_would_command_the_terminal_are_left_out(client: FakeClient) -> None:
    """Other implementations of workers may list anything."""
    client.answers["token_users"] = ["ok", "a\x1b[2J", ""]
    assert ValueSuggester(client).suggest(USERNAME) == ["ok"]


def test_a_field_with_a_few_values_suggests_them(client: FakeClient) -> None:
    """No worker is asked."""
    operations = ValueSuggester(client).suggest(entries(ShowAudit)["operation"])
    assert operations[:3] == ["create", "renew", "delete"]
    assert client.calls == []


def test_secrets_have_no_values(client: FakeClient) -> None:
    """Whatever asks, a secret field has nothing to choose from."""
    suggester = ValueSuggester(client)
    assert suggester.suggest(entries(CheckToken)["token"]) == []
    assert suggester.suggest(USERNAME._replace(is_secret=True)) == []
    assert client.calls == []
