"""The systemd unit of a service: what it runs, and that it gives the workers few rights."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nfcli.models.errors import ServiceError
from nfcli.shell.maintenance.service.unit import MARK, Service, quoted, unit_text

EXPOSURE = 20
"""Tenths: systemd rates units from 0, without any right, to 100."""
SERVICE = Service(
    command=["/usr/bin/true", "-i", "/srv/mcp/inventory.yaml", "-w"],
    state=Path("/srv/mcp/.nfcli"),
    readable=[Path("/usr/bin/true"), Path("/srv/mcp")],
    account="mcp",
)
NEEDS_SYSTEMD = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def analyze(unit: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Have systemd analyze a unit."""
    file = folder / "nfcli.service"
    file.write_text(unit)
    command = ["systemd-analyze", *words, "--no-pager", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rate(unit: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Have systemd rate a unit; status 0 if it is exposed less than `EXPOSURE`."""
    return analyze(unit, folder, "security", "--offline=true", f"--threshold={EXPOSURE}")


@NEEDS_SYSTEMD
def test_the_unit_is_hardened(tmp_path: Path) -> None:
    """The same without what restricts it isn't."""
    unit = unit_text(SERVICE, "nfcli")
    rated = rate(unit, tmp_path)
    assert rated.returncode == 0, rated.stdout + rated.stderr
    bare = "".join(line for line in unit.splitlines(keepends=True) if re.match(r"\[|ExecStart=|User=", line))
    assert rate(bare, tmp_path).returncode != 0


@NEEDS_SYSTEMD
@pytest.mark.parametrize("account", ["daemon", ""])
def test_systemd_accepts_every_line(tmp_path: Path, account: str) -> None:
    """Of the system's unit and of a user's, with paths that have to be quoted."""
    strange = Path('/srv/a b "c" 100% $HOME \\ ; é')
    service = replace(SERVICE, account=account, state=strange, command=["/usr/bin/true", str(strange), "-w"])
    found = analyze(unit_text(service, "nfcli"), tmp_path, "verify")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@NEEDS_SYSTEMD
@pytest.mark.parametrize("name", ["$HOME", "a $b ${c}", "100% %n", "é ; {x}", "*?[x] # ~"])
def test_systemd_finds_the_program_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    """In the name of the program it replaces no variables, so that a doubled $ would be two of them."""
    program = tmp_path / name / "nfcli"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    service = replace(SERVICE, account="daemon", command=[str(program), "-w"])
    found = analyze(unit_text(service, "nfcli"), tmp_path, "verify")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("character", ["'", '"', "\\"])
def test_a_program_that_systemd_cannot_run_is_refused(character: str) -> None:
    """Systemd calls the unit invalid, quoted or not; arguments may have these characters."""
    with pytest.raises(ServiceError, match="has a quote or a backslash, which systemd accepts in no program: rename"):
        unit_text(replace(SERVICE, command=[f"/srv/o{character}hara/nfcli", "-w"]), "nfcli")


def test_a_path_that_is_not_utf_8_is_refused() -> None:
    """As it is on disk, so that it can be found."""
    for changed in (replace(SERVICE, state=Path("/srv/\udce9")), replace(SERVICE, command=["/srv/\udce9/nfcli"])):
        with pytest.raises(
            ServiceError, match=r"^b'/srv/\\xe9.*' is not UTF-8, as systemd units have to be: rename it$"
        ):
            unit_text(changed, "nfcli")


def test_the_unit_names_what_it_runs_and_where_it_writes() -> None:
    """It reports its start and pings the watchdog; a reload is a SIGHUP."""
    lines = unit_text(SERVICE, "nfcli").splitlines()
    assert lines[0] == f"{MARK}systemctl edit nfcli"
    assert {
        "Type=notify",
        "WatchdogSec=60",
        "ExecStart=/usr/bin/true -i /srv/mcp/inventory.yaml -w",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "User=mcp",
        "ReadWritePaths=/srv/mcp/.nfcli",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "WantedBy=multi-user.target",
    } <= set(lines)


def test_the_unit_of_a_user_has_only_what_a_user_may_ask_for() -> None:
    """Namespaces need rights that a user's manager doesn't have."""
    lines = unit_text(replace(SERVICE, account=""), "mine").splitlines()
    assert lines[0] == f"{MARK}systemctl --user edit mine"
    assert "WantedBy=default.target" in lines
    assert "NoNewPrivileges=yes" in lines
    assert [line for line in lines if re.match(r"User=|Private|Protect|ReadWrite|Capability", line)] == []


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (replace(SERVICE, state=Path("/home/mcp/state")), "ProtectHome=read-only"),
        (replace(SERVICE, readable=[Path("/home/ann/.venv/bin/nfcli")]), "ProtectHome=read-only"),
        (replace(SERVICE, readable=[Path("/homeless")]), "ProtectHome=yes"),
        (replace(SERVICE, readable=[Path("/var/tmp/venv")]), "PrivateTmp=no"),  # noqa: S108
        (replace(SERVICE, has_private_sockets=False), "PrivateTmp=no"),
    ],
)
def test_folders_that_the_service_needs_are_not_hidden(changed: Service, line: str) -> None:
    """Otherwise the program, or the sockets that shells connect to, would not be found."""
    assert line in unit_text(changed, "nfcli").splitlines()


@pytest.mark.parametrize(
    ("word", "in_command", "elsewhere"),
    [
        ("/srv/mcp", "/srv/mcp", "/srv/mcp"),
        ("/srv/my mcp", '"/srv/my mcp"', '"/srv/my mcp"'),
        ("100%", "100%%", "100%%"),
        ("$HOME", "$$HOME", "$HOME"),
        ('a"b', '"a\\"b"', '"a\\"b"'),
        ("a\\b", '"a\\\\b"', '"a\\\\b"'),
        ("", '""', '""'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(word: str, in_command: str, elsewhere: str) -> None:
    """Nothing in a path is a specifier, a variable or a separator."""
    assert (quoted([word], is_command=True), quoted([word])) == (in_command, elsewhere)


def test_a_path_cannot_add_lines_to_the_unit() -> None:
    """A folder may have any name."""
    with pytest.raises(ServiceError, match="has a control character"):
        unit_text(replace(SERVICE, state=Path("/srv/x\nExecStartPre=/bin/evil")), "nfcli")
