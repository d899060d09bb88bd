"""Pipe functions."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.shell.bench import Printed
from support.shell.fake_client import CREATION, FakeClient

Run = Callable[[str], Printed]
LIST = "fastmcp auth list-tokens"
CHECK = "fastmcp auth check-token token 000123"
HEADER = " worker            username    token   age      creation                    expires"
ROW = " fastmcp-worker-1  automation  000123  0:00:01  2026-05-31 12:08:51.914919  None"
RECORD = {
    "worker": "fastmcp-worker-1",
    "username": "automation",
    "token": "000123",
    "age": "0:00:01",
    "creation": CREATION,
    "expires": None,
}


@pytest.fixture(autouse=True)
def stored(run: Run) -> None:
    """Store a token whose text looks like a number."""
    assert run("fastmcp auth create-token username automation token 000123")[0] == 0


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (f"{CHECK} | json", '{\n    "fastmcp-worker-1": true\n}'),
        (f"{CHECK} | json indent 1 separators ',:'", '{\n "fastmcp-worker-1":true\n}'),
        (f"{CHECK} | yaml", "fastmcp-worker-1: true"),
        (f"{CHECK} | pprint", "{'fastmcp-worker-1': True}"),
        (f"{CHECK} | kv", "fastmcp-worker-1: True"),
        (f"{CHECK} | nested", "fastmcp-worker-1:\n    True"),
        (f"{CHECK} | table tablefmt plain", "worker            result\nfastmcp-worker-1  True"),
        (f"{CHECK} | include worker", '    "fastmcp-worker-1": true'),
        (f"{CHECK} | exclude worker", "{\n}"),
        (f"{CHECK} | last 2", '    "fastmcp-worker-1": true\n}'),
        (f"{CHECK} | markdown", '{\n    "fastmcp-worker-1": true\n}'),
        (f"{LIST} | rich-table", f"{HEADER}\n{ROW}"),
        (f"{LIST} | rich-table title 'all of them' headers token", " all of them\n token\n 000123"),
        (f"{LIST} | include automation", ROW),
        (f"{LIST}|last 1", ROW),
        (
            f"{LIST} | table tablefmt tsv headers username,token showindex",
            "  \tusername  \ttoken\n1 \tautomation\t000123",
        ),
        (
            f"{LIST} | table tablefmt plain headers-exclude 'worker, age,creation,expires'",
            "username    token\nautomation  000123",
        ),
        (f"{LIST} | kv separator /", "\n".join(f"0/{key}: {value}" for key, value in RECORD.items())),
        (f"{LIST} | json sort-keys false | include token", '        "token": "000123",'),
    ],
)
def test_pipe_functions_work_on_the_data(run: Run, line: str, text: str) -> None:
    """Outputters get `{worker: value}` or the rows, filters what would be printed; no value is taken for a number."""
    assert run(line) == (0, f"{text}\n", "")


def test_json_and_yaml_give_the_rows_back(run: Run) -> None:
    """What a program reads from `| json` and `| yaml` is the list of records, text as text."""
    assert json.loads(run(f"{LIST} | json")[1]) == [RECORD]
    assert yaml.safe_load(run(f"{LIST} | yaml")[1]) == [RECORD]


def test_json_is_valid_with_the_longest_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of 1,000 characters and a name full of markup come through uncut, however narrow the terminal."""
    monkeypatch.setenv("COLUMNS", "40")
    token = "T" * 1000
    run(f"fastmcp auth create-token username '[red]ж {{a}}' token {token}")
    for options in ("", " ensure-ascii false"):
        rows = json.loads(run(f"{LIST} username '[red]ж {{a}}' | json{options}")[1])
        assert [(row["username"], row["token"]) for row in rows] == [("[red]ж {a}", token)]


@pytest.mark.parametrize("token", ["000189", "1e5", "0o17", "12345678", "1.", ".5", "~", "true"])
def test_readers_of_any_yaml_take_a_token_for_text(run: Run, token: str) -> None:
    """What is text in YAML 1.1 may be a number in YAML 1.2."""
    assert run(f"fastmcp auth create-token username ann token {token}")[0] == 0
    assert f"  token: '{token}'\n" in run(f"{LIST} username ann | yaml")[1]


