"""The manual of the shell's own command tree."""

import json
from pathlib import Path

import pytest

from nfcli.man.tree import json_schema, tree_lines
from nfcli.models.commands.auth import CheckToken
from nfcli.models.commands.base import entries
from nfcli.models.commands.root import Root

EXPECTED = Path(__file__).with_name("expected") / "man_tree_fastmcp_auth.txt"


def _paths(lines: list[str]) -> list[str]:
    """Return the path of every drawn line."""
    words: list[str] = []
    paths = []
    for line in lines[1:]:
        depth = line.index("── ") // 4
        words = [*words[:depth], line[4 * depth + 4 :].split(":")[0].removeprefix("*")]
        paths.append(".".join(words))
    return paths


PATHS = _paths(tree_lines(Root))


def test_auth_branch_equals_the_accepted_text_byte_for_byte() -> None:
    """`man tree fastmcp.auth` is part of the product's contract."""
    assert ("\n".join(tree_lines(Root, "fastmcp.auth")) + "\n").encode() == EXPECTED.read_bytes()


def test_the_whole_tree_has_the_groups_of_commands() -> None:
    """And in them the commands that take no words as well as those that do."""
    assert {"fastmcp", "fastapi", "show", "man"} <= {path.split(".")[0] for path in PATHS}
    assert {"show.norfab.workers", "man.json-schema.path", "fastmcp.auth.check-token.token"} <= set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_has_a_branch_and_a_schema(path: str) -> None:
    """Each by the words that users type and by the fields' names, and each described."""
    lines = tree_lines(Root, path)
    assert _paths(lines)[path.count(".")] == path
    assert all(line.split(":    ")[1:] for line in lines[1:])
    assert lines == tree_lines(Root, path.replace("-", "_"))
    schema = json_schema(Root, path)
    assert schema == json_schema(Root, path.replace("-", "_"))
    assert json.loads(json.dumps(schema)) == schema


def test_options_of_every_job_are_drawn_on_request_only() -> None:
    """`man tree PATH all` draws what `man tree PATH` leaves out, behind a command's own fields."""
    options = [name for name, entry in entries(CheckToken).items() if entry.is_option]
    assert {"verbose-result", "progress", "quiet"} <= {*options}
    path = "fastmcp.auth.check-token"
    plain, whole = tree_lines(Root, path), tree_lines(Root, path, has_options=True)
    assert not [line for line in plain if any(f" {name}:" in line for name in options)]
    assert [line.partition(":")[0].split()[-1] for line in whole[-len(options) :]] == options
    assert len(whole) == len(plain) + len(options)
    assert tree_lines(Root, f"{path}.quiet")[-1].endswith("quiet:    Print no events of the job, default 'false'")
