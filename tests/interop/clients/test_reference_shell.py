"""The reference's own shell, at a terminal, manages tokens on a worker of ours."""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.norfab.sites import DirectSite
from support.programs import Terminal

OURS = "fastmcp-worker-1"
TRUE = f"{OURS}:\n    True"
ROW = {"username": "automation", "token": "secret-token"}

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LEAD = re.compile(r"(?s).* Job Results ─+\n")


@pytest.fixture(params=["_direct_folder", "_fabric_folder"], ids=["at our worker", "through the broker"])
def terminal(request: pytest.FixtureRequest, reference_python: str, token_watch: Any) -> Iterator[Any]:
    """Start the reference's shell on each of the two ways to our worker, and wait for its prompt."""
    inventory = request.getfixturevalue(request.param) / "inventory.yaml"
    command = [str(Path(reference_python).with_name("nfcli")), "-i", str(inventory), "-c"]
    # Wide enough for a token's row; without an answer to its questions about the cursor the prompt warns.
    terminal = Terminal(command, {"COLUMNS": "500", "PROMPT_TOOLKIT_NO_CPR": "1"}, None)
    terminal.note = token_watch.note_given
    try:
        terminal.wait_for_prompt()
        yield terminal
    finally:
        terminal.child.close(force=True)


@pytest.fixture
def _direct_folder(direct_site: DirectSite) -> Path:
    """Let the reference's shell in at our worker; return its base folder."""
    name = f"nfcli_{hashlib.sha256(os.fsencode(Path.cwd())).hexdigest()[:6]}_NFPClient"
    if not (direct_site.environment.clients_folder / f"{name}.key").exists():
        direct_site.authorize(name, Path(direct_site.client.call("make_key", name=name)))
    folder: Path = direct_site.client.folder
    return folder


@pytest.fixture
def _fabric_folder(fabric: Any, our_worker: Any) -> Path:  # noqa: ARG001
    """Return the base folder of a client of the fabric that our worker has joined."""
    folder: Path = fabric.client.folder
    return folder


def _printed(terminal: Any, words: str) -> str:
    """Run a command on our worker; return what the reference prints of the result."""
    text = _STYLE.sub("", terminal.run(f"fastmcp auth {words} workers {OURS}"))
    assert _LEAD.match(text), text
    return _LEAD.sub("", text).strip()


def test_tokens_are_managed_by_the_references_shell(terminal: Any) -> None:
    """Its four commands show what they show of its own worker: a check that says no, for instance, shows nothing."""
    assert _printed(terminal, "create-token username automation token secret-token expire 3600") == TRUE
    [row] = ast.literal_eval(_printed(terminal, "list-tokens username automation"))[OURS]
    assert {**ROW, **{name: row[name] for name in ("age", "creation", "expires")}} == row
    assert row["expires"] > row["creation"]
    assert _printed(terminal, "check-token token secret-token") == TRUE
    assert _printed(terminal, "delete-token username automation") == TRUE
    assert _printed(terminal, "check-token token secret-token") == ""
    assert re.search(r"failed:\n +True\n +errors:\n +- username: field required\n", _printed(terminal, "create-token"))
