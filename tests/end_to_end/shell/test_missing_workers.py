"""Changes of tokens in a fabric while a worker that has the tokens is away: output, exit status, check."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.shell.cli import main
from support.fabric.fake_broker import FakeBroker, Site, done, result

AWAY = (
    r"w2: worker w2, last seen 20\d\d-\d\d-\d\d \d\d:\d\d, is not registered at the broker for fastmcp, so it was not "
    r"reached: start it and repeat this, or drop it with fastmcp workers forget w2\n"
)
DELETE = ("fastmcp", "auth", "delete-token", "token", "secret-1")
ONE = '{\n    "w1": true\n}\n'
FORGOTTEN = "w2 keeps the tokens that it has; once it is seen again, it is expected again\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def broker() -> Iterator[Any]:
    """Run a broker with two workers, which do what they are asked to."""
    broker = FakeBroker({"w1": "fastmcp", "w2": "fastmcp"})
    broker.on_ask = lambda ask: [
        broker.dispatched(ask, ask.names),
        *(done(ask, {name: result(ask.data["task"] != "bearer_token_list" or [])}) for name in ask.names),
    ]
    yield broker
    broker.stop()


@pytest.fixture
def run(tmp_path: Path, broker: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the program in an environment of that broker; return exit status, stdout and stderr."""
    Site(tmp_path, broker)

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["-i", str(tmp_path / "inventory.yaml"), *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def lines_of(checked: tuple[int, str, str], subject: str) -> list[str]:
    """Return the lines of a check about a subject."""
    return [line for line in checked[1].splitlines() if line[6:].startswith(subject)]


@pytest.mark.parametrize(
    ("words", "task"),
    [
        (DELETE, "bearer_token_delete"),
        (("fastmcp", "auth", "delete-token", "username", "ann"), "bearer_token_delete"),
        (("fastmcp", "auth", "create-token", "username", "ann", "token", "secret-1"), "bearer_token_store"),
        (
            ("fastmcp", "auth", "create-token", "username", "ann", "token", "secret-1", "expire", "60"),
            "bearer_token_store",
        ),
    ],
)
def test_a_change_that_misses_a_worker_seen_before_fails(
    run: Run, broker: Any, words: tuple[str, ...], task: str
) -> None:
    """The others' results are printed as ever; stderr says which it missed and what to do."""
    assert run(*words) == (0, '{\n    "w1": true,\n    "w2": true\n}\n', "")
    del broker.workers["w2"]
    status, out, err = run(*words)
    assert (status, out) == (1, ONE)
    consequence = r"; [^\n]* may (still be valid|not be stored) there: repeat this, or run fastmcp tokens sync\n"
    assert re.fullmatch(AWAY.removesuffix(r"\n") + consequence, err)
    assert (broker.asked[-1].data["task"], broker.asked[-1].names) == (task, ["w1"])


def test_a_generated_token_is_not_shown_while_a_worker_is_missing(run: Run, broker: Any) -> None:
    """It would open one worker of two."""
    run(*DELETE)
    del broker.workers["w2"]
    status, out, err = run("fastmcp", "auth", "create-token", "username", "ann")
    assert (status, out) == (1, ONE)
    assert re.match(AWAY, err)
    assert "w2 didn't confirm the generated token, so it is not shown" in err
    assert broker.asked[-1].data["kwargs"]["token"] not in err


def test_a_list_of_tokens_says_whose_are_lacking(run: Run, broker: Any) -> None:
    """An empty list doesn't mean that the token is gone."""
    run(*DELETE)
    del broker.workers["w2"]
    status, out, err = run("fastmcp", "auth", "list-tokens")
    assert (status, len(out.splitlines()), re.fullmatch(AWAY, err) is not None) == (1, 1, True)


def test_the_named_workers_alone_are_expected(run: Run, broker: Any) -> None:
    """As is any one of them."""
    run(*DELETE)
    del broker.workers["w2"]
    for workers in ("w1", "any"):
        assert run(*DELETE, "workers", workers) == (0, ONE, "")


def test_a_fleet_that_is_away_ends_the_command_with_three(run: Run, broker: Any) -> None:
    """As where no worker is reachable."""
    run(*DELETE)
    broker.workers.clear()
    status, out, err = run(*DELETE)
    assert (status, out, err.count(", last seen ")) == (3, "", 2)


def test_the_missing_are_shown_and_are_a_fault_until_they_are_forgotten(run: Run, broker: Any) -> None:
    """Beside the others, in their columns."""
    assert run("fastmcp", "workers", "forget", "w2")[0] == 1
    run(*DELETE)
    del broker.workers["w2"]
    _, out, _ = run("show", "norfab", "workers")
    header, first, second = out.splitlines()
    assert header.split() == [
        *("name", "service", "status", "uptime", "memory", "(MB)", "cpu", "(%)", "jobs", "holdtime", "note")
    ]
    assert (first.split()[:3], second.split()[:3]) == (["w1", "fastmcp", "alive"], ["w2", "fastmcp", "missing"])
    checked = run("--check")
    assert (checked[0], len(lines_of(checked, "fleet: worker w2, last seen "))) == (1, 1)
    assert run("fastmcp", "workers", "forget", "w2") == (0, '{\n    "w2": true\n}\n', FORGOTTEN)
    checked = run("--check")
    assert (checked[0], lines_of(checked, "fleet:")) == (0, ["ok    fleet: no expected worker is missing"])
    assert run(*DELETE) == (0, ONE, "")


def test_a_check_remembers_nothing(run: Run, tmp_path: Path) -> None:
    """It changes no file."""
    run("show", "norfab", "client")
    before = sorted(tmp_path.rglob("*"))
    assert run("--check")[0] == 0
    assert sorted(tmp_path.rglob("*")) == before
    run(*DELETE)
    assert [*json.loads((tmp_path / ".nfcli" / "workers.json").read_text())["workers"]] == ["w1", "w2"]


@pytest.mark.parametrize(("words", "status"), [((), 2), (("a\x1bb",), 2), (("w1",), 1), (("nobody",), 1)])
def test_what_cannot_be_forgotten_is_one_line(run: Run, words: tuple[str, ...], status: int) -> None:
    """A name is needed, of a worker that was seen and is away."""
    run(*DELETE)
    code, out, err = run("fastmcp", "workers", "forget", *words)
    assert (code, out, err.count("\n")) == (status, "", 1)
