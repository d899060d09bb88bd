"""Starts that fail: one line that says what is wrong, where, and what to do, and an exit status."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
from typing import Any

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.programs import ProgramStarter
from support.workers import EnvironmentFactory

pytestmark = pytest.mark.slow

CHECK = "fastmcp auth check-token token x\n"


# What keeps a worker from starting: each spoils an environment and returns what the one line must say.


def occupy_the_port(environment: Environment, taken: socket.socket) -> str:
    """Listen where the worker would."""
    port = taken.getsockname()[1]
    set_key(environment, port=port)
    return rf"port {port} on 127\.0\.0\.1 .*inventory"


def open_it_to_everybody(environment: Environment, _: socket.socket) -> str:
    """Bind to all interfaces without authentication."""
    set_key(environment, host="0.0.0.0", authentication_enabled=False)  # noqa: S104  what is refused
    return r"host 0\.0\.0\.0 .*authentication_enabled: true"


def break_the_inventory(environment: Environment, _: socket.socket) -> str:
    """Misspell a key."""
    set_key(environment, prot=8001)
    return r"inventory\.yaml.*\bprot\b"


def garble_the_inventory(environment: Environment, _: socket.socket) -> str:
    """Write what isn't YAML."""
    assert environment.inventory_file is not None
    environment.inventory_file.write_text("workers: {a: [")
    return r"inventory\.yaml"


def widen_a_folder(environment: Environment, _: socket.socket) -> str:
    """Let others into the keys."""
    environment.prepare()
    environment.keys_folder.chmod(0o755)
    return rf"0755.*chmod 700 .*{environment.keys_folder}"


def widen_a_file(environment: Environment, _: socket.socket) -> str:
    """Let others read the token database."""
    environment.prepare()
    folder = environment.tokens_folder(DEFAULT_WORKER)
    folder.mkdir(mode=0o700)
    (folder / "cache.db").touch()
    (folder / "cache.db").chmod(0o644)
    return r"cache\.db has mode 0644 .*chmod 600 "


def spoil_the_key(environment: Environment, _: socket.socket) -> str:
    """Put something else in the secret key's place."""
    environment.prepare()
    file = environment.keys_folder / f"{DEFAULT_WORKER}.key_secret"
    file.touch(mode=0o600)
    file.write_text("no key\n")
    return re.escape(str(file))


def put_a_folder_in_the_keys_place(environment: Environment, _: socket.socket) -> str:
    """Make the key unreadable for every user."""
    environment.prepare()
    folder = environment.keys_folder / f"{DEFAULT_WORKER}.key_secret"
    folder.mkdir(mode=0o700)
    return re.escape(str(folder))


def damage_the_database(environment: Environment, _: socket.socket) -> str:
    """Write over the token database."""
    environment.prepare()
    folder = environment.tokens_folder(DEFAULT_WORKER)
    folder.mkdir(mode=0o700)
    (folder / "cache.db").touch(mode=0o600)
    (folder / "cache.db").write_bytes(b"\x07not a database" * 1_000)
    return r"cache\.db is damaged"


def name_a_plugin_that_is_nowhere(environment: Environment, _: socket.socket) -> str:
    """Have tasks of one's own in a module that isn't there."""
    set_key(environment, plugins=["lab.tasks"])
    return r"plugin lab\.tasks .*`plugins`"


OBSTACLES = [
    *(occupy_the_port, open_it_to_everybody, break_the_inventory, garble_the_inventory, widen_a_folder, widen_a_file),
    *(spoil_the_key, put_a_folder_in_the_keys_place, damage_the_database, name_a_plugin_that_is_nowhere),
]


# The shell finds some obstacles itself and reports what a worker that it starts says of the others: some of each kind.
STARTS = [
    *(("worker", obstacle) for obstacle in OBSTACLES),
    *(
        ("one command", obstacle)
        for obstacle in (occupy_the_port, break_the_inventory, spoil_the_key, damage_the_database)
    ),
    *(
        ("nfcli -w", obstacle)
        for obstacle in (occupy_the_port, garble_the_inventory, widen_a_folder, name_a_plugin_that_is_nowhere)
    ),
]


def set_key(environment: Environment, **keys: Any) -> None:
    """Set keys of the worker."""
    assert environment.inventory_file is not None
    inventory = json.loads(environment.inventory_file.read_text())
    inventory["workers"][DEFAULT_WORKER][0] |= keys
    environment.inventory_file.write_text(json.dumps(inventory))


def worker_command(environment: Environment) -> list[str]:
    """Return the command that runs the worker."""
    return [sys.executable, "-m", "nfcli.worker", "--environment", str(environment.folder), "--name", DEFAULT_WORKER]


@pytest.mark.parametrize(("program", "obstacle"), STARTS)
def test_a_start_that_fails_is_one_line_and_a_status(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter, obstacle: Any, program: str
) -> None:
    """The line says what is wrong, where, and what to do; nothing is left running."""
    environment = environment_factory()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        reason = obstacle(environment, taken)
        if program == "worker":
            started = start_program(command=worker_command(environment))
        elif program == "nfcli -w":
            started = start_program("-w", environment=environment)
        else:
            started = start_program(*CHECK.split(), environment=environment)
        assert started.end() == 1
    assert re.search(reason, started.err)
    assert started.err.count("\n") == 1
    assert not re.search(r"Traceback|internal error|\.py\b", started.err)
    if program == "worker":
        assert json.loads(started.out)["error"] in started.err
    else:
        assert started.out == ""
    with contextlib.suppress(PermissionError):
        assert list(environment.state_folder.glob("run/*.json")) == []


def test_one_command_that_needs_no_worker_works_where_none_can_start(
    environment_factory: EnvironmentFactory, start_program: ProgramStarter
) -> None:
    """Help is there when it is needed most."""
    environment = environment_factory(host="192.0.2.1")
    program = start_program("man", "tree", "fastmcp.auth", environment=environment)
    assert (program.end(), program.err) == (0, "")
    assert "create-token" in program.out
