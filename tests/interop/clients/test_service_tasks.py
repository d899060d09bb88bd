"""Tasks of NorFab's services as commands of our shell: `run SERVICE TASK …` and `service NAME`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nfcli import Client
from nfcli.shell.repl.completion import complete
from support.norfab.observers import until
from support.shell.bench import ShellBench
from support.workers import NfcliRunner

DEMO = ["demo-worker-1", "demo-worker-2"]
Ran = tuple[int, str, str]


@pytest.fixture
def run(tool_site: Any, nfcli: NfcliRunner) -> Callable[..., Ran]:
    """Return what runs a command; it returns the exit status, and what was printed."""

    def ran(*words: str, stdin: str = "") -> Ran:
        done = nfcli(*words, environment=tool_site.environment, stdin=stdin)
        return done.returncode, done.stdout, done.stderr

    return ran


@pytest.fixture
def bench(tool_site: Any) -> ShellBench:
    """Provide a session over our client."""
    client: Client = tool_site.client
    return ShellBench(client)  # type: ignore[arg-type]  # a real client


def _completed(bench: ShellBench, line: str) -> list[str]:
    """Return the line as each completion would make it, with a key press's patience."""
    with bench.session.catalogue.only_known():
        found = complete(line, bench.session.navigator.location, bench.session.suggester)
    return [line[: found.start] + text for text in found.texts]


def test_a_task_of_norfab_s_workers_runs_with_its_arguments(run: Callable[..., Ran]) -> None:
    """On all workers of the service, or one; numbers arrive as numbers."""
    status, out, err = run("run", "demo", "say", "text", "ho", "times", "2")
    assert (status, err) == (0, "")
    assert json.loads(out) == {name: {"text": "hoho", "worker": name} for name in DEMO}
    status, out, _ = run("run", "demo", "say", "text", "ho", "workers", DEMO[0], "|", "json")
    assert (status, json.loads(out)) == (0, {DEMO[0]: {"text": "ho", "worker": DEMO[0]}})


def test_what_breaks_the_schema_is_not_sent(run: Callable[..., Ran], tool_site: Any) -> None:
    """One line with all that is wrong, and exit status 2."""
    before = tool_site.jobs("demo")
    problem = "say: text: field required; times: must be 1 or more, got '0'\n"
    assert run("run", "demo", "say", "times", "0") == (2, "", problem)
    assert run("run", "demo", "sya", "text", "x")[0] == 2
    assert run("run", "dmeo", "say")[0] == 2
    assert {job for job in tool_site.jobs("demo") if job[1] == "say"} == {job for job in before if job[1] == "say"}


def test_echo_needs_no_job_object(run: Callable[..., Ran]) -> None:
    """NorFab's workers list `job` as required and fill it in; other arguments are typed as JSON."""
    status, out, _ = run("run", "demo", "echo", "arguments", '{"more": [1, 2]}', "workers", DEMO[0])
    assert (status, json.loads(out)[DEMO[0]]["kwargs"]) == (0, {"more": [1, 2]})


def test_a_script_in_a_service(run: Callable[..., Ran]) -> None:
    """Tasks are typed without `run NAME`; a failed one fails the script."""
    status, out, err = run(
        stdin=f"service demo\nsay text a workers {DEMO[0]}\nrefuse reason no workers {DEMO[0]}\nexit\npwd\n"
    )
    assert (status, out.splitlines()[-1]) == (1, "root")
    assert json.loads(out[: out.rindex("root")]) == {DEMO[0]: {"text": "a", "worker": DEMO[0]}}
    assert err == f"line 3: {DEMO[0]}: no\n"


def test_the_tree_help_and_tab_know_the_tasks(bench: ShellBench) -> None:
    """Services, tasks, arguments, and workers of that service alone."""
    tree = bench.run("man tree run.demo.say")[1].splitlines()
    assert [line.strip(" └├─│") for line in tree[3:]][-2:] == [
        "*text:    What to say",
        "times:    How many times to say it, default '1'",
    ]
    assert " *text" in bench.run("run demo say ??")[1]

    assert {"run demo ", "run fastmcp ", "run filesharing "} <= set(_completed(bench, "run "))
    assert _completed(bench, "run demo adv") == ["run demo advise "]
    assert _completed(bench, "run demo say text x ti") == ["run demo say text x timeout ", "run demo say text x times "]
    assert _completed(bench, "run demo say workers d") == [f"run demo say workers {name} " for name in DEMO]


def test_files_of_the_fabric_are_completed(bench: ShellBench, tool_site: Any) -> None:
    """Folders without an end, as what is in them may follow."""
    inventory = yaml.safe_load((tool_site.fabric.folder / "inventory.yaml").read_text())
    shared = Path(inventory["workers"]["files-worker-1"][0]["base_dir"]) / "of-this-test"
    shared.mkdir()
    (shared / "one.txt").write_text("1")
    try:
        line = "run filesharing list_files url nf://of-this-test/"
        assert "one.txt" in bench.run(line)[1]
        offered = until(lambda: _completed(bench, line), "no file is offered")
        assert offered == [f"{line}one.txt "]
    finally:
        shutil.rmtree(shared)
