"""The rules of the house, and for each of them a source that breaks it.

A check takes the files of a tree (path from the repository's root -> text) and returns one line a breach.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {"pyproject.toml", "README.md", "shell", "models", "worker", "man", "tests", "__init__.py", "py.typed"}
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50

MAY_IMPORT = {
    "models": {"models"},
    "man": {"man", "models"},
    "shell": {"shell", "man", "models"},
    "worker": {"worker", "models"},
    "": {"shell", "models", "worker.tasks", "worker.context"},  # what plugins are written with
}
WALLS = {
    "picle": {"shell/app.py", "models/commands/*"},
    "zmq": {
        "shell/direct.py",
        "shell/fabric.py",
        "worker/direct.py",
        "worker/fabric*.py",
        "worker/access.py",
        "models/keys.py",
        "models/link.py",
        "models/broker_link.py",
    },
    "diskcache": {"worker/token_store.py", "worker/token_disk.py"},
    "mcp": {"worker/mcp_server.py", "worker/verifier.py"},
    "mcp_types": {"worker/mcp_server.py", "worker/verifier.py"},
    "subprocess": {"shell/launcher.py", "shell/check_workers.py"},
    "multiprocessing": set(),
    "pickle": {"shell/norfab_database.py"},
}
PAGES = {
    *("tokens", "inventory", "mcp-clients", "scripting", "python", "protocol", "security", "troubleshooting"),
    *("performance", "backup", "fabric", "contributing", "changelog"),
}
# Folders of one developer's machine, folders beside the repository, and hosts of package registries.
ELSEWHERE = re.compile(r"/(?:work|root|farm|opt)/|/tmp/bash[_]jobs|(?<!\w)shared[/]|pypi[.]org|pythonhosted[.]org")

Files = Mapping[str, str]
Check = Callable[[Files], list[str]]


@dataclass(frozen=True)
class Import:
    """An import statement: `target` is a dotted name, counted from the package's root if `is_ours`."""

    line: int
    target: str
    is_ours: bool
    is_relative: bool
    is_for_types: bool


def _module(path: str) -> str:
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _in_package(files: Files) -> dict[str, str]:
    return {path: text for path, text in files.items() if path.endswith(".py") and path.split("/")[0] != "tests"}


def _imports(path: str, text: str, modules: set[str]) -> Iterator[Import]:
    tree = ast.parse(text)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            targets = [(target, node.level) for target in _from_targets(path, node, modules)]
        else:
            continue
        for target, level in targets:
            name = target.removeprefix("nfcli").removeprefix(".")
            is_ours = level > 0 or target.split(".")[0] == "nfcli"
            yield Import(node.lineno, name if is_ours else target, is_ours, level > 0, id(node) in for_types)


def _from_targets(path: str, node: ast.ImportFrom, modules: set[str]) -> set[str]:
    """Return the modules that `from … import …` names: what is imported may itself be a module."""
    folder = PurePosixPath(path).parent.parts
    base = list(folder[: len(folder) - node.level + 1]) if node.level else []
    source = ".".join([*base, *([node.module] if node.module else [])])
    names = {f"{source}.{alias.name}".lstrip(".") for alias in node.names}
    return {name if name in modules else source for name in names}


def check_directions(files: Files) -> list[str]:
    """The packages import each other in one direction only, and relatively."""
    package = _in_package(files)
    modules = {_module(path) for path in package}
    found = []
    for path, text in package.items():
        own = path.split("/")[0] if "/" in path else ""
        for item in _imports(path, text, modules):
            if item.is_ours and not {item.target, item.target.split(".")[0]} & MAY_IMPORT[own]:
                found.append(f"{path}:{item.line} imports {item.target or 'the root'}")
            if item.is_ours and not item.is_relative:
                found.append(f"{path}:{item.line} imports nfcli by its name: import relatively")
    return found


def check_walls(files: Files) -> list[str]:
    """A third-party package with a wall is imported behind it only."""
    return [
        f"{path}:{item.line} imports {item.target}"
        for path, text in _in_package(files).items()
        for item in _imports(path, text, set())
        if not item.is_ours
        for inside in [WALLS.get(item.target.split(".")[0])]
        if inside is not None and not any(fnmatch.fnmatchcase(path, pattern) for pattern in inside)
    ]


