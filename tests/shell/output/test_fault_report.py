"""Reports of unexpected errors."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from support.shell.bench import ShellBench

MakeBench = Callable[..., ShellBench]


def test_a_fault_is_one_line_and_is_logged_without_values(make_bench: MakeBench, tmp_path: Path) -> None:
    """The line has type, place and log of an unexpected exception; its text, which may hold a secret, is nowhere."""
    bench = make_bench(log_file=tmp_path / "shell.jsonl")
    bench.client.raising = KeyError("secret-token")
    status, out, err = bench.run("show fastmcp version")
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"internal error: KeyError at fake_client\.py:\d+; details in {tmp_path}/shell\.jsonl\n", err)
    record = json.loads((tmp_path / "shell.jsonl").read_text())
    assert record["event"].startswith("KeyError at fake_client.py:")
    assert any("in run_job" in frame for frame in record["stack"])
    assert "secret-token" not in err + json.dumps(record)
    assert bench.run("pwd") == (0, "root\n", "")


def test_the_log_is_private_whatever_the_umask(make_bench: MakeBench, tmp_path: Path) -> None:
    """Stacks have paths, and names of files can be names of people."""
    bench = make_bench(log_file=tmp_path / "shell.log")
    bench.client.raising = KeyError("x")
    before = os.umask(0)
    try:
        bench.run("show fastmcp version")
    finally:
        os.umask(before)
    assert (tmp_path / "shell.log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_can_not_be_written_costs_only_the_details(make_bench: MakeBench, tmp_path: Path) -> None:
    """The fault is printed all the same, as it is without a log file."""
    for options in ({"log_file": tmp_path / "missing" / "x"}, {}):
        bench = make_bench(**options)
        bench.client.raising = KeyError("x")
        status, _, err = bench.run("show fastmcp version")
        assert (status, err.count("\n")) == (1, 1)
        assert err.startswith("internal error: KeyError at fake_client.py:")
