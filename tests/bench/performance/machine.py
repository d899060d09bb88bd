"""The machine and the libraries that a benchmark ran with: figures mean little without."""

from __future__ import annotations

import os
import platform
import subprocess
import textwrap
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("diskcache", "mcp", "picle", "pydantic", "pyzmq", "uvicorn", "uvloop")
_REFERENCE_VERSION = "import importlib.metadata as m; print(m.version('norfab'))"
_COLUMNS = 80


def description(folder: Path, reference_python: str | None) -> dict[str, str]:
    """Describe the machine.

    Args:
        folder: where the databases lie: their disk is described.
        reference_python: a Python with the reference, None where it isn't measured.
    """
    described = {
        "processor": f"{os.cpu_count()} cores of {_processor()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.1f} GB",
        "system": f"{platform.system()} {_kernel()} {platform.machine()}, {_file_system(folder)}",
        "python": platform.python_version(),
        "nfcli": version("nfcli"),
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
    }
    if reference_python is not None:
        asked = subprocess.run([reference_python, "-c", _REFERENCE_VERSION], capture_output=True, text=True, check=True)
        described["reference"] = f"norfab {asked.stdout.strip()}"
    return described


def load() -> str:
    """Return how busy the machine was of late: processes that ran or wanted to, on average over 1, 5 and 15 minutes."""
    return ", ".join(f"{each:.2f}" for each in os.getloadavg())


def lines(described: dict[str, str]) -> str:
    """Return a description as text of 80 columns."""
    width = max(map(len, described)) + 2
    return "\n".join(
        textwrap.fill(text, _COLUMNS, initial_indent=name.ljust(width), subsequent_indent=" " * width)
        for name, text in described.items()
    )


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _kernel() -> str:
    """Return the kernel's version without what those who built it have added."""
    return ".".join(platform.release().split(".")[:2])


def _file_system(folder: Path) -> str:
    asked = subprocess.run(["df", "-PT", str(folder)], capture_output=True, text=True, check=False)
    fields = asked.stdout.splitlines()[-1].split() if asked.returncode == 0 else []
    return f"databases on {fields[1]}" if len(fields) > 1 else "file system unknown"
