"""The rooms that keep promises, and the tests that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Room:
    """Sources (files, or folders with all below) and the tests that run against changes in them."""

    sources: list[str]
    tests: list[str]

    def files(self, root: Path) -> list[str]:
        """Return the modules, without the `__init__.py` of a folder."""
        found = [path for source in self.sources for path in [root / source, *sorted((root / source).rglob("*.py"))]]
        return [path.relative_to(root).as_posix() for path in found if path.is_file() and path.name != "__init__.py"]


ROOMS = {
    "tokens": Room(
        ["worker/tokens", "models/tokens.py"],
        ["tests/worker/tokens", "tests/test_durability.py"],
    ),
    "audit": Room(["worker/audit"], ["tests/worker/audit", "tests/test_durability.py"]),
    "fields": Room(
        ["models/fields.py", "models/invisible.py"],
        ["tests/models/test_fields.py", "tests/models/test_invisible.py", "tests/models/test_invisible_ranges.py"],
    ),
    "keys": Room(
        ["models/environment", "models/signing_keys.py"],
        [
            "tests/models/environment",
            "tests/models/test_signing_keys.py",
            "tests/worker/admission",
            "tests/test_durability.py",
        ],
    ),
    "http": Room(["worker/http"], ["tests/worker/http"]),
    "transport": Room(["worker/transport"], ["tests/worker/transport"]),
    "jobs": Room(
        ["worker/jobs", "worker/admission", "models/protocol"],
        ["tests/worker/jobs", "tests/worker/admission", "tests/models/protocol"],
    ),
    "tools": Room(["worker/tools"], ["tests/worker/tools", "tests/worker/mcp"]),
}
