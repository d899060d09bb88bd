"""Which process listens on a port, where the system tells this user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"  # TCP_LISTEN of the kernel's tcp_states.h
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_MAX_NAME_CHARACTERS = 64


def find_holder(port: int, proc: Path = Path("/proc")) -> str | None:
    """Return the process that listens on a TCP port, `nginx (pid 812)`; None if the system doesn't tell.

    Linux tells root about all processes, others about their own. A worker of nfcli's is named.
    """
    inodes = set(_listeners(port, proc))
    if not inodes:
        return None
    for process in proc.glob("[0-9]*"):
        with suppress(OSError):  # of another user, or ended meanwhile
            if any(_inode(link) in inodes for link in (process / "fd").iterdir()):
                return f"{_name(process)} (pid {process.name})"
    return None


def _listeners(port: int, proc: Path) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _inode(link: Path) -> str | None:
    with suppress(OSError):
        match = _SOCKET.fullmatch(str(link.readlink()))
        return match[1] if match else None
    return None


def _name(process: Path) -> str:
    """Return the name of a process: never its arguments, which may be secrets."""
    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    if "nfcli.worker" in words and "--name" in words[:-1]:
        name = f"nfcli's worker {words[words.index('--name') + 1]}"
    else:
        name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return "".join(each if each.isprintable() else "?" for each in name[:_MAX_NAME_CHARACTERS]) or "a program"
