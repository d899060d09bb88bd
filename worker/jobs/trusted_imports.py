"""Import of plugins: no module is loaded that other users could change.

It covers what a plugin imports as well, then and later: modules beside it, the compiled ones in `__pycache__`, those of
folders in `PYTHONPATH`. The Python installation that nfcli itself runs from isn't checked.
"""

from __future__ import annotations

import logging
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from ...models.environment.trusted_files import verify_trusted
from ...models.errors import EnvironmentFolderError

log = logging.getLogger(__name__)

_INSTALLATION = tuple(
    {*(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")), *map(Path, site.getsitepackages())}
)


class UntrustedModuleError(ImportError):
    """A module is not imported, since other users could change it; the message names the remedy."""


def guard_imports() -> None:
    """Verify every module that is imported from now on in this process; safe to repeat."""
    if not any(isinstance(finder, _TrustedFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TrustedFinder())


class _TrustedFinder:
    """Finds what the other finders find, and refuses what isn't trusted."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                try:
                    verify_spec(spec)
                except UntrustedModuleError as error:
                    log.error("module %s is not imported: %s", fullname, error)
                    raise
                return spec
        return None


def verify_spec(spec: ModuleSpec, *, is_deep: bool = False) -> None:
    """Verify where a module would be imported from: its file, the compiled one, its package's folders.

    With `is_deep` also all modules beside it, which it may import, and those of a package.

    Raises:
        UntrustedModuleError: other users could change one of them.
    """
    for place in _places(spec, is_deep=is_deep):
        try:
            verify_trusted(place)
        except EnvironmentFolderError as error:
            raise UntrustedModuleError(str(error), name=spec.name, path=str(place)) from error
        except OSError as error:
            reason = f"{error.filename or place} can't be checked: {error.strerror}"
            raise UntrustedModuleError(reason, name=spec.name, path=str(place)) from error


def _places(spec: ModuleSpec, *, is_deep: bool) -> Iterator[Path]:
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [Path(file) for file in (spec.origin, spec.cached) if file and spec.has_location]
    for place in folders + files:
        if not any(place.is_relative_to(folder) for folder in _INSTALLATION):
            yield place
            if is_deep:
                yield from _modules(place.parent, "*")
                yield from _modules(place, "**/*")


def _modules(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the modules in a folder, and the compiled ones."""
    for ending in (".py", ".so"):
        yield from folder.glob(f"{pattern}{ending}")
    compiled = pattern.removesuffix("*") + "__pycache__"
    yield from folder.glob(compiled)
    yield from folder.glob(f"{compiled}/*.pyc")
