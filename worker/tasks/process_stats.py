"""Resource usage of this process, from `/proc` or from POSIX calls."""

from __future__ import annotations

import resource
import sys
import threading
from pathlib import Path

from ...models.tasks.introspection import ProcessStats

_MIB = 1024 * 1024
_MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
_TCP_TABLES = ("tcp", "tcp6")
_INODE_COLUMN = 9


def process_stats(uptime_seconds: float, *, proc: Path = Path("/proc/self")) -> ProcessStats:
    """Return the resource usage of the process; `proc` is its folder in /proc, which macOS doesn't have."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    descriptors = _descriptors(proc)
    return ProcessStats(
        cpu_percent=round(100 * (used.ru_utime + used.ru_stime) / max(uptime_seconds, 0.001), 2),
        memory_rss_mbyte=resident_mbyte(proc=proc),
        uptime_seconds=int(uptime_seconds),
        open_file_descriptors=None if descriptors is None else len(descriptors),
        tcp_sockets=_tcp_sockets(proc, descriptors or []),
        threads=_threads(proc) or threading.active_count(),
    )


def resident_mbyte(*, proc: Path = Path("/proc/self")) -> float:
    """Return the memory of the process in MiB, its peak where only that is known."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT_BYTES
    return round((_resident_bytes(proc) or peak) / _MIB, 3)


def _resident_bytes(proc: Path) -> int | None:
    text = _read(proc / "statm")
    return None if text is None else int(text.split()[1]) * resource.getpagesize()


def _threads(proc: Path) -> int | None:
    text = _read(proc / "status") or ""
    counts = (line.split()[1] for line in text.splitlines() if line.startswith("Threads:"))
    return next((int(count) for count in counts), None)


def _descriptors(proc: Path) -> list[str] | None:
    """Return the target of each open file descriptor, "" where it is unknown; None without a list of descriptors."""
    for folder in (proc / "fd", Path("/dev/fd")):
        try:
            return [_target(path) for path in folder.iterdir()]
        except OSError:
            continue
    return None


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # closed since the folder was listed, or not a link
        return ""


def _tcp_sockets(proc: Path, descriptors: list[str]) -> int | None:
    tables = [text for name in _TCP_TABLES if (text := _read(proc / "net" / name)) is not None]
    if not tables:
        return None
    inodes = {line.split()[_INODE_COLUMN] for table in tables for line in table.splitlines()[1:] if line.strip()}
    return sum(target.removeprefix("socket:[").removesuffix("]") in inodes for target in descriptors)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
