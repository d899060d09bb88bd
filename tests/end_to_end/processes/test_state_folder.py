"""Where the state is stored under the conditions of containers: no account, read-only inventories, widened modes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.programs import PROGRAM, assert_one_line
from support.workers import without_stop_notice

pytestmark = pytest.mark.slow

WORKER = "workers: {w1: [{service: fastmcp, port: 0, authentication_enabled: true}]}\n"
GROUP = 54_321
CREATE = ("fastmcp", "auth", "create-token", "username", "ann", "token", "t1")
CHECK = ("fastmcp", "auth", "check-token", "token", "t1")


def run(
    *words: str, folder: Path, before: tuple[str, ...] = (), **environ: str | None
) -> subprocess.CompletedProcess[str]:
    """Run nfcli in a folder, behind the words of another program, with these variables changed; None removes one."""
    names = os.environ | environ
    done = subprocess.run(
        [*before, str(PROGRAM), *words],
        cwd=folder,
        env={name: value for name, value in names.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    done.stderr = without_stop_notice(done.stderr)
    return done


@pytest.fixture(scope="module")
def nobody() -> tuple[str, ...]:
    """Return the words that run a program as a user without an account; skip where the system doesn't let one."""
    words = ("unshare", "--user", f"--map-user={GROUP}", f"--map-group={GROUP}")
    if not shutil.which("unshare") or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("there are no user namespaces here")
    return words


@pytest.fixture(scope="module")
def sealed() -> tuple[str, ...]:
    """Return the words that run a program with its working folder read-only; skip where none can be mounted."""
    script = 'd=$PWD; mount --bind "$d" "$d" && mount -o remount,ro,bind "$d" && cd "$d" && exec "$@"'
    words = ("unshare", "--mount", "sh", "-c", script, "sh")
    if not shutil.which("unshare") or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    return words


def test_user_without_an_account_works_with_an_inventory(tmp_path: Path, nobody: tuple[str, ...]) -> None:
    """No home is needed where the working folder has one, or where a folder for the state is named."""
    bare = dict.fromkeys(("HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "LOGNAME", "USER"))
    done = run("show", "norfab", "client", folder=tmp_path, before=nobody, **bare)
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_line(done.stderr, f"user {GROUP} has no home folder", "NFCLI_STATE", "-i")
    done = run("show", "norfab", "client", folder=tmp_path, before=nobody, **bare, NFCLI_STATE="state")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "state" / "keys").is_dir()
    (tmp_path / "inventory.yaml").write_text(WORKER)
    done = run(*CREATE, folder=tmp_path, before=nobody, **bare)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / ".nfcli" / "tokens" / "w1").is_dir()


