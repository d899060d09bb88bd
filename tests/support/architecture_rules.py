"""Rules that no tool checks: each check takes files (path from the root -> text) and names the breaches.

Directions of imports and walls around packages are contracts of import-linter, dependencies are checked by deptry, and
what a line may hold by ruff: all in `pyproject.toml`.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {"pyproject.toml", "README.md", "shell", "models", "worker", "man", "tests", "__init__.py", "py.typed"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_FOLDER_MODULES = 12
# Their private names are overridden, or their habits worked around: the next version may have others.
BOUNDED = {"diskcache", "httptools", "mcp", "picle", "pyzmq", "uvicorn"}
PAGES = {
    *("tokens", "inventory", "mcp-clients", "scripting", "python", "protocol", "security", "troubleshooting"),
    *(
        "performance",
        "backup",
        "fabric",
        "tools",
        "contributing",
        "changelog",
        "metrics",
        "service",
        "containers",
        "upgrading",
    ),
}
# Folders of one developer's machine, folders beside the repository, and hosts of package registries.
ELSEWHERE = re.compile(r"/(?:work|root|farm|opt)/|/tmp/bash[_]jobs|(?<!\w)shared[/]|pypi[.]org|pythonhosted[.]org")

Files = Mapping[str, str]
Check = Callable[[Files], list[str]]


def check_relative_imports(files: Files) -> list[str]:
    """The package imports itself relatively: by its name it would be imported twice from a folder of another name."""
    return [
        f"{path}:{number} imports {name}"
        for path, text in _package_files(files).items()
        for number, name in _outline(text).imports
        if name.split(".")[0] == "nfcli"
    ]


def check_file_sizes(files: Files) -> list[str]:
    """A module is one idea."""
    return [
        f"{path} has {count} lines"
        for path, text in files.items()
        if path.endswith(".py") and (count := len(text.splitlines())) > MAX_FILE_LINES
    ]


def check_function_sizes(files: Files) -> list[str]:
    """A function fits on a screen, decorators and docstring included."""
    return [
        f"{path}:{first} {name} has {count} lines"
        for path, text in files.items()
        if path.endswith(".py")
        for first, name, count in _outline(text).functions
        if count > MAX_FUNCTION_LINES
    ]


def check_folder_sizes(files: Files) -> list[str]:
    """A folder is one subject: its listing is read at a glance."""
    modules = [PurePosixPath(path) for path in files if path.endswith(".py")]
    counts = Counter(path.parent.as_posix() for path in modules if path.name not in {"__init__.py", "conftest.py"})
    return [f"{folder} has {count} modules" for folder, count in counts.items() if count > MAX_FOLDER_MODULES]


def check_folder_docstrings(files: Files) -> list[str]:
    """The `__init__.py` of a folder says in one line what the folder holds, and does nothing else."""
    found = []
    for path, text in _package_files(files).items():
        if path.endswith("/__init__.py"):
            body = ast.parse(text).body
            docstring = ast.get_docstring(ast.Module(body, []))
            if docstring is None or "\n" in docstring or len(body) > 1:
                found.append(f"{path} is not a docstring of one line")
    return found


def check_packages(files: Files) -> list[str]:
    """`pyproject.toml` lists every folder of the package: the wheel lacks the others."""
    folders = {PurePosixPath(path).parent for path in _package_files(files)}
    package = {".".join(("nfcli", *folder.parts)) for folder in folders}
    setuptools = tomllib.loads(files.get("pyproject.toml", "")).get("tool", {}).get("setuptools", {})
    listed = set(setuptools.get("packages", []))
    return [
        *(f"pyproject.toml doesn't list the package {name}" for name in sorted(package - listed)),
        *(f"pyproject.toml lists the package {name}, which has no folder" for name in sorted(listed - package)),
    ]


def check_sleep(files: Files) -> list[str]:
    """Tests wait for what they wait for, not for time to pass; benchmarks may."""
    tests = [path for path in files if path.startswith("tests/") and "tests/bench/" not in path]
    return [
        f"{path}:{number} sleeps" for path in tests if path.endswith(".py") for number in _outline(files[path]).sleeps
    ]


def check_bounds(files: Files) -> list[str]:
    """Libraries whose private names or habits we rely on stay below the next version that may have others."""
    project = tomllib.loads(files.get("pyproject.toml", "")).get("project", {})
    listed = {re.split(r"\W", each.replace("-", "_"))[0]: each for each in project.get("dependencies", [])}
    return [
        f"pyproject.toml needs {listed[name]} without a bound" if name in listed else f"pyproject.toml lacks {name}"
        for name in sorted(BOUNDED)
        if not re.search(r"<|==", listed.get(name, ""))
    ]


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


def _package_files(files: Files) -> dict[str, str]:
    return {path: text for path, text in files.items() if path.endswith(".py") and path.split("/")[0] != "tests"}


@dataclass(frozen=True)
class _Outline:
    """What the rules judge of a module: absolute imports, functions with their lengths, `sleep`; each with its line."""

    imports: list[tuple[int, str]]
    functions: list[tuple[int, str, int]]
    sleeps: list[int]


@cache
def _outline(text: str) -> _Outline:
    """Parse a module once for all rules; the tree isn't kept, those of all modules together are large."""
    outline = _Outline([], [], [])
    names_sleep = "sleep" in text
    for node in ast.walk(ast.parse(text)):
        outline.imports.extend((node.lineno, name) for name in _imported(node) if isinstance(node, ast.stmt))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            outline.functions.append((first, node.name, (node.end_lineno or node.lineno) - first + 1))
        if names_sleep and "sleep" in _names(node) and isinstance(node, ast.expr | ast.stmt):
            outline.sleeps.append(node.lineno)
    return outline


def _names(node: ast.AST) -> set[str]:
    """Return the names that a node uses or imports."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Attribute):
        return {node.attr}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.name for alias in node.names}
    return set()


def _imported(node: ast.AST) -> list[str]:
    """Return the modules that a node imports by absolute names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def read_repository() -> dict[str, str]:
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
    *(check_relative_imports, check_file_sizes, check_function_sizes, check_folder_sizes, check_folder_docstrings),
    *(check_packages, check_sleep, check_bounds, check_places, check_top_level, check_pages),
]
