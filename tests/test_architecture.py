"""The rules of the house are kept, and for each of them a source that breaks it is found out."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from house_rules import (
    CHECKS,
    PAGES,
    _module,
    _repository,
    check_bare_except,
    check_bounds,
    check_builtins,
    check_circles,
    check_directions,
    check_file_sizes,
    check_function_sizes,
    check_pages,
    check_places,
    check_programs,
    check_sleep,
    check_star_imports,
    check_top_level,
    check_walls,
)

if TYPE_CHECKING:
    from house_rules import Check, Files


@pytest.fixture(scope="module")
def repository() -> dict[str, str]:
    """Return the files of this repository."""
    return _repository()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_repository_keeps_the_rule(check: Check, repository: dict[str, str]) -> None:
    """Every breach is one line that names the place."""
    assert check(repository) == []


_SLASH = "/"  # keeps the places out of this file's own text
_LONG = "    pass\n" * 49
BREACHES: list[tuple[Check, Files, list[str]]] = [
    (check_directions, {"models/a.py": "from ..shell import b"}, ["models/a.py:1 imports shell"]),
    (check_directions, {"shell/a.py": "def f():\n  import nfcli.worker.b"}, ["shell/a.py:2 imports worker.b"]),
    (
        check_directions,
        {"worker/a.py": "from .. import shell", "shell/__init__.py": ""},
        ["worker/a.py:1 imports shell"],
    ),
    (check_directions, {"man/a.py": "from .. import version"}, ["man/a.py:1 imports the root"]),
    (check_directions, {"__init__.py": "from .worker.a import b"}, ["__init__.py:1 imports worker.a"]),
    (check_walls, {"shell/a.py": "import picle.models"}, ["shell/a.py:1 imports picle.models"]),
    (check_walls, {"worker/a.py": "from zmq import auth"}, ["worker/a.py:1 imports zmq"]),
    (check_walls, {"__init__.py": "from mcp.client import x"}, ["__init__.py:1 imports mcp.client"]),
    (
        check_directions,
        {"worker/__init__.py": "", "__init__.py": "from . import worker"},
        ["__init__.py:1 imports worker"],
    ),
    (check_circles, {"man/a.py": "from .b import x", "man/b.py": "from . import a"}, ["man.a -> man.b -> man.a"]),
    (check_circles, {"man/a.py": "def f():\n    from . import a"}, ["man.a -> man.a"]),
    (check_file_sizes, {"tests/a.py": "x\n" * 401}, ["tests/a.py has 401 lines"]),
    (check_function_sizes, {"man/a.py": f"@b\nasync def f():\n{_LONG}"}, ["man/a.py:1 f has 51 lines"]),
    (check_sleep, {"tests/a.py": "import time\ntime.sleep(1)"}, ["tests/a.py:2 sleeps"]),
    (check_sleep, {"tests/a.py": "from asyncio import sleep"}, ["tests/a.py:1 sleeps"]),
    (check_builtins, {"man/a.py": "import builtins"}, ["man/a.py:1 uses builtins"]),
    (check_builtins, {"tests/a.py": "__builtins__.x = 1"}, ["tests/a.py:1 uses builtins"]),
    (check_programs, {"worker/a.py": "import os\nos.system('ls')"}, ["worker/a.py:2 uses system"]),
    (check_programs, {"shell/a.py": "from os import fork"}, ["shell/a.py:1 uses fork"]),
    (check_walls, {"worker/a.py": "import subprocess"}, ["worker/a.py:1 imports subprocess"]),
    (check_walls, {"worker/a.py": "import pickle"}, ["worker/a.py:1 imports pickle"]),
    (check_bounds, {"pyproject.toml": '"rich", "mcp>=2"'}, ["pyproject.toml needs mcp>=2 without a bound"]),
    (check_bare_except, {"man/a.py": "try:\n    f()\nexcept:\n    pass"}, ["man/a.py:3 excepts everything"]),
    (check_star_imports, {"man/a.py": "from os import *"}, ["man/a.py:1 imports *"]),
    (check_places, {"README.md": f"\ncd {_SLASH}work/a"}, [f"README.md:2 says {_SLASH}work/"]),
    (check_places, {".ci/run": f"../shared{_SLASH}a"}, [f".ci/run:1 says shared{_SLASH}"]),
    (check_top_level, {"setup.py": "", ".ci/run": "", "man/a.py": ""}, ["setup.py at the top level"]),
    (check_pages, {f"man/pages/{topic}.md": "" for topic in PAGES - {"python"}}, ["man/pages/python.md is missing"]),
]
KEPT: list[tuple[Check, Files]] = [
    (check_directions, {"shell/a.py": "from ..man import tree\nfrom ..models.b import c\nfrom .d import e"}),
    (check_directions, {"__init__.py": "from .worker.jobs.task import task"}),
    (
        check_walls,
        {"models/commands/a.py": "import picle", "tests/a.py": "import zmq", "man/a.py": "from .mcp import b"},
    ),
    (
        check_circles,
        {"man/a.py": "from .b import x", "man/b.py": "if TYPE_CHECKING:\n    from .a import y", "man/__init__.py": ""},
    ),
    (check_file_sizes, {"man/a.py": "x\n" * 400}),
    (check_function_sizes, {"man/a.py": f"def f():\n{_LONG}"}),
    (check_sleep, {"tests/bench/a.py": "time.sleep(1)", "worker/a.py": "await sleep(1)"}),
    (check_places, {"README.md": "cd work/a; sudo -u root/x; unshared/x"}),
]


@pytest.mark.parametrize(("check", "files", "expected"), BREACHES)
def test_a_breach_is_found(check: Check, files: Files, expected: list[str]) -> None:
    """Each check can go red, and only for its own reason."""
    assert [line for line in check(files) if "by its name" not in line] == expected


def test_an_absolute_import_of_ourselves_is_found() -> None:
    """It would import a second copy when the folder is imported under another name."""
    assert check_directions({"man/a.py": "from nfcli.models import b"}) == [
        "man/a.py:1 imports nfcli by its name: import relatively"
    ]


@pytest.mark.parametrize(("check", "files"), KEPT)
def test_what_the_rules_allow_is_let_pass(check: Check, files: Files) -> None:
    """The checks' limits lie where the rules say."""
    assert check(files) == []


def test_every_check_has_a_breach() -> None:
    """A new check comes with a source that breaks it."""
    assert {check for check, _, _ in BREACHES} == set(CHECKS)


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("shell", {"nfcli.worker", "mcp", "uvicorn", "diskcache"}),
        ("worker", {"nfcli.shell", "nfcli.man", "picle", "prompt_toolkit", "rich"}),
    ],
)
def test_importing_one_program_does_not_load_the_other(package: str, forbidden: set[str]) -> None:
    """Start-up time and memory: what a statement hides, another package's imports included, shows in `sys.modules`."""
    modules = [_module(path) for path in _repository() if path.startswith(f"{package}/") and "__main__" not in path]
    code = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module('nfcli.' + m)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert forbidden & set(done.stdout.split()) == set()