def test_working_folder_that_cannot_be_entered_has_no_inventory(
    tmp_path: Path, home: Path, nobody: tuple[str, ...]
) -> None:
    """As after `sudo -u`: the default environment applies."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "inventory.yaml").write_text(WORKER)
    closed.chmod(0)
    try:
        done = run("show", "norfab", "client", folder=closed, before=nobody)
    finally:
        closed.chmod(0o700)
    assert (done.returncode, done.stderr) == (0, "")
    assert f'"environment": "{home}/.local/state/nfcli"' in done.stdout


def test_read_only_inventory_has_its_state_on_a_volume(tmp_path: Path, sealed: tuple[str, ...]) -> None:
    """An inventory as a ConfigMap mounts it: links into `..data`; the volume is the root of a file system."""
    config, volume = tmp_path / "config", tmp_path / "volume"
    (config / "..2026").mkdir(parents=True)
    (config / "..data").symlink_to("..2026")
    (config / "..2026" / "inventory.yaml").write_text(WORKER)
    (config / "inventory.yaml").symlink_to("..data/inventory.yaml")
    (volume / "lost+found").mkdir(parents=True, mode=0o700)
    (volume / "of-others").mkdir(mode=0o777)
    refused = run(*CREATE, folder=config, before=sealed)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert_one_line(refused.stderr, "Read-only file system", "--state DIR", "NFCLI_STATE")
    shown = run("show", "norfab", "inventory", folder=config, before=sealed)
    assert (shown.returncode, shown.stderr) == (0, "")
    done = run("--state", str(volume), *CREATE, folder=config, before=sealed)
    assert (done.returncode, done.stderr) == (0, "")
    (config / "..2026" / "inventory.yaml").write_text(f"{WORKER}state: {volume}\n")
    done = run(*CHECK, folder=config, before=sealed)
    assert (done.returncode, "true" in done.stdout) == (0, True)
    done = run("--check", "offline", folder=config, before=sealed)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"ok    environment: {volume} is private")
    assert not (config / ".nfcli").exists()


def test_modes_that_a_kubelet_widens_are_allowed_by_a_setting_alone(tmp_path: Path) -> None:
    """`fsGroup` gives a group access to all files; the line names the remedy, the setting lets no others in."""
    if os.geteuid():
        pytest.skip("only root can give a folder to another group")
    (tmp_path / "inventory.yaml").write_text(WORKER)
    volume = tmp_path / "volume"
    words = ("--state", str(volume))
    assert run(*words, *CREATE, folder=tmp_path).returncode == 0
    for path in (volume, *volume.rglob("*")):
        os.chown(path, -1, GROUP)
        path.chmod(0o2770 if path.is_dir() else 0o660)
    for mode, named in ((0o2770, volume), (0o755, volume / "keys")):
        volume.chmod(mode)
        refused = run(*words, *CHECK, folder=tmp_path)
        assert refused.returncode == 1
        remedies = ("fsGroupChangePolicy: OnRootMismatch", f"NFCLI_STATE_GROUP={GROUP}")
        assert_one_line(refused.stderr, f"{named} has mode 2770", *remedies)
    volume.chmod(0o2770)
    done = run(*words, *CHECK, folder=tmp_path, NFCLI_STATE_GROUP=str(GROUP))
    assert (done.returncode, done.stderr) == (0, "")
    assert run(*words, *CHECK, folder=tmp_path, NFCLI_STATE_GROUP=str(GROUP + 1)).returncode == 1
    (volume / "tokens" / "w1" / "cache.db").chmod(0o664)
    refused = run(*words, *CHECK, folder=tmp_path, NFCLI_STATE_GROUP=str(GROUP))
    assert refused.returncode == 1
    assert_one_line(refused.stderr, "cache.db has mode 0664")


def test_inventory_of_another_program_is_named(tmp_path: Path) -> None:
    """What needs no inventory works, the line says whose it seems to be, and the default environment has a name."""
    for text in ("all:\n  hosts:\n    web1:\n      password: !vault |\n        xx\n", "web:\n  hosts:\n    web1:\n"):
        (tmp_path / "inventory.yaml").write_text(text)
        refused = run("show", "norfab", "inventory", folder=tmp_path)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert_one_line(refused.stderr, tmp_path / "inventory.yaml", "Ansible", "-i FILE", "-i default")
    assert run("man", "page", folder=tmp_path).returncode == 0
    shown = run("-i", "default", "show", "norfab", "inventory", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")


def test_token_database_is_in_the_environment_whatever_its_name(tmp_path: Path) -> None:
    """Variables in the name of a folder are not replaced."""
    folder = tmp_path / "$LOGNAME ${HOME}"
    folder.mkdir()
    (folder / "inventory.yaml").write_text(WORKER)
    done = run(*CREATE, folder=folder, LOGNAME="ann")
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / ".nfcli" / "tokens" / "w1" / "cache.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_workers_that_do_not_run_are_a_fault_unless_they_may_be_stopped(tmp_path: Path) -> None:
    """A monitor that runs the check, or lists the workers, learns that they are gone."""
    (tmp_path / "inventory.yaml").write_text(WORKER)
    assert run(*CREATE, folder=tmp_path).returncode == 0
    done = run("--check", folder=tmp_path)
    faults = [line for line in done.stdout.splitlines() if line.startswith("FAULT")]
    remedy = "start it with nfcli -w, or run --check offline if it is meant to be stopped"
    assert (done.returncode, faults) == (1, [f"FAULT w1: worker w1 is not running: {remedy}"])
    done = run("--check", "offline", folder=tmp_path)
    assert (done.returncode, "FAULT" in done.stdout) == (0, False)
    done = run("show", "norfab", "workers", folder=tmp_path)
    assert (done.returncode, "dead" in done.stdout) == (1, True)
    assert_one_line(done.stderr, "no worker is alive", "nfcli -w")
