"""The search for tokens that were left behind: it finds them, and only where they don't belong."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

SECRET = "m4rked-t0ken"


@pytest.fixture
def watch(token_watch: Any) -> Any:
    """Return a watch that has seen nothing."""
    return type(token_watch)()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is gone when the session's own search comes by."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file into an environment below a folder."""
    file = folder / "environment0" / ".nfcli" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_token_in_a_log_is_found(watch: Any, folder: Path) -> None:
    """Whatever is around it."""
    watch.note(SECRET)
    log = write(folder, "logs/w.jsonl", f'{{"message": "refused {SECRET}"}}\n')
    write(folder, "logs/other.jsonl", '{"message": "refused ***"}\n')
    assert list(watch.search(folder)) == [f"{log}: {SECRET}"]


def test_token_in_a_home_is_found(watch: Any, folder: Path) -> None:
    """A history that went to the home folder, for instance."""
    watch.note(SECRET)
    history = folder / "home3" / ".history"
    history.parent.mkdir()
    history.write_text(f"create-token token {SECRET}\n")
    assert list(watch.search(folder)) == [f"{history}: {SECRET}"]


def test_database_may_hold_tokens_and_lists_them(watch: Any, folder: Path) -> None:
    """A token that only a worker has seen is looked for as well."""
    tokens = write(folder, "tokens/w/other", "").parent
    with closing(sqlite3.connect(tokens / "cache.db")) as database:
        database.execute("CREATE TABLE Cache (key TEXT)")
        database.execute("INSERT INTO Cache VALUES (?)", (f"bearer_token::{SECRET}",))
        database.commit()
    log = write(folder, "logs/w.jsonl", SECRET)
    assert list(watch.search(folder)) == [f"{log}: {SECRET}"]


def test_tokens_given_to_programs_are_looked_for(watch: Any, folder: Path) -> None:
    """Those that can be distinguished from other text: the short one turns up everywhere."""
    assert watch.note_given(f"fastmcp auth create-token username u token {SECRET}\ncheck-token token t-1") == {SECRET}
    log = write(folder, "logs/w.jsonl", f"t-1 {SECRET}")
    assert list(watch.search(folder)) == [f"{log}: {SECRET}"]


@pytest.mark.parametrize("name", [SECRET, f"of {SECRET}!", f"{SECRET}."])
@pytest.mark.parametrize("token", [SECRET, f"{SECRET}=="])
def test_token_that_is_a_word_of_a_name_is_not_looked_for(watch: Any, folder: Path, token: str, name: str) -> None:
    """Random names and tokens of a test may coincide, and a name is no secret."""
    watch.note(token)
    watch.note("0ther-t0ken")
    log = write(folder, "logs/w.jsonl", f"created for {name}; 0ther-t0ken")
    assert f"{log}: {SECRET}" in list(watch.search(folder))
    watch.note_username(name)
    assert list(watch.search(folder)) == [f"{log}: 0ther-t0ken"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no proc file system")
def test_token_in_arguments_or_environment_is_found(watch: Any, folder: Path) -> None:
    """Other users of the machine can read the arguments of a process."""
    watch.note(SECRET)
    command = [sys.executable, "-c", "input(input())", SECRET]
    environment = {**os.environ, "LEAKED": SECRET}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"ready\n")
        process.stdin.flush()
        assert process.stdout.read(len("ready")) == b"ready"  # before that it may have no arguments yet
        watch.note_process(process.pid)
        process.communicate(b"\n")
    assert list(watch.search(folder)) == [
        f"/proc/{process.pid}/cmdline: {SECRET}",
        f"/proc/{process.pid}/environ: {SECRET}",
    ]
