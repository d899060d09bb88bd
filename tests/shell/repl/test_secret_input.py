"""Secrets that are asked for with `-`."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from nfcli.models.errors import UsageError
from nfcli.shell.repl.secret_input import StandardInput
from support.shell.bench import ShellBench

MakeBench = Callable[..., ShellBench]


class Secrets:
    """A source of secrets that counts what was dropped."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = list(secrets)
        self.dropped = 0

    def read(self, name: str) -> str:
        """Return the next secret."""
        if not self.secrets:
            raise UsageError(f"{name}: none left")
        return self.secrets.pop(0)

    def discard(self) -> None:
        """Count."""
        self.dropped += 1


def test_secrets_are_asked_for(make_bench: MakeBench) -> None:
    """`token -` takes the value from the source of secrets; in quotes the dash is the value."""
    bench = make_bench(secrets=Secrets("hidden"))
    assert bench.run("fastmcp auth create-token username a token -")[0] == 0
    assert bench.run("fastmcp auth create-token username b token '-'")[0] == 0
    assert set(bench.client.tokens["fastmcp-worker-1"]) == {"hidden", "-"}
    assert bench.run("fastmcp auth check-token token -") == (2, "", "token: none left\n")


@pytest.mark.parametrize(
    "line",
    [
        "fastmcp auth create-token usernme a tok -",
        "fastmcp auth create-token token - username",
        'fastmcp auth create-token username "a token -',
        "fastmcp auth create-token token -| nonsense",
    ],
)
def test_a_wrong_line_drops_the_secret_that_it_asks_for(make_bench: MakeBench, line: str) -> None:
    """A script's next line is the secret: it must not be run as a command, which would print it."""
    secrets = Secrets("hidden")
    status, _, err = make_bench(secrets=secrets).run(line)
    assert (status, secrets.dropped) == (2, 1)
    assert "hidden" not in err


def test_a_wrong_line_that_asks_for_nothing_drops_nothing(make_bench: MakeBench) -> None:
    """Only a dash after a secret field asks."""
    secrets = Secrets()
    make_bench(secrets=secrets).run("fastmcp auth create-token usernam - token x")
    assert secrets.dropped == 0


def test_a_single_command_in_a_terminal_asks_without_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stdin is a terminal, the secret is asked for by name; Ctrl-D is an error, not an empty secret."""
    asked: list[str] = []

    def ask(prompt: str, stream: Any) -> str:
        assert stream is sys.stderr
        asked.append(prompt)
        if len(asked) > 1:
            raise EOFError
        return "hidden"

    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda _: True})())
    monkeypatch.setattr("getpass.getpass", ask)
    assert StandardInput().read("token") == "hidden"
    with pytest.raises(Exception, match=r"^token: "):
        StandardInput().read("token")
    StandardInput().discard()
    assert asked == ["token: ", "token: "]