@pytest.mark.parametrize(
    ("table_format", "cell"),
    [("github", r"a\|b"), ("pipe", r"a\|b"), ("jira", r"a\|b"), ("mediawiki", "a{{!}}b"), ("orgtbl", r"a\vert{}b")],
)
def test_a_bar_in_a_cell_ends_no_cell(run: Run, table_format: str, cell: str) -> None:
    """In formats that programs read; others keep it."""
    assert run("fastmcp auth create-token username 'a|b' token t")[0] == 0
    assert cell in run(f"{LIST} | table tablefmt {table_format} headers username")[1]
    assert "a|b" in run(f"{LIST} | table tablefmt grid headers username")[1]


def test_yaml_does_not_wrap(run: Run) -> None:
    """Long values with blanks stay on their line."""
    name = " ".join(["word"] * 40)
    run(f"fastmcp auth create-token username '{name}' token long")
    assert f"  username: {name}\n" in run(f"{LIST} | yaml")[1]


def test_values_can_not_forge_lines(run: Run, client: FakeClient) -> None:
    r"""A newline in a value shows as `\n`, whichever function prints it."""
    client.answers["get_status"] = {"state": "up\nfake: line\x1b[2J"}
    for function in ("kv", "nested", "table tablefmt plain", "rich-table", "yaml", "pprint", "json"):
        status, text, _ = run(f"show fastmcp status | {function}")
        assert status == 0
        assert "\x1b" not in text
        assert not any(line.strip().startswith("fake") for line in text.splitlines())


def test_nested_data_is_shown_indented_or_as_tables(run: Run, client: FakeClient) -> None:
    """Keys end in a colon, lists have marks, lists of flat records become tables on demand."""
    client.answers["get_status"] = [{"name": "a", "tags": ["x", "y"]}]
    assert run("show fastmcp status | nested")[1] == (
        "fastmcp-worker-1:\n    |_\n      ----------\n"
        "      name:\n          a\n      tags:\n          - x\n          - y\n"
    )
    assert run("show fastmcp status | nested with-tables tablefmt plain initial-indent 1")[1] == (
        ' ----------\n fastmcp-worker-1:\n       name    tags\n       a       ["x", "y"]\n'
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{LIST} | include a | json", "json: needs data, but include before it returns text"),
        (f"{LIST} | json | yaml", "yaml: needs data, but json before it returns text"),
        ("man tree | json", "json: needs data, but the command returns text"),
        (f"{LIST} | json indent x", "json: indent: must be a whole number, got 'x'"),
        (f"{LIST} | json separators x", "json: separators: must be a comma and a colon"),
        (f"{LIST} | last 0", "last: must be more than 0, got '0'"),
        (f"{LIST} | include ''", "include: must have 1 or more characters"),
        (f"{LIST} | table tablefmt nice", "table: tablefmt: must be one of the values that ? lists, got 'nice'"),
        (
            f"{LIST} | table sortby nothing",
            "list-tokens: unknown column 'nothing': expected worker, username",
        ),
    ],
)
def test_wrong_pipes_are_one_line(run: Run, client: FakeClient, line: str, message: str) -> None:
    """The error names the function and the reason; where the words suffice to find it, nothing is sent."""
    calls = len(client.calls)
    status, out, err = run(line)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert len(client.calls) - calls == ("sortby" in line)


def test_saved_results_are_private(run: Run, tmp_path: Path) -> None:
    """`save` writes what is printed to a file of mode 0600, replaces what was there, and makes folders."""
    file = tmp_path / "new" / "out.txt"
    printed = run(LIST)
    assert run(f"{LIST} | save '{file}'") == printed
    assert file.read_text() == printed[1]
    file.chmod(0o644)
    run(f"{CHECK} | json | save '{file}'")
    assert file.read_text() == '{\n    "fastmcp-worker-1": true\n}\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_save_and_what_follows_it_both_get_the_data(run: Run, tmp_path: Path) -> None:
    """`save` changes nothing for the functions after it."""
    file = tmp_path / "out.txt"
    assert run(f"{LIST} | save '{file}' | json") == run(f"{LIST} | json")
    assert file.read_text() == run(LIST)[1]


def test_a_place_that_can_not_be_saved_to_is_one_line(run: Run, tmp_path: Path) -> None:
    """Folders, links and impossible paths are named, and left alone."""
    link = tmp_path / "link"
    blocked = tmp_path / "file"
    blocked.write_text("keep")
    link.symlink_to(blocked)
    for place, reason in [
        (tmp_path, "exists and is not a regular file"),
        (link, "exists and is not a regular file"),
        (blocked / "below", "cannot write "),
    ]:
        status, out, err = run(f"{LIST} | save '{place}'")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert reason in err
    assert link.is_symlink()
    assert blocked.read_text() == "keep"