def check_circles(files: Files) -> list[str]:
    """No module imports itself by way of others; imports for types only don't count."""
    package = _in_package(files)
    modules = {_module(path) for path in package}
    graph = {
        _module(path): sorted(
            {item.target for item in _imports(path, text, modules) if item.is_ours and not item.is_for_types} & modules
        )
        for path, text in package.items()
    }
    found: list[str] = []
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            found.append(" -> ".join([*way[way.index(module) :], module]))
        elif module not in done:
            for target in graph[module]:
                visit(target, [*way, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


def check_file_sizes(files: Files) -> list[str]:
    """A module is one idea."""
    return [
        f"{path} has {count} lines"
        for path, text in files.items()
        if path.endswith(".py") and (count := len(text.splitlines())) > FILE_LINES_MAX
    ]


def check_function_sizes(files: Files) -> list[str]:
    """A function fits on a screen, decorators and docstring included."""
    found = []
    for path, node in _nodes(files):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            count = (node.end_lineno or node.lineno) - first + 1
            if count > FUNCTION_LINES_MAX:
                found.append(f"{path}:{first} {node.name} has {count} lines")
    return found


def check_sleep(files: Files) -> list[str]:
    """Tests wait for what they wait for, not for time to pass; benchmarks may."""
    tests = {path: text for path, text in files.items() if path.startswith("tests/") and "tests/bench/" not in path}
    return [f"{path}:{node.lineno} sleeps" for path, node in _nodes(tests) if "sleep" in _names(node)]


def check_builtins(files: Files) -> list[str]:
    """Nothing is registered in or patched into the interpreter's own names."""
    return [f"{path}:{node.lineno} uses builtins" for path, node in _nodes(files) if _names(node) & _BUILTINS]


def check_programs(files: Files) -> list[str]:
    """Nothing runs commands of the system's, and nothing forks: open databases and sockets don't survive it."""
    used = ((path, node, name) for path, node in _nodes(_in_package(files)) for name in _names(node))
    return [f"{path}:{node.lineno} uses {name}" for path, node, name in used if _PROGRAMS.fullmatch(name)]


def check_bounds(files: Files) -> list[str]:
    """Libraries whose habits we work around stay below the next version that may have others."""
    needed = re.findall(r'"((?:diskcache|mcp|picle|pyzmq)(?:[<>=!~][^"]*)?)"', files.get("pyproject.toml", ""))
    return [f"pyproject.toml needs {each} without a bound" for each in needed if ",<" not in each]


def check_bare_except(files: Files) -> list[str]:
    """A handler says what it handles."""
    return [
        f"{path}:{node.lineno} excepts everything"
        for path, node in _nodes(files)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]


def check_star_imports(files: Files) -> list[str]:
    """A reader can tell where a name comes from."""
    return [f"{path}:{node.lineno} imports *" for path, node in _nodes(files) if _names(node) & {"*"}]


def check_places(files: Files) -> list[str]:
    """The repository means the same on every machine."""
    return [
        f"{path}:{number} says {match.group()}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
        for match in ELSEWHERE.finditer(line)
    ]


def check_top_level(files: Files) -> list[str]:
    """The owner fixed the names at the top; names with a dot in front are free."""
    names = {path.split("/")[0] for path in files}
    return [f"{name} at the top level" for name in sorted(names - TOP_LEVEL) if not name.startswith(".")]


def check_pages(files: Files) -> list[str]:
    """The manual has a page for every promised topic."""
    return [f"man/pages/{topic}.md is missing" for topic in sorted(PAGES) if f"man/pages/{topic}.md" not in files]


_BUILTINS = {"builtins", "__builtins__"}
_PROGRAMS = re.compile(r"system|popen|fork(pty)?|posix_spawnp?|(exec|spawn)[lv]p?e?|ProcessPoolExecutor")


Node = ast.expr | ast.stmt | ast.ExceptHandler


def _nodes(files: Files) -> Iterator[tuple[str, Node]]:
    for path, text in files.items():
        if path.endswith(".py"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, Node):
                    yield path, node


def _names(node: Node) -> set[str]:
    """Return the names that a node uses or imports."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Attribute):
        return {node.attr}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
    return set()


def _repository() -> dict[str, str]:
    """Read every file but those that .gitignore names."""
    ignored = [
        line.strip().rstrip("/")
        for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    found: dict[str, str] = {}
    folders = [ROOT]
    while folders:
        for entry in sorted(folders.pop().iterdir()):
            path = entry.relative_to(ROOT).as_posix()
            if path == ".git" or any(fnmatch.fnmatch(name, each) for name in (path, entry.name) for each in ignored):
                continue
            if entry.is_dir():
                folders.append(entry)
            else:
                found[path] = entry.read_text(encoding="utf-8", errors="replace")
    return found


CHECKS: list[Check] = [
    *(check_directions, check_walls, check_circles, check_file_sizes, check_function_sizes, check_sleep),
    *(check_builtins, check_programs, check_bounds, check_bare_except, check_star_imports, check_places),
    *(check_top_level, check_pages),
]


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
    (check_directions, {"__init__.py": "from .worker.tasks import task"}),
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
