"""The repository keeps its rules, and each check finds a source that breaks its rule."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.architecture_rules import (
    CHECKS,
    PAGES,
    Check,
    Files,
    check_bounds,
    check_file_sizes,
    check_folder_docstrings,
    check_folder_sizes,
    check_function_sizes,
    check_packages,
    check_pages,
    check_places,
    check_relative_imports,
    check_sleep,
    check_top_level,
    read_repository,
)


@pytest.fixture(scope="module")
def repository() -> dict[str, str]:
    """Return the files of this repository."""
    return read_repository()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_repository_keeps_the_rule(check: Check, repository: dict[str, str]) -> None:
    """Every breach is one line that names the place."""
    assert check(repository) == []


_SLASH = "/"  # keeps the places out of this file's own text
_LONG = "    pass\n" * 49
_SETUPTOOLS = "[tool.setuptools]\npackages = {}"
_BOUNDED = ["mcp>=2,<3", "diskcache<6", "httptools<1", "picle==0.13", "pyzmq<28", "uvicorn<1"]
_PROJECT = "[project]\ndependencies = {}"
BREACHES: list[tuple[Check, Files, list[str]]] = [
    (check_relative_imports, {"man/a.py": "from nfcli.models import b"}, ["man/a.py:1 imports nfcli.models"]),
    (check_relative_imports, {"shell/a.py": "def f():\n  import nfcli"}, ["shell/a.py:2 imports nfcli"]),
    (check_file_sizes, {"tests/a.py": "x\n" * 401}, ["tests/a.py has 401 lines"]),
    (check_function_sizes, {"man/a.py": f"@b\nasync def f():\n{_LONG}"}, ["man/a.py:1 f has 51 lines"]),
    (check_folder_sizes, {f"man/a{number}.py": "" for number in range(13)}, ["man has 13 modules"]),
    (check_folder_docstrings, {"man/__init__.py": ""}, ["man/__init__.py is not a docstring of one line"]),
    (check_folder_docstrings, {"man/__init__.py": '"a"\nx = 1'}, ["man/__init__.py is not a docstring of one line"]),
    (check_folder_docstrings, {"man/__init__.py": '"""a\n\nb"""'}, ["man/__init__.py is not a docstring of one line"]),
    (
        check_packages,
        {"worker/http/a.py": "", "pyproject.toml": _SETUPTOOLS.format(["nfcli.man"])},
        [
            "pyproject.toml doesn't list the package nfcli.worker.http",
            "pyproject.toml lists the package nfcli.man, which has no folder",
        ],
    ),
    (check_sleep, {"tests/a.py": "import time\ntime.sleep(1)"}, ["tests/a.py:2 sleeps"]),
    (check_sleep, {"tests/a.py": "from asyncio import sleep"}, ["tests/a.py:1 sleeps"]),
    (
        check_bounds,
        {"pyproject.toml": _PROJECT.format(["rich", "mcp>=2", *_BOUNDED[1:]])},
        ["pyproject.toml needs mcp>=2 without a bound"],
    ),
    (
        check_bounds,
        {"pyproject.toml": _PROJECT.format(_BOUNDED[1:])},
        ["pyproject.toml lacks mcp"],
    ),
    (check_places, {"README.md": f"\ncd {_SLASH}work/a"}, [f"README.md:2 says {_SLASH}work/"]),
    (check_places, {".ci/run": f"../shared{_SLASH}a"}, [f".ci/run:1 says shared{_SLASH}"]),
    (check_top_level, {"setup.py": "", ".ci/run": "", "man/a.py": ""}, ["setup.py at the top level"]),
    (check_pages, {f"man/pages/{topic}.md": "" for topic in PAGES - {"python"}}, ["man/pages/python.md is missing"]),
]
KEPT: list[tuple[Check, Files]] = [
    (check_relative_imports, {"shell/a.py": "from ..man import nfcli", "tests/a.py": "import nfcli"}),
    (check_file_sizes, {"man/a.py": "x\n" * 400}),
    (check_function_sizes, {"man/a.py": f"def f():\n{_LONG}"}),
    (check_folder_sizes, {"man/__init__.py": "", **{f"man/a{number}.py": "" for number in range(12)}}),
    (check_folder_docstrings, {"man/__init__.py": '"""The manual."""\n', "__init__.py": "x = 1"}),
    (check_packages, {"__init__.py": "", "man/a.py": "", "pyproject.toml": _SETUPTOOLS.format(["nfcli", "nfcli.man"])}),
    (check_sleep, {"tests/bench/a.py": "time.sleep(1)", "worker/a.py": "await sleep(1)"}),
    (check_bounds, {"pyproject.toml": _PROJECT.format([*_BOUNDED, "mcp-types"])}),
    (check_places, {"README.md": "cd work/a; sudo -u root/x; unshared/x"}),
]


@pytest.mark.parametrize(("check", "files", "expected"), BREACHES)
def test_a_breach_is_found(check: Check, files: Files, expected: list[str]) -> None:
    """Each check fails for its own reason only."""
    assert check(files) == expected


@pytest.mark.parametrize(("check", "files"), KEPT)
def test_what_the_rules_allow_passes(check: Check, files: Files) -> None:
    """The limits of the checks are those of the rules."""
    assert check(files) == []


def test_every_check_has_a_breach() -> None:
    """A new check comes with a source that breaks it."""
    assert {check for check, _, _ in BREACHES} == set(CHECKS)


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("shell", {"nfcli.worker", "mcp", "uvicorn", "diskcache", "cryptography"}),
        ("worker", {"nfcli.shell", "nfcli.man", "picle", "prompt_toolkit", "rich"}),
    ],
)
def test_importing_one_program_does_not_load_the_other(
    package: str, forbidden: set[str], repository: dict[str, str]
) -> None:
    """Start-up time and memory: what a statement hides, another package's imports included, shows in `sys.modules`."""
    modules = [
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in repository
        if path.startswith(f"{package}/") and path.endswith(".py") and "__main__" not in path
    ]
    code = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module('nfcli.' + m)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert forbidden & set(done.stdout.split()) == set()
