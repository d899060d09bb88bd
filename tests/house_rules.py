"""The rules of the house: checks that take the files of a tree (path from the root -> text) and name each breach.

Test files take them with `runpy`, since folders of tests are no packages.
"""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {"pyproject.toml", "README.md", "shell", "models", "worker", "man", "tests", "__init__.py", "py.typed"}
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50

MAY_IMPORT = {
    "models": {"models"},
    "man": {"man", "models"},
    "shell": {"shell", "man", "models"},
    "worker": {"worker", "models"},
    "": {"shell", "models", "worker.jobs.task", "worker.jobs.context"},  # what plugins are written with
}
_MCP_CODE = {
    *("worker/mcp/notifications.py", "worker/mcp/handlers.py", "worker/mcp/app.py", "worker/mcp/tool_calls.py"),
    "worker/http/token_verifier.py",
}
WALLS = {
    "picle": {"shell/repl/app.py", "models/commands/*"},
    "zmq": {
        "shell/transport/direct.py",
        "shell/transport/broker.py",
        "worker/transport/direct.py",
        "worker/transport/*.py",
        "worker/fabric/*.py",
        "worker/transport/curve_auth.py",
        "models/environment/curve_keys.py",
        "models/protocol/connection.py",
        "models/protocol/broker_connection.py",
    },
    "diskcache": {"worker/tokens/store.py", "worker/tokens/database.py"},
    "mcp": {*_MCP_CODE},
    "mcp_types": {*_MCP_CODE, "worker/tools/definitions.py"},
    "jinja2": {"worker/tools/prompts.py"},
    "regex": {"models/patterns/bounded.py"},
    "subprocess": {"shell/processes/worker_process.py", "shell/maintenance/check_workers.py"},
    "multiprocessing": set(),
    "pickle": {"shell/maintenance/norfab_database.py"},
}
PAGES = {
    *("tokens", "inventory", "mcp-clients", "scripting", "python", "protocol", "security", "troubleshooting"),
    *("performance", "backup", "fabric", "tools", "contributing", "changelog"),
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
