"""The systemd unit of an environment's workers: what it runs, and what the service may not do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....models.errors import ServiceError

MARK = "# Written by nfcli --install-service, which replaces it; put changes into a drop-in: "
"""Begins the units that `--install-service` replaces; the command that makes a drop-in follows."""
WATCHDOG_SECONDS = 60
_START_SECONDS, _STOP_SECONDS = 300, 30
_HOMES = tuple(Path(name) for name in ("/home", "/root", "/run/user"))
_TEMPORARY = tuple(Path(name) for name in ("/tmp", "/var/tmp"))  # noqa: S108  compared, not used
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_PROGRAMS = re.compile(r"[\"'\\]")

# What a user's manager can enforce: it has no right to make the namespaces that the rest needs.
_FOR_ALL = """\
UMask=0077
LimitCORE=0
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
"""
_FOR_SYSTEM = """\
CapabilityBoundingSet=
DevicePolicy=closed
KeyringMode=private
PrivateDevices=yes
PrivateIPC=yes
PrivateMounts=yes
PrivateUsers=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
"""


@dataclass(frozen=True)
class Service:
    """A service: the command that runs the workers, and the folders that it needs.

    `state` is what it writes to, `readable` what it only reads. `account` is the user it runs as, empty for a unit of a
    user's own manager. Where `has_private_sockets` is false, workers make their sockets in the system's folder for
    temporary files.
    """

    command: Sequence[str]
    state: Path
    readable: Sequence[Path]
    account: str
    has_private_sockets: bool = True


def unit_text(service: Service, name: str) -> str:
    """Return the text of the unit `name`.

    Raises:
        ServiceError: a path has characters that units can't have.
    """
    is_user_unit = not service.account
    control = "systemctl --user" if is_user_unit else "systemctl"
    lines = [f"{MARK}{control} edit {name}", "[Unit]", "Description=nfcli workers"]
    if not is_user_unit:
        lines += ["Wants=network-online.target", "After=network-online.target"]
    lines += ["StartLimitIntervalSec=300", "StartLimitBurst=10", "", "[Service]"]
    lines += ["Type=notify", "NotifyAccess=main", f"ExecStart={_command(service.command)}"]
    lines += ["ExecReload=/bin/kill -HUP $MAINPID", "KillMode=mixed", "Restart=on-failure", "RestartSec=5"]
    lines += [f"WatchdogSec={WATCHDOG_SECONDS}", f"TimeoutStartSec={_START_SECONDS}", f"TimeoutStopSec={_STOP_SECONDS}"]
    if is_user_unit:
        lines += [*_FOR_ALL.splitlines(), "", "[Install]", "WantedBy=default.target"]
    else:
        lines += [f"User={service.account}", f"ReadWritePaths={quoted([str(service.state)])}"]
        lines += [*_FOR_ALL.splitlines(), *_FOR_SYSTEM.splitlines(), *_folder_lines(service)]
        lines += ["", "[Install]", "WantedBy=multi-user.target"]
    return "\n".join(lines) + "\n"


def quoted(words: Iterable[str], *, is_command: bool = False) -> str:
    """Return words as units have them: `%` and in commands `$` are doubled, blanks and quotes are in double quotes.

    Raises:
        ServiceError: a word has a control character, or is not UTF-8.
    """
    return " ".join(_quoted(word, is_command=is_command) for word in words)


def _command(words: Sequence[str]) -> str:
    """Return a command; in the name of the program systemd expands no variables, and accepts no quotes.

    Raises:
        ServiceError: see above.
    """
    program, *arguments = words
    if _NOT_IN_PROGRAMS.search(program):
        raise ServiceError(f"{program} has a quote or a backslash, which systemd accepts in no program: rename it")
    return " ".join((quoted([program]), quoted(arguments, is_command=True)))


def _quoted(word: str, *, is_command: bool) -> str:
    if _CONTROL.search(word):
        raise ServiceError(f"{word!r} has a control character, which a systemd unit can't have: rename it")
    if not word.isascii() and any(0xD800 <= ord(character) <= 0xDFFF for character in word):  # noqa: PLR2004
        raise ServiceError(f"{os.fsencode(word)!r} is not UTF-8, as systemd units have to be: rename it")
    text = word.replace("%", "%%")
    if is_command:
        text = text.replace("$", "$$")
    if not word or re.search(r"[\s\"'\\;]", word):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return text


def _folder_lines(service: Service) -> list[str]:
    """Return the lines about homes and temporary files: hidden, unless the service has something there."""
    paths = [service.state, *service.readable]
    has_home = any(_is_below(path, _HOMES) for path in paths)
    has_temporary = not service.has_private_sockets or any(_is_below(path, _TEMPORARY) for path in paths)
    return [f"ProtectHome={'read-only' if has_home else 'yes'}", f"PrivateTmp={'no' if has_temporary else 'yes'}"]


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
